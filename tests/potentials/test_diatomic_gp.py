"""Curves of diatomics: closed forms of their constants, coverage, forces, draws, refusals."""

import math

import numpy as np
import pytest
import torch
from ase import Atoms, units
from scipy import stats

from bayesmol.data import Labelled, Structures
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.posterior import Draws
from bayesmol.potentials import DiatomicGP

BOND, DEPTH, WIDTH = 0.7414, 4.75, 1.9426
DISTANCES = np.array([0.42, 0.5, 0.58, 0.66, 0.74, 0.82, 0.93, 1.06, 1.27, 1.59])
MASS = 1.008
OMEGA = WIDTH * math.sqrt(2 * DEPTH / (MASS / 2)) * units._hbar * units.J * units.s / units.invcm


def morse(x):
    return DEPTH * (1 - np.exp(-WIDTH * (np.asarray(x) - BOND))) ** 2 - 32.0


def repelled(x):
    """Nuclear repulsion and a smooth rest, about as H2, in eV; the minimum is at 1.4 bohr."""
    d = np.asarray(x) / units.Bohr
    return units.Hartree * (1 / d - 1 - 0.7288 * np.exp(-0.7 * (d - 1.4)) + (1 / 1.96 - 0.7288 * 0.7) * (d - 1.4))


def molecules(distances, name="H2"):
    return Structures.from_ase([Atoms(name, [[0, 0, 0], [0, 0, float(r)]]) for r in distances])


def labels(seed=0, error=3e-3, scatter=0.0, distances=DISTANCES, truth=morse):
    noise = np.random.default_rng(seed).standard_normal(len(distances)) * math.hypot(error, scatter)
    errors = torch.full((len(distances),), error, dtype=torch.float64)
    return Labelled(molecules(distances), energies=torch.from_numpy(truth(distances) + noise), energy_errors=errors)


@pytest.fixture(scope="module")
def fitted():
    return DiatomicGP().fit(labels(error=1e-4), seed=0)


def test_constants_of_a_morse_curve(fitted):
    """ω = a √(2 D / μ), here in 1/cm; the labels are good to 0.1 meV."""
    bond, energy, frequency = fitted.bond_length(), fitted.least_energy(), fitted.frequency((MASS, MASS))
    assert float(bond.mean) == pytest.approx(BOND, abs=1e-3)
    assert float(energy.mean) == pytest.approx(-32, abs=3e-4)
    assert float(frequency.mean) == pytest.approx(OMEGA, rel=5e-3)
    assert (bond.unit, energy.unit, frequency.unit) == ("Å", "eV", "1/cm")
    for found, truth in ((bond, BOND), (energy, -32.0), (frequency, OMEGA)):
        assert bool(found.interval(0.999).contains(torch.tensor(truth)))


@pytest.mark.parametrize("scatter", [0.0, 6e-3])
def test_intervals_cover_also_where_labels_scatter_more_than_they_say(scatter):
    """Ten labels cannot exclude a scatter, so intervals may be wide, by the bound on the last line, but not narrow."""
    trials, bond = 40, 1.4 * units.Bohr
    stiff = (2 / 1.4**3 - 0.49 * 0.7288) * units.Hartree / units.Bohr**2
    omega = math.sqrt(stiff / (MASS / 2)) * units._hbar * units.J * units.s / units.invcm
    truths = {"bond": bond, "energy": float(repelled(bond)), "frequency": omega, "stretched": float(repelled(1.15))}
    hits, bonds = dict.fromkeys(truths, 0), []
    for seed in range(trials):
        found = DiatomicGP(draws=200).fit(labels(seed, scatter=scatter, truth=repelled), seed=seed)
        bonds.append(found.bond_length())
        values = (bonds[-1], found.least_energy(), found.frequency((MASS, MASS)))
        values += (found.predict(molecules([1.15])).energy,)
        for (name, truth), one in zip(truths.items(), values, strict=True):
            hits[name] += bool(one.interval(0.9).contains(torch.full_like(one.mean, truth)).all())
    least = stats.binom(trials, 0.9).ppf(0.005)
    assert all(count >= least for count in hits.values()), hits
    assert 0.7 < np.mean([float(q.stddev) for q in bonds]) / np.std([float(q.mean) for q in bonds]) < 2


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
    with pytest.raises(DataError, match="standard errors"):
        DiatomicGP().fit(Labelled(good.structures, energies=good.energies), seed=0)
    atoms = Structures.from_ase([Atoms("He")] * 6)
    with pytest.raises(DataError, match="two atoms"):
        DiatomicGP().fit(
            Labelled(atoms, energies=torch.zeros(6).double(), energy_errors=torch.ones(6).double()), seed=0
        )
    with pytest.raises(DataError, match="draws"):
        DiatomicGP(draws=3)
