import math
from functools import lru_cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.testing import assert_calibrated
from bayesmol.wavefunctions.differences import Sampled, difference_of_samples
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.exact import ModelSystem
from bayesmol.wavefunctions.local_energy import local_energies
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double

HELIUM = ModelSystem(charge=2)
WALKERS, DRAWS = 16, 64


def screened(parameters, r):
    """ψ = exp(−ζ(r₁ + r₂))."""
    return LogPsi(jnp.ones(()), -parameters * jnp.sum(jnp.linalg.norm(r, axis=-1)))


def screened_energy(exponent):
    return exponent**2 - 27 / 8 * exponent


@lru_cache
def _measure(log_psi, system):
    energies = local_energies(log_psi, system)
    return jax.jit(lambda p, r: (energies(p, r), 2 * jax.vmap(log_psi, (None, 0))(p, r).log))


def sampled(log_psi, parameters, system, r):
    """Independent configurations as walkers."""
    with double():
        parts, log = _measure(log_psi, system)(parameters, jnp.asarray(r.reshape(-1, *r.shape[2:])))
        parts, log = jax.tree.map(lambda x: np.array(x).reshape(r.shape[:2]), (parts, log))
    energy = Energy.of(*parts, log_density=log, acceptance=1.0)
    return Sampled(log_psi, parameters, system, r, energy)


def hydrogenic(exponent, electrons, source, shape=(WALKERS, DRAWS)):
    """Electrons in exp(−2ζr), drawn exactly."""
    direction = source.normal(size=(*shape, electrons, 3))
    radius = source.gamma(3.0, 1 / (2 * exponent), size=(*shape, electrons, 1))
    return radius * direction / np.linalg.norm(direction, axis=-1, keepdims=True)


def helium(exponent, source):
    return sampled(screened, exponent, HELIUM, hydrogenic(exponent, 2, source))


def ion(distance):
    """H₂⁺."""
    return Molecule(np.array([1, 1]), np.array([[0, 0, -distance / 2], [0, 0, distance / 2]]), charge=1, spin=1)


def bonding(parameters, r):
    """ψ = exp(−r_a) + exp(−r_b)."""
    return LogPsi(jnp.ones(()), jax.nn.logsumexp(-jnp.linalg.norm(r - parameters, axis=-1)))


def bonding_energy(distance):
    """Pauling's closed form."""
    overlap = math.exp(-distance) * (1 + distance + distance**2 / 3)
    direct = 1 / distance - math.exp(-2 * distance) * (1 + 1 / distance)
    exchange = math.exp(-distance) * (1 + distance)
    return -0.5 + 1 / distance - (direct + exchange) / (1 + overlap)


def bonded(distance, source):
    """Electrons in the bonding orbital by rejection from its two atoms."""
    molecule = ion(distance)
    r = hydrogenic(1.0, 1, source, (4 * WALKERS * DRAWS,))
    r += molecule.positions[source.integers(2, size=(len(r), 1))]
    away = np.linalg.norm(r - molecule.positions, axis=-1)
    bound = 2 * np.exp(-2 * away).sum(1)
    kept = r[source.random(len(r)) * bound < np.exp(-away).sum(1) ** 2]
    r = kept[: WALKERS * DRAWS].reshape(WALKERS, DRAWS, 1, 3)
    return sampled(bonding, molecule.positions, molecule, r)


def test_exponents_of_helium_differ_by_the_closed_form():
    source = np.random.default_rng(0)
    found = difference_of_samples(helium(1.6, source), helium(1.7, source))
    exact = screened_energy(1.7) - screened_energy(1.6)
    assert found.method == "correlated"
    assert abs(float(found.estimate.value) - exact) < 4 * float(found.estimate.standard_error)
    assert found.gain > 3
    assert 0.9 < found.overlap < 1
    assert "fixed wavefunctions" in found.guarantee


def test_intervals_cover_and_errors_are_those_of_repeats():
    exact, trials = screened_energy(2.0) - screened_energy(1.5), 60
    source = np.random.default_rng(1)
    found = [difference_of_samples(helium(1.5, source), helium(2.0, source)).estimate for _ in range(trials)]
    assert_calibrated(sum(bool(one.interval(0.95).contains(torch.tensor(exact))) for one in found), trials, 0.95)
    z = np.array([(float(one.value) - exact) / float(one.standard_error) for one in found])
    assert 0.7 < z.std() < 1.2


def test_neighbouring_geometries_by_the_space_warp():
    source = np.random.default_rng(2)
    found = difference_of_samples(bonded(2.0, source), bonded(2.05, source))
    exact = bonding_energy(2.05) - bonding_energy(2.0)
    assert found.method == "correlated"
    assert abs(float(found.estimate.value) - exact) < 4 * float(found.estimate.standard_error)
    assert found.gain > 5


def test_a_wavefunction_does_not_differ_from_itself():
    source = np.random.default_rng(3)
    found = difference_of_samples(helium(1.6, source), helium(1.6, source))
    assert abs(float(found.estimate.value)) < 1e-12
    assert found.overlap == pytest.approx(1)


def test_difference_changes_sign_with_the_order():
    source = np.random.default_rng(4)
    one, other = bonded(2.0, source), bonded(2.1, source)
    there, back = difference_of_samples(one, other).estimate, difference_of_samples(other, one).estimate
    # The warps of the two directions are not the inverse of each other.
    assert float(there.value + back.value) == pytest.approx(0, abs=float(there.standard_error))


def test_without_overlap_the_runs_are_independent():
    source = np.random.default_rng(5)
    found = difference_of_samples(helium(0.2, source), helium(20.0, source))
    assert found.method == "independent"
    assert found.reason in str(found)
    first, second = screened_energy(0.2), screened_energy(20.0)
    assert abs(float(found.estimate.value) - (second - first)) < 4 * float(found.estimate.standard_error)
    assert found.gain == 1


def test_refused_energy_refuses_the_difference():
    source = np.random.default_rng(6)
    one, other = helium(1.6, source), helium(1.7, source)
    shift = torch.linspace(-1, 1, WALKERS, dtype=torch.float64)[:, None].expand(WALKERS, DRAWS)
    stuck = other._replace(energy=SimpleNamespace(**_parts(other.energy, other.energy.local + shift)))
    stuck = stuck._replace(energy=Energy.of(**vars(stuck.energy)))
    found = difference_of_samples(one, stuck)
    assert found.method == "refused"
    assert math.isinf(float(found.estimate.standard_error))
    assert str(found).startswith("refused: second")
    assert "none" in found.guarantee


def _parts(energy, local):
    names = ("kinetic_laplacian", "kinetic_gradient", "potential", "log_density", "acceptance", "steps")
    return {"local": local, **{name: getattr(energy, name) for name in names}}


def test_electrons_must_agree():
    source = np.random.default_rng(7)
    with pytest.raises(DataError, match="spin up"):
        difference_of_samples(helium(1.6, source), bonded(2.0, source))
