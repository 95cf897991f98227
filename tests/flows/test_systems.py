"""Coordinates by kind of system, and what tempering finds before training."""

import math

import pytest
import torch
from ase.build import molecule

from bayesmol.errors import DataError
from bayesmol.flows import systems
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.flows.particle_densities import dw4, lennard_jones
from bayesmol.flows.systems import Exploration, coordinates
from bayesmol.inference.metropolis import HamiltonianMonteCarlo

SHORT = Exploration(hottest=4.0, rungs=4, walkers=16, warmup=60, draws=40, thin=1)


def rows_about(start, scale, size=200):
    return start + scale * torch.randn(size, start.shape[1], generator=torch.Generator().manual_seed(0)).double()


def test_plain_numbers_are_whitened():
    rows = torch.tensor([3.0, -1.0]) + torch.tensor([2.0, 0.1]) * torch.randn(5000, 2).double()
    y, volume = coordinates(double_well(), rows)(rows)
    torch.testing.assert_close(y.T.cov(), torch.eye(2, dtype=torch.float64), rtol=0, atol=0.05)
    torch.testing.assert_close(volume.exp(), torch.full_like(volume, 1 / 0.2), rtol=0.1, atol=0)


@pytest.mark.parametrize(("density", "columns", "angles"), [(dw4(), 5, 2), (lennard_jones(particles=5), 12, 0)])
def test_particles_lose_what_has_no_meaning(density, columns, angles):
    found = coordinates(density, rows_about(density.start[:1].double(), 3.0))
    assert len(found.circular) == columns
    assert int(found.circular.sum()) == angles


def test_molecules_have_internal_ones():
    density = alanine_dipeptide()
    found = coordinates(density, rows_about(density.start, 0.01))
    assert len(found.circular) == 60


def test_kinds_that_do_not_suit_are_refused():
    rows = torch.randn(10, 2).double()
    with pytest.raises(DataError, match="cartesian"):
        coordinates(double_well(), rows, "planar")
    with pytest.raises(DataError, match="coordinates"):
        coordinates(double_well(), rows, "polar")


def test_tempering_finds_both_wells_from_one():
    density = double_well(tilt=0.5)
    start = BoltzmannDensity(density.energy, 2, start=torch.tensor([[-1.4, 0.0]]))
    rows, evaluations = SHORT.fit(start, seed=0)
    assert rows.shape == (640, 2)
    assert evaluations > 640
    assert 0.02 < float((rows[:, 0] > 0).double().mean()) < 0.6


def test_a_molecule_moves_in_its_own_coordinates():
    atoms = molecule("NH3")
    reference = torch.tensor(atoms.positions).flatten()[None]

    def springs(x):
        i, j = torch.triu_indices(4, 4, 1)
        lengths = [(p.unflatten(1, (4, 3))[:, i] - p.unflatten(1, (4, 3))[:, j]).norm(dim=2) for p in (x, reference)]
        return 20 * (lengths[0] - lengths[1]).square().sum(1)

    density = BoltzmannDensity(
        springs, 12, 300.0, "eV", (4, 3), 3, start=reference, species=torch.tensor(atoms.numbers)
    )
    rows, _ = Exploration(rungs=2, walkers=8, warmup=30, draws=40, thin=1, leapfrogs=5).fit(density, seed=0)
    # Six springs of the six shapes: kT / 2 each, if the geometry is that of their rest.
    assert float(springs(rows).mean()) == pytest.approx(6 * density.kt / 2, rel=0.3)
    assert math.isfinite(float(rows.sum()))


def test_nowhere_to_start():
    with pytest.raises(DataError, match="start"):
        SHORT.fit(BoltzmannDensity(lambda x: x.square().sum(1), 2), seed=0)


def test_a_share_of_the_chains_starts_where_it_is_warmer(monkeypatch):
    density, starts = alanine_dipeptide(300.0), []

    class Chains(HamiltonianMonteCarlo):
        def fit(self, target, start, *, seed):
            starts.append(start)
            return super().fit(target, start, seed=seed)

    monkeypatch.setattr(systems, "HamiltonianMonteCarlo", Chains)
    cold = rows_about(density.start.double(), 0.01, 40)
    spec = Exploration(chains=20, length=1, leapfrogs=1, warm=0.25)
    warmer = rows_about(density.start.double(), 0.01, 1)
    for warm, wanted in ((warmer, 5), (None, 0)):
        spec.filled(density, cold, warm, seed=1)
        alike = (starts[-1][:, None] - starts[-1]).abs().amax(2) < 1e-12
        assert int(alike.sum(1).max()) >= wanted, "five of twenty have the only warm configuration"
    assert int(alike[:5, :5].sum()) < 25, "without warm ones all start among the cold ones"
    with pytest.raises(DataError, match="warm"):
        Exploration(warm=1.0)
