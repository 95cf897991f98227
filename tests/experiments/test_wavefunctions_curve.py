"""Constants of a diatomic from draws of its curve, and its full CI."""

import numpy as np
import pytest
import torch

from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("wavefunctions_curve")


def morse(x, bond=0.7414, depth=4.75, width=1.9426):
    return depth * (1 - torch.exp(-width * (x - bond))) ** 2


def test_constants_of_a_known_curve(module):
    x = torch.linspace(0.55, 1.0, 91, dtype=torch.float64)
    bond, frequency = module.constants(morse(x)[None], x)
    # ω = a √(2 D / μ): 1 eV/Å²/(u/2) is (1.6022e-19·1e20 J/m² / 8.368e-28 kg) in rad²/s².
    omega = 1.9426e10 * np.sqrt(2 * 4.75 * 1.602176634e-19 / (1.00782503 / 2 * 1.66053907e-27))
    assert float(bond) == pytest.approx(0.7414 / 0.529177211, abs=1e-5)
    assert float(frequency) == pytest.approx(omega / (2 * np.pi * 2.99792458e10), rel=1e-3)


def test_a_curve_without_a_minimum_has_no_constants(module):
    x = torch.linspace(0.55, 1.0, 91, dtype=torch.float64)
    assert bool(module.constants(-x[None], x)[0].isnan().all())


def test_intervals_of_noisy_curves_cover(module):
    """Curves of which the constants are known, with noise of 0.1 mHa: means scatter as they say."""
    distances, x = np.array(module.DISTANCES), torch.linspace(0.6, 0.9, 16, dtype=torch.float64)
    exact = 1 / distances - 1 - 0.7288 * np.exp(-0.7 * (distances - 1.4))  # lowest at 1.4 bohr, almost as H2
    exact += (0.7288 * 0.7 - 1 / 1.96) * (distances - 1.4)
    found = []
    for seed in range(30):
        noise = 1e-4 * np.random.default_rng(seed).standard_normal(len(exact))
        posterior = module.surface(exact + noise, np.full(len(exact), 1e-4))
        bond, _ = module.constants(posterior(x, seed), x)
        bond = bond[~bond.isnan()]
        found.append(float((bond.mean() - 1.4) / bond.std()))
    assert 0.3 < float(np.mean(np.square(found))) < 2.0


def test_comparison_counts_what_lies_below(module):
    exact = np.linspace(-1.1, -1.0, len(module.DISTANCES))
    energies = exact + 1e-4
    energies[3] = exact[3] - 2e-3
    study = Study("wavefunctions", "curve")
    module.compare(study, energies, np.full(len(exact), 1e-4), exact)
    assert study.figures["largest_error_mha"].value == pytest.approx(2)
    assert study.figures["below_bound"].value == 1


@pytest.mark.slow
def test_full_ci_is_near_the_exact_energy(module):
    assert module.full_ci(1.4) == pytest.approx(-1.174476, abs=3e-4)
