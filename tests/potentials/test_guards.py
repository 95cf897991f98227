"""Hard limits: compositions outside the trained span and atoms too close."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.potentials.guards import guarded_strangeness, guards, merged, too_close, unknown_variance
from bayesmol.representation.radial import element_counts

SPECIES = (1, 6, 8)


@pytest.fixture(scope="module")
def data():
    return bm.data.load("rmd17/ethanol")[:5]


def test_only_compositions_outside_the_span_are_unknown(data):
    limits = guards(data.structures, SPECIES, 4.0)
    known = element_counts(data.structures, SPECIES)
    assert torch.equal(unknown_variance(known, limits), torch.zeros(5, dtype=torch.float64))
    assert torch.equal(unknown_variance(2 * known, limits), torch.zeros(5, dtype=torch.float64))
    assert bool((unknown_variance(known + torch.tensor([2.0, 1.0, 0.0]), limits) > 1e5).all())


def test_merging_widens_the_span(data):
    atoms = bm.data.load("ethanol/isolated-atoms")
    atoms = atoms[torch.isin(atoms.structures.species, torch.tensor([1, 6, 8]))]
    limits = merged(guards(data.structures, SPECIES, 4.0), guards(atoms.structures, SPECIES, 4.0))
    assert limits["compositions"].shape == (3, 3)
    assert torch.equal(unknown_variance(torch.eye(3, dtype=torch.float64), limits), torch.zeros(3, dtype=torch.float64))


def test_atoms_too_close_are_seen(data):
    limits = guards(data.structures, SPECIES, 4.0)
    assert not bool(too_close(data.structures, SPECIES, limits).any())
    frame = data.structures[0].to_ase()[0]
    frame.positions[8] = frame.positions[2] + 0.5 * (frame.positions[8] - frame.positions[2])
    assert bool(too_close(bm.data.Structures.from_ase(frame), SPECIES, limits).all())


def test_shortest_distances(data):
    found = guards(data.structures, SPECIES, 6.0)["distances"]
    apart = torch.stack([torch.cdist(p, p) for p in data.structures.positions.reshape(5, 9, 3)])
    kinds = data.structures.species[:9]
    for a, first in enumerate(SPECIES):
        for b, second in enumerate(SPECIES):
            pairs = apart[:, kinds == first][:, :, kinds == second]
            pairs = pairs[pairs > 0]
            want = pairs.min() if len(pairs) else torch.tensor(torch.inf).double()
            torch.testing.assert_close(found[a, b], want)


@pytest.mark.parametrize(("factor", "close"), [(0.9, False), (0.5, True)])
def test_closer_than_four_fifths_is_too_close(data, factor, close):
    squeezed = replace(data.structures, positions=factor * data.structures.positions)
    assert bool(too_close(squeezed, SPECIES, guards(data.structures, SPECIES, 6.0)).all()) is close


def test_strangeness_is_infinite_outside_of_the_limits(data):
    structures, limits = data.structures[:3], guards(data.structures, SPECIES, 6.0)
    species, positions = structures.species.clone(), structures.positions.clone()
    species[0], positions[9:18] = 7, 0.5 * positions[9:18]
    asked = []

    def variance(inside):
        asked.append(len(inside))
        return torch.full((len(inside),), 36.0).double()

    scores = guarded_strangeness(replace(structures, species=species, positions=positions), SPECIES, limits, variance)
    assert scores.tolist() == [float("inf"), float("inf"), 2.0] and asked == [2]
    nitrogen = replace(structures, species=torch.full_like(species, 7))
    assert bool(guarded_strangeness(nitrogen, SPECIES, limits, variance).isinf().all()) and asked == [2]


def test_strangeness_by_a_prediction_needs_its_epistemic_part(data):
    structures, limits = data.structures[:2], guards(data.structures, SPECIES, 6.0)
    four, nine = torch.full((2,), 4.0).double(), torch.full((2,), 9.0).double()
    forces = Gaussian(structures.positions, torch.ones_like(structures.positions), unit="eV/Å")
    known = Prediction(Gaussian(four, nine, unit="eV", epistemic_variance=four), forces, structures.pointer)
    scores = guarded_strangeness(structures, SPECIES, limits, lambda inside: nine, known)
    torch.testing.assert_close(scores, (four / structures.counts).sqrt())
    plain = replace(known, energy=Gaussian(four, nine, unit="eV"))
    with pytest.raises(DataError, match="epistemic"):
        guarded_strangeness(structures, SPECIES, limits, lambda inside: nine, plain)
