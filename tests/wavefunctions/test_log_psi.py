"""Sums of determinants are those of linear algebra, of all sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.log_psi import determinant_sum
from bayesmol.wavefunctions.precision import double


@pytest.mark.parametrize("sizes", [(1, 0), (2, 1), (3, 3), (5, 4)])
def test_sum_of_determinants(sizes):
    draw = np.random.default_rng(sum(sizes)).normal
    up, down = (draw(size=(4, size, size)) for size in sizes)
    weights = draw(size=4)
    exact = np.sum(weights * np.linalg.det(up) * np.linalg.det(down))
    with double():
        sign, log = jax.jit(determinant_sum)(up, down, weights)
    assert float(sign) * np.exp(float(log)) == pytest.approx(exact, rel=1e-11)


def test_large_and_small_ones_neither_overflow_nor_vanish():
    with double():
        matrices = 1e80 * jnp.eye(5)[None]
        _, log = jax.jit(determinant_sum)(matrices, matrices, jnp.ones(1))
        assert float(log) == pytest.approx(10 * np.log(1e80))


def test_the_gradient_is_finite_where_one_determinant_vanishes():
    with double():
        up = jnp.stack([jnp.eye(2), jnp.zeros((2, 2))])
        slope = jax.jit(jax.grad(lambda a: determinant_sum(a, jnp.ones((2, 1, 1)), jnp.ones(2)).log))(up)
    np.testing.assert_allclose(slope, [np.eye(2), np.zeros((2, 2))])
