"""Curves of a diatomic as a potential: forces, joint predictions, the domain, files."""

import math

import pytest
import torch
from ase import Atoms

from bayesmol.data import Structures
from bayesmol.errors import DataError, FormatError
from bayesmol.flows import BoltzmannDensity
from bayesmol.flows.learned_surfaces import energy_surfaces
from bayesmol.persistence import load, save
from bayesmol.potentials import DiatomicPotential


def molecules(distances, name="H2"):
    return Structures.from_ase([Atoms(name, [[0, 0, 0], [0, 0, float(r)]]) for r in distances])


@pytest.fixture(scope="module")
def fitted():
    """Morse curves of different depths."""
    grid = torch.linspace(0.42, 1.59, 121, dtype=torch.float64)
    depth = 4.75 + 0.1 * torch.randn(2000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    curves = depth * (1 - torch.exp(-1.9426 * (grid - 0.7414))) ** 2
    return DiatomicPotential.of(torch.tensor([1, 1]), grid, curves, {"model": "test"})


def test_forces_are_slopes_and_turn_with_the_molecule(fitted):
    x = torch.tensor([0.6, 0.9, 1.3], dtype=torch.float64)
    found, step = fitted.surface(molecules(x)), 1e-4
    slope = (fitted.surface(molecules(x + step)).energies - fitted.surface(molecules(x - step)).energies) / (2 * step)
    torch.testing.assert_close(found.forces.view(3, 2, 3)[:, 1, 2], -slope, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.forces.view(3, 2, 3).sum(1), torch.zeros(3, 3).double())
    turned = fitted.surface(Structures.from_ase([Atoms("H2", [[0.9, 0, 0], [0, 0, 0]])]))
    torch.testing.assert_close(turned.forces[1], found.forces.view(3, 2, 3)[1, 1].flip(0) * torch.tensor([-1.0, 1, 1]))
    torch.testing.assert_close(turned.energies[0], found.energies[1])


def test_predictions_are_those_of_the_draws(fitted):
    structures = molecules([0.6, 0.9, 1.3])
    prediction = fitted.predict(structures, covariance=True)
    drawn = torch.stack([one.surface(structures).energies for one in fitted.draws(500, seed=0)])
    torch.testing.assert_close(prediction.energy.mean, fitted.surface(structures).energies)
    torch.testing.assert_close(drawn.std(0), prediction.energy.stddev, rtol=0.15, atol=1e-12)
    many = energy_surfaces(fitted, [structures], 2000, seed=0)
    torch.testing.assert_close(many.std(0), prediction.energy.stddev, rtol=0.1, atol=1e-12)
    assert prediction.forces.shape == (6, 3)
    with pytest.raises(DataError, match="at most 2000"):
        fitted.draws(2001, seed=0)


def test_the_range_of_the_labels_is_the_domain(fitted):
    with pytest.raises(DataError, match=r"0\.420 to 1\.590"):
        fitted.predict(molecules([0.3]))
    assert bool(torch.isinf(fitted.strangeness(molecules([0.3, 1.6]))).all())
    with pytest.raises(DataError, match="atoms"):
        fitted.surface(molecules([0.8], "LiH"))
    density = BoltzmannDensity.from_potential(fitted, molecules([0.74]), 300.0)
    line = torch.zeros(2, 6, dtype=torch.float64)
    line[:, 5] = torch.tensor([0.8, 0.3])
    energies = density.reduced_energy(line)
    assert math.isfinite(float(energies[0])) and math.isinf(float(energies[1]))


def test_a_file_gives_the_same_curves(fitted, tmp_path):
    save(fitted, tmp_path / "curve.bm")
    again = load(tmp_path / "curve.bm")
    assert torch.equal(again.curves, fitted.curves)
    assert torch.equal(again.predict(molecules([0.8])).energy.mean, fitted.predict(molecules([0.8])).energy.mean)
    header, arrays = fitted.state()
    with pytest.raises(FormatError, match="knots"):
        DiatomicPotential.from_state(header, {**arrays, "grid": arrays["grid"][1:]})
