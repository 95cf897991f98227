"""Hard limits: compositions outside the trained span and atoms too close."""

import pytest
import torch

import bayesmol as bm
from bayesmol.potentials.ace_guards import guards, merged, too_close, unknown_variance
from bayesmol.potentials.ace_rows import Model
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis


@pytest.fixture(scope="module")
def model():
    representation = Representation.random((1, 6, 8), RadialBasis(size=4), (2, 2, 2), (2, 2, 2), seed=0)
    zeros = torch.zeros(3, dtype=torch.float64)
    return Model(representation, torch.zeros(0, dtype=torch.float64), zeros, zeros)


@pytest.fixture(scope="module")
def data():
    return bm.data.load("rmd17/ethanol")[:5]


def test_only_compositions_outside_the_span_are_unknown(model, data):
    limits = guards(model, data)
    known = model.representation.composition(data.structures)
    assert torch.equal(unknown_variance(known, limits), torch.zeros(5, dtype=torch.float64))
    assert torch.equal(unknown_variance(2 * known, limits), torch.zeros(5, dtype=torch.float64))
    assert bool((unknown_variance(known + torch.tensor([2.0, 1.0, 0.0]), limits) > 1e5).all())


def test_merging_widens_the_span(model, data):
    atoms = bm.data.load("ethanol/isolated-atoms")
    atoms = atoms[torch.isin(atoms.structures.species, torch.tensor([1, 6, 8]))]
    limits = merged(guards(model, data), guards(model, atoms))
    assert limits["compositions"].shape == (3, 3)
    assert torch.equal(unknown_variance(torch.eye(3, dtype=torch.float64), limits), torch.zeros(3, dtype=torch.float64))


def test_atoms_too_close_are_seen(model, data):
    limits = guards(model, data)
    assert not bool(too_close(data.structures, model, limits).any())
    frame = data.structures[0].to_ase()[0]
    frame.positions[8] = frame.positions[2] + 0.5 * (frame.positions[8] - frame.positions[2])
    assert bool(too_close(bm.data.Structures.from_ase(frame), model, limits).all())
