"""Wavefunctions in closed form: no variance where they are eigenstates, their energies where they are not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bayesmol.inference.nuts import nuts
from bayesmol.posterior import Draws
from bayesmol.wavefunctions.exact import (
    helium_without_repulsion,
    hookes_atom,
    hydrogen,
    hylleraas_helium,
    screened_helium,
)
from bayesmol.wavefunctions.local_energy import local_energies
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.walkers import MALA, start


def sampled(state, *, draws, walkers=256, seed=0, moves=10):
    """Local energies, axes (part, walker, draw), of a chain after its burn-in."""
    with double():
        sampler, energies = MALA(), local_energies(state.log_psi, state.system)
        move = sampler.move(state.log_psi, state.system)

        def draw(now, key):
            now = move((), now, key, moves)
            return now, jnp.stack(energies((), now.r))

        def whole(r, key):
            burn, key = jax.random.split(key)
            now = move((), sampler.initial(r), burn, 300, True, True)
            return jax.lax.scan(draw, now, jax.random.split(key, draws))[1]

        found = jax.jit(whole)(start(state.system, walkers, seed=seed), jax.random.key(seed))
        return torch.from_numpy(np.array(found).transpose(1, 2, 0).copy())


@pytest.mark.parametrize("state", [hydrogen(3), helium_without_repulsion(), hookes_atom()])
def test_local_energy_of_an_eigenstate_has_no_variance(state):
    with double():
        energies = jax.jit(local_energies(state.log_psi, state.system))((), start(state.system, 500, seed=0)).total
        assert float(jnp.var(energies)) < 1e-10
        assert float(jnp.abs(energies - state.energy).max()) < 1e-8


def polynomial(terms):
    """Function of (s, t, u), a dictionary of powers, as a numpy array of coefficients."""
    array = np.zeros((8, 8, 8))
    for powers, value in terms.items():
        array[powers] = value
    return array


def product(*factors):
    """Product of polynomials."""
    total = {(0, 0, 0): 1.0}
    for factor in factors:
        found = {}
        for first, value in total.items():
            for second, other in zip(np.argwhere(factor), factor[factor != 0], strict=True):
                key = tuple(int(a) + int(b) for a, b in zip(first, second, strict=True))
                found[key] = found.get(key, 0.0) + value * other
        total = found
    return polynomial(total)


def integral(array, k):
    r"""∫₀^∞ ds e^{-ks} ∫₀^s du ∫₀^u dt of a polynomial, each term in closed form."""
    total = 0.0
    for (a, b, c), value in zip(np.argwhere(array), array[array != 0], strict=True):
        n = int(a + b + c) + 2
        total += value * math.factorial(n) / k ** (n + 1) / (b + 1) / (b + c + 2)
    return total


def derivative(array, axis):
    powers = np.arange(8).reshape([-1 if i == axis else 1 for i in range(3)])
    return np.roll(array * powers, -1, axis)


def closed_energy(exponent, factor):
    """Rayleigh quotient of e^{-ζs} f(s, t, u) for helium, in Hylleraas coordinates (Bethe, Salpeter, section 32)."""
    ds, dt, du = derivative(factor, 0) - exponent * factor, derivative(factor, 1), derivative(factor, 2)
    volume = polynomial({(2, 0, 1): 1, (0, 2, 1): -1})
    mixed_s, mixed_t = polynomial({(1, 0, 2): 2, (1, 2, 0): -2}), polynomial({(2, 1, 0): 2, (0, 1, 2): -2})
    kinetic = product(volume, product(ds, ds) + product(dt, dt) + product(du, du))
    kinetic = kinetic + product(mixed_s, du, ds) + product(mixed_t, du, dt)
    attraction = product(polynomial({(1, 0, 1): -8, (2, 0, 0): 1, (0, 2, 0): -1}), factor, factor)
    return integral(kinetic + attraction, 2 * exponent) / integral(product(volume, factor, factor), 2 * exponent)


def test_energies_of_the_helium_functions_are_their_integrals():
    assert closed_energy(27 / 16, polynomial({(0, 0, 0): 1})) == pytest.approx(screened_helium().energy, abs=1e-12)
    factor = polynomial({(0, 0, 0): 1, (0, 0, 1): 0.29178579, (0, 2, 0): 0.13081481})
    assert closed_energy(1.8160677, factor) == pytest.approx(hylleraas_helium().energy, abs=1e-11)


def test_sampled_energy_is_within_three_standard_errors():
    state = screened_helium()
    parts = sampled(state, draws=400)
    energy = Draws(parts[0], unit="Ha").expectation()
    assert abs(float(energy.value) - state.energy) < 3 * float(energy.standard_error)
    assert float(energy.standard_error) < 4e-3
    gap = Draws(parts[1] - parts[2], unit="Ha").expectation()
    assert abs(float(gap.value)) < 4 * float(gap.standard_error)


def density(vector, data):
    return 2 * hylleraas_helium().log_psi((), vector.reshape(2, 3)).log


@pytest.mark.slow
def test_no_u_turn_sampler_finds_the_same_energy():
    """A sampler that shares no line with ours, on the same density: energies within three standard errors."""
    state = hylleraas_helium()
    places = torch.from_numpy(np.array(start(state.system, 4, seed=3)).reshape(4, -1))

    def monitor(vector):
        return vector.reshape(2, 3).norm(dim=-1).sort().values

    chains = nuts(density, places, warmup=300, draws=1000, monitor=monitor, seed=0)
    with double():
        energies = jax.jit(local_energies(state.log_psi, state.system))
        found = energies((), jnp.asarray(chains.values.reshape(-1, 2, 3).numpy())).total
    other = Draws(torch.from_numpy(np.array(found)).reshape(4, -1), unit="Ha").expectation()
    ours = Draws(sampled(state, draws=400)[0], unit="Ha").expectation()
    for estimate in (other, ours):
        assert abs(float(estimate.value) - state.energy) < 3 * float(estimate.standard_error)
    assert abs(float(other.value - ours.value)) < 3 * float(other.standard_error.hypot(ours.standard_error))
