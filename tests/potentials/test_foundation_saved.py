"""The file of a corrected foundation: JSON and arrays that give the same predictions, and damaged ones."""

import json

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import FormatError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.foundation_saved import from_state, state


def features(positions, species, pointer, cell):
    return torch.stack([positions.square().sum(1), positions.square().square().sum(1)], 1)


def energies(positions, species, pointer, cell):
    owner = torch.arange(len(pointer) - 1).repeat_interleave(pointer.diff())
    return positions.new_zeros(len(pointer) - 1).index_add(0, owner, positions.square().sum(1))


@pytest.fixture
def model():
    data = bm.data.load("rmd17/ethanol")[:8]
    return Foundation.from_torch(energies, features=features).with_last_layer(data, rank=2)


def test_predictions_survive(model):
    header, arrays = state(model)
    loaded = model.foundation.attach(from_state(json.loads(json.dumps(header)), arrays))
    one = bm.data.load("rmd17/ethanol")[8:10].structures
    for name in ("energy", "forces"):
        first, second = getattr(model.predict(one), name), getattr(loaded.predict(one), name)
        assert torch.equal(first.mean, second.mean) and torch.equal(first.variance, second.variance)
    assert torch.equal(loaded.left_out_strangeness(), model.left_out_strangeness())
    assert loaded.training.fingerprint == model.training.fingerprint and loaded.provenance == model.provenance


def test_a_missing_part_is_named(model):
    header, arrays = state(model)
    arrays.pop("posterior.mean")
    with pytest.raises(FormatError, match="mean"):
        from_state(header, arrays)


def test_files_and_batches_as_of_any_potential(model, tmp_path):
    data = bm.data.load("rmd17/ethanol")[8:40]
    bm.save(model, tmp_path / "model")
    again = model.foundation.attach(bm.load(tmp_path / "model"))
    one, two = (potential.predict(data.structures[:3]).forces for potential in (model, again))
    assert torch.equal(one.mean, two.mean) and torch.equal(one.variance, two.variance)
    for batch in ("logdet", "lcmd"):
        chosen = bm.acquisition.select(model, data.structures, 4, batch=batch, seed=0)
        assert len(set(chosen.indices.tolist())) == 4
