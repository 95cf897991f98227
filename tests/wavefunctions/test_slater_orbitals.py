"""Slater orbitals: hydrogen's closed forms, NumPy, the kink at a nucleus, derivatives, training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals

S = (0, 0, 0)
POWERS = (S, (1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (0, 1, 1))
SOURCE = np.random.default_rng(7)


@pytest.fixture(scope="module")
def mixed():
    """All kinds of functions about two centres."""
    centres = np.repeat([[0.0, 0.0, 0.0], [0.3, -0.4, 1.5]], len(POWERS), 0)
    exponents = SOURCE.uniform(0.5, 3.0, len(centres))
    return SlaterOrbitals(centres, exponents, SOURCE.normal(size=(len(centres), 4)), POWERS * 2)


def numpy_value(orbitals, points):
    apart = points[:, None] - orbitals.centres
    monomials = np.prod(apart ** np.array(orbitals.angular), -1)
    decay = np.exp(-orbitals.exponents * np.linalg.norm(apart, axis=-1))
    return (monomials * decay) @ orbitals.coefficients


def test_as_in_numpy(mixed):
    points = SOURCE.normal(size=(20, 3)) * 2
    with double():
        found = jax.jit(jax.vmap(mixed))(points)
        assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, numpy_value(mixed, points), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("power", "exponent", "energy"), [(S, 2.0, -2.0), ((0, 0, 1), 1.0, -0.5)])
def test_hydrogen_like_states(power, exponent, energy):
    """1s and 2p of Z = 2: −½∇²φ − Zφ/r = Eφ at each point."""
    orbital = SlaterOrbitals(np.zeros((1, 3)), np.array([exponent]), np.ones((1, 1)), (power,))
    points = SOURCE.normal(size=(5, 3))
    with double():
        both = jax.jit(jax.vmap(lambda r: (orbital(r)[0], jnp.trace(jax.hessian(lambda x: orbital(x)[0])(r)))))
        value, laplacian = (np.asarray(part) for part in both(points))
    np.testing.assert_allclose(-laplacian / 2 - 2 * value / np.linalg.norm(points, axis=1), energy * value, rtol=1e-10)


def test_derivatives_are_those_of_differences(mixed):
    r, direction, step = np.array([0.4, -0.7, 0.2]), np.array([0.3, 0.5, -0.6]), 1e-4
    gradient = jax.jacrev(mixed)

    @jax.jit
    def derivatives(x):
        return gradient(x), jax.linearize(gradient, x)[1](direction), jax.jvp(gradient, (x,), (direction,))[1]

    with double():
        (_, second, again), (right, *_), (left, *_) = (
            [np.asarray(part) for part in derivatives(r + k * step * direction)] for k in (0, 1, -1)
        )
    np.testing.assert_allclose(second, again, rtol=1e-10)
    np.testing.assert_allclose(second, (right - left) / (2 * step), rtol=1e-5, atol=1e-6)


def test_nothing_is_infinite_at_a_nucleus(mixed):
    with double():
        at = mixed.centres[0]
        value, *others = jax.jit(lambda r: (mixed(r), jax.jacrev(mixed)(r), jax.jacfwd(jax.jacrev(mixed))(r)))(at)
    assert all(np.isfinite(part).all() for part in others)
    np.testing.assert_allclose(value, numpy_value(mixed, at[None])[0], rtol=1e-12)


def test_trained_by_a_gradient(mixed):
    r = np.array([0.4, -0.7, 0.2])
    step = np.zeros(len(mixed.exponents))
    step[3] = 1e-5
    with double():
        loss = jax.jit(jax.value_and_grad(lambda parameters: jnp.sum(mixed.with_parameters(parameters)(r) ** 2)))
        _, slope = loss(mixed.parameters)
        functions = np.asarray(jax.jit(mixed.functions)(r))
        higher, lower = (float(loss({**mixed.parameters, "exponents": mixed.exponents + s * step})[0]) for s in (1, -1))
    assert set(slope) == {"exponents", "coefficients"}
    np.testing.assert_allclose(slope["coefficients"], 2 * np.outer(functions, functions @ mixed.coefficients))
    np.testing.assert_allclose((higher - lower) / 2e-5, slope["exponents"][3], rtol=1e-5)


def test_a_tree_for_jax(mixed):
    again = jax.tree.map(lambda leaf: leaf, mixed)
    assert len(jax.tree.leaves(mixed)) == 3 and again.angular == mixed.angular
    with double():
        value = jax.jit(lambda orbitals, r: orbitals(r))(mixed, np.ones(3))
    np.testing.assert_allclose(value, numpy_value(mixed, np.ones((1, 3)))[0], rtol=1e-12)
