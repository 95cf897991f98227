"""What files remember of foundations: probes, labels, and a refusal of any other."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import bayesmol as bm
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_state import (
    attached,
    matching,
    probe,
    remembered,
    restored_labels,
    stored_labels,
)


class Springs(nn.Module):
    """Atoms tied to the origin."""

    def __init__(self, stiffness=1.0):
        super().__init__()
        self.last = nn.Linear(1, 1, bias=False).double()
        self.last.weight.data.fill_(stiffness)

    def forward(self, positions, species, pointer, cell):
        owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
        atomic = self.last(positions.square().sum(1, keepdim=True))[:, 0]
        return atomic.new_zeros(len(pointer) - 1).index_add(0, owner, atomic)


@pytest.fixture
def data():
    return bm.data.load("rmd17/ethanol")[:6]


def test_labels_come_back_bit_by_bit(data):
    some = replace(data, has_forces=torch.arange(6) < 3)
    again = restored_labels(*stored_labels(some))
    assert again.fingerprint == some.fingerprint and again.source == data.source


def test_probes_are_the_first_structures(data):
    foundation = Foundation.from_torch(Springs(), features="last")
    structures, known = remembered(probe(data.structures, foundation.surface(data.structures)))
    assert len(structures) == 2
    torch.testing.assert_close(foundation.surface(structures).forces, known.forces)


def test_other_weights_are_refused_by_their_hash(data):
    model = Foundation.from_torch(Springs(), features="last").with_last_layer(data, rank=1)
    loaded = type(model).from_state(*model.state())
    with pytest.raises(FormatError, match="from_torch"):
        loaded.predict(data.structures)
    with pytest.raises(FormatError, match="sha256"):
        Foundation.from_torch(Springs(2.0), features="last").attach(loaded)
    again = Foundation.from_torch(Springs(), features="last").attach(loaded)
    assert torch.equal(again.predict(data.structures).energy.mean, model.predict(data.structures).energy.mean)


def test_functions_without_weights_are_recognised_by_what_they_say(data):
    def foundation(stiffness):
        module = Springs(stiffness)
        return Foundation.from_torch(lambda *a: module(*a), features=lambda p, *_: p.square())

    known = remembered(probe(data.structures, foundation(1.0).surface(data.structures)))
    matching(foundation(1.0).identity, foundation(1.0), known)
    with pytest.raises(FormatError, match="a difference of"):
        matching(foundation(1.0).identity, foundation(1.1), known)


def test_a_model_without_a_foundation_is_refused():
    with pytest.raises(DataError, match="foundation"):
        attached(object(), Foundation.from_torch(Springs(), features="last"))
