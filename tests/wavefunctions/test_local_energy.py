"""Local energies: parts in closed form, independence of the batch, and a check that finds wrong derivatives."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.errors import ConvergenceError
from bayesmol.wavefunctions.local_energy import checked, kinetic, local_energies, potential
from bayesmol.wavefunctions.log_psi import LogPsi, determinant_sum
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double

MOLECULE = Molecule.named("LiH")


def network(parameters, r):
    """Two determinants of orbitals from a layer that mixes electrons: all that a real ansatz has, small."""
    first, second = parameters
    away = jnp.linalg.norm(r[:, None] - jnp.asarray(MOLECULE.positions), axis=-1)
    hidden = jnp.tanh(jnp.concatenate([r, away, jnp.broadcast_to(jnp.mean(away, 0), away.shape)], 1) @ first)
    orbitals = (hidden @ second * jnp.exp(-jnp.sum(away, 1, keepdims=True) / 2)).reshape(2, 2, 2, 2)
    return determinant_sum(orbitals[0].swapaxes(0, 1), orbitals[1].swapaxes(0, 1), jnp.ones(2))


def example(walkers):
    source = np.random.default_rng(0)
    parameters = source.normal(size=(7, 8)) / 2, source.normal(size=(8, 4))
    return jax.tree.map(jnp.asarray, parameters), jnp.asarray(source.normal(size=(walkers, 4, 3)) * 1.5)


@cache
def compiled(chunk):
    """Energies of the network, compiled once for all tests."""
    return jax.jit(local_energies(network, MOLECULE, chunk=chunk))


def test_potential_is_the_sum_over_pairs():
    with double():
        r = example(1)[1][0]
        wanted = MOLECULE.nuclear_repulsion
        for i in range(4):
            for charge, place in zip(MOLECULE.charges, MOLECULE.positions, strict=True):
                wanted -= charge / np.linalg.norm(np.asarray(r[i]) - place)
            for j in range(i):
                wanted += 1 / np.linalg.norm(np.asarray(r[i] - r[j]))
        assert float(potential(MOLECULE, r)) == pytest.approx(wanted, rel=1e-13)


def test_kinetic_energy_of_a_gaussian_is_its_closed_form():
    """ψ = exp(−½ xᵀA x): T_P = ¼ tr A and T_F = ½ |A x|²."""
    root = np.random.default_rng(1).normal(size=(6, 6))
    matrix = root @ root.T
    with double():
        r = example(1)[1][0, :2]
        log_psi = lambda p, r: LogPsi(jnp.ones(()), -r.ravel() @ p @ r.ravel() / 2)  # noqa: E731
        found = jax.jit(lambda p, r: kinetic(log_psi, p, r))(jnp.asarray(matrix), r)
        wanted = np.trace(matrix) / 4, np.sum((matrix @ np.asarray(r).ravel()) ** 2) / 2
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_one_large_batch_is_its_chunks_and_its_rows():
    """JAX 0.10 in 32 bits has given wrong Laplacians to the rows from 2048 on; here all 4096 must agree."""
    with double():
        parameters, r = example(4096)
        whole = compiled(4096)(parameters, r)
        parts = compiled(64)(parameters, r)
        assert whole.total.dtype == np.float64
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-8)
        total = 2 * whole.kinetic_laplacian - whole.kinetic_gradient + whole.potential
        np.testing.assert_allclose(whole.total, total, rtol=1e-12)
        checked(compiled(64), network, parameters, r)


@pytest.mark.parametrize("part", ["kinetic_laplacian", "kinetic_gradient"])
def test_wrong_rows_of_a_batch_are_found(part):
    """What the bug of 32 bits did: the Laplacians of the last rows of a large batch are wrong."""
    with double():
        parameters, r = example(4096)
        energies = compiled(64)

        def wrong(parameters, r):
            found = energies(parameters, r)
            shift = jnp.where(jnp.arange(len(r)) >= 2048, 0.2, 0.0)
            return found._replace(**{part: getattr(found, part) + shift})

        with pytest.raises(ConvergenceError, match="of 4096"):
            checked(wrong, network, parameters, r)


def test_wrong_rule_of_differentiation_is_found():
    @jax.custom_jvp
    def square(x):
        return x**2

    square.defjvp(lambda primal, tangent: (primal[0] ** 2, 2.1 * primal[0] * tangent[0]))

    def log_psi(parameters, r):
        return LogPsi(jnp.ones(()), -jnp.sum(square(r)))

    with double():
        r = example(16)[1]
        with pytest.raises(ConvergenceError, match="finite differences"):
            checked(jax.jit(local_energies(log_psi, MOLECULE)), log_psi, (), r)


def test_values_that_are_not_finite_are_found():
    with double():
        parameters, r = example(4096)
        with pytest.raises(ConvergenceError):
            checked(compiled(64), network, parameters, r.at[0, 0].set(jnp.nan))
