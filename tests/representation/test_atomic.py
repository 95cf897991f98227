import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError, ShapeError
from bayesmol.representation.atomic import AtomicFeatures, atomic_features
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis


@pytest.fixture(scope="module")
def ethanol():
    return bm.data.load("rmd17/ethanol")[:5].structures


@pytest.fixture(scope="module")
def features(ethanol):
    return atomic_features(ethanol)


def test_one_row_an_atom(ethanol, features):
    assert len(features) == 5 and len(features.values) == 45
    assert torch.equal(features.species, ethanol.species)
    assert torch.equal(features.structure_index, ethanol.structure_index)
    assert torch.equal(features.counts, ethanol.counts)


def test_rotation_and_order_of_atoms(ethanol, features):
    atoms = ethanol[2].to_ase()[0]
    atoms.rotate(40, (1, 2, 3))
    order = [3, 1, 0, 2, 8, 7, 6, 5, 4]
    again = atomic_features(atoms[order])
    torch.testing.assert_close(again.values, features[2].values[order], rtol=1e-9, atol=1e-10)


def test_selection_and_concatenation(features):
    parts = AtomicFeatures.concatenate([features[3], features[[0, 1]]])
    expected = torch.cat([features.values[27:36], features.values[:18]])
    assert torch.equal(parts.values, expected) and parts.pointer.tolist() == [0, 9, 18, 27]
    with pytest.raises(DataError, match="parts"):
        AtomicFeatures.concatenate([])


def test_chunks_do_not_matter(ethanol, features, monkeypatch):
    monkeypatch.setattr("bayesmol.representation.design.CHUNK_BYTES", 1)
    torch.testing.assert_close(atomic_features(ethanol).values, features.values)


def test_sums_are_the_energy_rows(ethanol):
    representation = Representation.random((1, 6, 8), RadialBasis(cutoff=4.0), (3, 2, 1), (2, 1, 1), seed=1)
    found = atomic_features(ethanol, representation)
    rows = representation.design(representation.environments(ethanol), forces=False).energy
    summed = torch.zeros(5, 3, found.values.shape[1], dtype=torch.float64)
    kinds = torch.searchsorted(torch.tensor([1, 6, 8]), found.species)
    summed.index_put_((found.structure_index, kinds), found.values, accumulate=True)
    torch.testing.assert_close(summed.flatten(1), rows)


def test_parts_that_do_not_fit(features):
    with pytest.raises(ShapeError, match="one row"):
        AtomicFeatures(features.values, features.species, features.pointer[:-1])
