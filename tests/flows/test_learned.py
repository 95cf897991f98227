import math

import numpy as np
import pytest
import torch

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.flows.learned import from_calculator, from_potential
from bayesmol.potentials import PairGP
from bayesmol.units import thermal_energy


def dimers(distances, angle=0.0):
    positions = torch.zeros(len(distances), 2, 3, dtype=torch.float64)
    positions[:, 1] = distances[:, None] * torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
    count = len(distances)
    species = torch.full((2 * count,), 18)
    cell, pbc = torch.zeros(count, 3, 3, dtype=torch.float64), torch.zeros(count, 3, dtype=torch.bool)
    return Structures(positions.reshape(-1, 3), species, 2 * torch.arange(count + 1), cell, pbc)


def morse(distances):
    return 0.3 * ((1 - torch.exp(-1.5 * (distances - 3.0))).square() - 1)


@pytest.fixture(scope="module")
def potential():
    distances = torch.linspace(2.4, 4.2, 24, dtype=torch.float64)
    errors = torch.full((24,), 0.005, dtype=torch.float64)
    noise = 0.005 * torch.randn(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    data = Labelled(dimers(distances), energies=morse(distances) + noise, energy_errors=errors)
    return PairGP(cutoffs=(6.0,), length_scales=(0.2,)).fit(data, seed=0)


@pytest.fixture(scope="module")
def density(potential):
    return from_potential(potential, dimers(torch.tensor([3.0], dtype=torch.float64)), 500.0)


def rows(distances):
    structures = dimers(distances, 0.4)
    return structures.positions.view(len(distances), 6)


def test_learned_density_is_the_potential(potential, density):
    x = rows(torch.tensor([2.7, 3.0, 3.6], dtype=torch.float64))
    prediction = potential.predict(dimers(torch.tensor([2.7, 3.0, 3.6], dtype=torch.float64)))
    torch.testing.assert_close(density.energy(x), prediction.energy.mean, rtol=0, atol=1e-9)
    assert density.unit == "eV" and density.space == 3 and density.species.tolist() == [18, 18]
    assert float(density.start.view(2, 3).mean(0).abs().max()) < 1e-12
    assert density.reduced_energy(x)[0] == density.energy(x)[0] / thermal_energy(500.0)


def test_gradients_are_those_of_finite_differences_and_keep_the_type(density):
    x = rows(torch.tensor([2.7, 3.3], dtype=torch.float64))
    _, gradient = density.reduced_gradient(x)
    for column in range(6):
        step = torch.zeros_like(x)
        step[:, column] = 1e-4
        slope = (density.reduced_energy(x + step) - density.reduced_energy(x - step)) / 2e-4
        torch.testing.assert_close(gradient[:, column], slope, rtol=1e-4, atol=1e-4)
    energy, gradient = density.reduced_gradient(x.float())
    assert energy.dtype == gradient.dtype == torch.float32


def test_outside_the_domain_there_is_no_density(density):
    x = torch.cat([rows(torch.tensor([3.0, 1.0, 0.15], dtype=torch.float64)), torch.zeros(1, 6, dtype=torch.float64)])
    x = torch.cat([x, torch.full((1, 6), torch.inf, dtype=torch.float64)])
    energy, gradient = density.reduced_gradient(x)
    assert torch.isfinite(energy).tolist() == [True, False, False, False, False]
    assert bool((energy[1:] == torch.inf).all()) and float(gradient[1:].abs().max()) == 0
    draws = density.surfaces(x, 4, 0)
    assert torch.isfinite(draws).all(0).tolist() == [True, False, False, False, False]


def test_a_limit_of_the_strangeness_bounds_the_domain(potential):
    start = dimers(torch.tensor([3.0], dtype=torch.float64))
    inside = float(potential.strangeness(start))
    x = rows(torch.tensor([3.0, 5.5], dtype=torch.float64))
    far = float(potential.strangeness(dimers(torch.tensor([5.5], dtype=torch.float64))))
    assert far > 2 * inside
    bounded = from_potential(potential, start, 500.0, limit=0.5 * (inside + far))
    assert torch.isfinite(bounded.energy(x)).tolist() == [True, False]


def test_surfaces_have_the_moments_of_the_posterior(potential, density):
    distances = torch.linspace(2.5, 4.1, 7, dtype=torch.float64)
    found = density.surfaces(rows(distances), 4000, 3)
    assert found.shape == (4000, 7)
    assert torch.equal(found, density.surfaces(rows(distances), 4000, 3))
    known = potential.predict(dimers(distances)).energy.epistemic
    spread = known.variance.sqrt()
    assert bool(((found.mean(0) - known.mean).abs() < 5 * spread / 4000**0.5).all())
    torch.testing.assert_close(found.std(0), spread, rtol=0.06, atol=0)
    # One draw is one function: differences vary as the potential says.
    pair = potential.energy_difference(dimers(distances[:1]), dimers(distances[1:2]))
    assert float((found[:, 0] - found[:, 1]).std()) == pytest.approx(float(pair.stddev), rel=0.06)


class Springs:
    """A calculator that counts."""

    def __init__(self, stiffness):
        self.stiffness, self.energies, self.forces = stiffness, 0, 0

    def get_potential_energy(self, atoms=None, force_consistent=False):
        self.energies += 1
        return float(0.5 * self.stiffness * (atoms.get_distance(0, 1) - 1.0) ** 2)

    def get_forces(self, atoms=None):
        self.forces += 1
        vector = atoms.positions[1] - atoms.positions[0]
        length = np.linalg.norm(vector)
        pull = self.stiffness * (length - 1.0) * vector / length
        return np.stack([pull, -pull])


def test_calculator_gives_values_and_forces_and_is_asked_no_more_than_needed():
    from ase import Atoms

    atoms = Atoms("H2", [[0, 0, 0], [0.9, 0, 0]])
    atoms.calc = Springs(20.0)
    density = from_calculator(atoms, 300.0)
    x = torch.tensor([[0.0, 0, 0, 1.1, 0, 0], [0, 0, 0, 0, 0.8, 0], [0, 0, 0, 0, 0, 0.1]], dtype=torch.float64)
    energy = density.energy(x)
    assert energy[:2].tolist() == pytest.approx([0.1, 0.4]) and math.isinf(energy[2])
    assert (atoms.calc.energies, atoms.calc.forces) == (2, 0)
    _, gradient = density.reduced_gradient(x)
    assert atoms.calc.forces == 2
    assert gradient[0].tolist() == pytest.approx([-2 / density.kt, 0, 0, 2 / density.kt, 0, 0])
    assert gradient[1].tolist() == pytest.approx([0, 4 / density.kt, 0, 0, -4 / density.kt, 0])
    assert float(gradient[2].abs().max()) == 0
    assert density.surfaces is None
    assert atoms.positions[1, 0] == 0.9


def test_bad_input(potential):
    from ase import Atoms

    with pytest.raises(DataError, match="calculator"):
        from_calculator(Atoms("H2", [[0, 0, 0], [1, 0, 0]]), 300.0)
    with pytest.raises(DataError, match="periodic"):
        from_potential(potential, Atoms("Ar2", [[0, 0, 0], [3, 0, 0]], cell=[9, 9, 9], pbc=True), 300.0)
    with pytest.raises(DataError, match="one molecule"):
        from_potential(potential, dimers(torch.tensor([3.0, 3.1], dtype=torch.float64)), 300.0)
    with pytest.raises(DataError, match="domain"):
        from_potential(potential, dimers(torch.tensor([0.9], dtype=torch.float64)), 300.0)
