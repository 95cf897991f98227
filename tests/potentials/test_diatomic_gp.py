"""Curves of diatomics: closed forms of their constants, coverage, forces, draws, refusals."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms, units

from bayesmol.data import Labelled, Structures
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.posterior import Draws
from bayesmol.potentials import DiatomicGP
from bayesmol.testing import assert_calibrated

BOND, DEPTH, WIDTH = 0.7414, 4.75, 1.9426
DISTANCES = np.array([0.42, 0.5, 0.58, 0.66, 0.74, 0.82, 0.93, 1.06, 1.27, 1.59])
MASS = 1.008


def morse(x):
    return DEPTH * (1 - np.exp(-WIDTH * (np.asarray(x) - BOND))) ** 2 - 32.0


def molecules(distances, name="H2"):
    return Structures.from_ase([Atoms(name, [[0, 0, 0], [0, 0, float(r)]]) for r in distances])


def labels(seed=0, error=3e-3, scatter=0.0, distances=DISTANCES):
    noise = np.random.default_rng(seed).standard_normal(len(distances)) * math.hypot(error, scatter)
    errors = torch.full((len(distances),), error, dtype=torch.float64)
    return Labelled(molecules(distances), energies=torch.from_numpy(morse(distances) + noise), energy_errors=errors)


@pytest.fixture(scope="module")
def fitted():
    return DiatomicGP().fit(labels(error=1e-4), seed=0)


def test_constants_of_a_morse_curve(fitted):
    """ω = a √(2 D / μ), here in 1/cm; the labels are good to 0.1 meV."""
    bond, energy, frequency = fitted.bond_length(), fitted.least_energy(), fitted.frequency((MASS, MASS))
    assert float(bond.mean) == pytest.approx(BOND, abs=1e-3)
    assert float(energy.mean) == pytest.approx(-32, abs=3e-4)
    omega = WIDTH * math.sqrt(2 * DEPTH / (MASS / 2)) * units._hbar * units.J * units.s / units.invcm
    assert float(frequency.mean) == pytest.approx(omega, rel=5e-3)
    assert (bond.unit, energy.unit, frequency.unit) == ("Å", "eV", "1/cm")
    for found, truth in ((bond, BOND), (energy, -32.0), (frequency, omega)):
        assert bool(found.interval(0.999).contains(torch.tensor(truth)))


@pytest.mark.parametrize("scatter", [0.0, 6e-3])
def test_intervals_cover_also_where_labels_scatter_more_than_they_say(scatter):
    """Ten labels cannot exclude a scatter, so without one intervals are somewhat wide."""
    hits, widths, trials = {"bond": 0, "energy": 0}, [], 40
    values = []
    for seed in range(trials):
        found = DiatomicGP(draws=200).fit(labels(seed, scatter=scatter), seed=seed)
        bond = found.bond_length()
        hits["bond"] += bool(bond.interval(0.9).contains(torch.tensor(BOND)))
        hits["energy"] += bool(found.least_energy().interval(0.9).contains(torch.tensor(-32.0)))
        widths.append(float(bond.stddev))
        values.append(float(bond.mean))
    for count in hits.values():
        assert_calibrated(min(count, trials - 1), trials, 0.9)
    assert 0.7 < np.mean(widths) / np.std(values) < 2


def test_a_curve_without_minimum_has_no_constants():
    distances = DISTANCES[:5]
    found = DiatomicGP(draws=200).fit(labels(error=1e-4, distances=distances), seed=0)
    with pytest.raises(ConvergenceError, match="none in"):
        found.bond_length()


def test_the_same_seed_gives_the_same():
    one, other = (DiatomicGP(draws=100).fit(labels(), seed=3) for _ in range(2))
    assert torch.equal(one.curves, other.curves)
    assert isinstance(one.curve(), Draws) and one.curve().shape == one.grid.shape


def test_bad_input():
    good = labels()
    with pytest.raises(DataError, match="five distances"):
        DiatomicGP().fit(good[:4], seed=0)
    with pytest.raises(DataError, match="energies"):
        DiatomicGP().fit(Labelled(good.structures, forces=torch.zeros(20, 3, dtype=torch.float64)), seed=0)
    with pytest.raises(DataError, match="two atoms"):
        DiatomicGP().fit(Labelled(Structures.from_ase([Atoms("He")] * 6), energies=torch.zeros(6).double()), seed=0)
    with pytest.raises(DataError, match="draws"):
        DiatomicGP(draws=3)
