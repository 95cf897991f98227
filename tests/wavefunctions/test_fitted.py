"""A trained wavefunction gives energies, samples and values, and comes back from a file."""

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError, ShapeError


def test_the_energy_is_between_exact_and_hartree_fock(helium, helium_energy):
    value, error = float(helium_energy.estimate.value), float(helium_energy.estimate.standard_error)
    assert -2.903724 - 3 * error < value < -2.8617
    assert helium_energy.local.shape == (64, 100)
    assert helium_energy.verdict != "refused", helium_energy.reasons


def test_the_same_seed_gives_the_same_energy(helium, helium_energy):
    assert torch.equal(helium.energy(100, seed=1).local, helium_energy.local)
    assert not torch.equal(helium.energy(100, seed=2).local, helium_energy.local)


def test_samples_are_of_the_density(helium):
    draws = helium.sample(60, seed=3)
    assert draws.values.shape == (64, 60, 2, 3)
    radius = helium.expectation(lambda r: r.norm(dim=2).mean(1), 60, seed=3, unit="bohr")
    # ⟨r⟩ of helium is 0.9295 bohr (Pekeris, Phys. Rev. 115, 1216 (1959)).
    assert float(radius.value) == pytest.approx(0.93, abs=0.03)


def test_values(helium):
    r = np.random.default_rng(0).normal(size=(2, 3, 2, 3))
    found = helium.log_psi(r)
    assert found.log.shape == (2, 3)
    np.testing.assert_allclose(helium.log_psi(r[1]).log, found.log[1], atol=1e-12)
    assert (found.sign == found.sign.flat[0]).all(), "the ground state of helium has no node"
    with pytest.raises(ShapeError, match="bohr"):
        helium.log_psi(np.zeros((3, 3)))


def test_bad_input(helium):
    with pytest.raises(DataError, match="walkers"):
        helium.energy(10, seed=0, walkers=65)
