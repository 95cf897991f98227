"""Features leave cusps as they are."""

import jax
import jax.numpy as jnp
import numpy as np

from bayesmol.wavefunctions.pair_features import (
    BETWEEN_ELECTRONS,
    NEAR_NUCLEI,
    PAIR_FEATURES,
    apart,
    nuclear_lengths,
    pair_features,
    places,
)
from bayesmol.wavefunctions.precision import double

features = jax.jit(lambda apart: pair_features(apart, BETWEEN_ELECTRONS))


def test_no_slope_at_coalescence_on_average_over_directions():
    direction = np.array([[0.6, 0.0, 0.8], [-0.6, 0.0, -0.8]])
    with double():
        near = np.asarray(features(jnp.asarray(1e-6 * direction)))
        there = np.asarray(features(jnp.zeros((2, 3))))
    slope = (near - there) / 1e-6
    assert slope.shape == (2, PAIR_FEATURES)
    assert np.abs(slope.mean(0)).max() < 1e-5
    assert np.abs(slope[:, :6]).max() < 1e-5
    assert np.abs(slope[:, 6:]).max() > 0.5


def test_second_derivatives_are_finite_at_coalescence():
    with double():
        second = jax.jit(jax.hessian(lambda x: features(x).sum()))(jnp.zeros(3))
    assert np.isfinite(second).all()


def test_lengths_follow_the_core():
    np.testing.assert_allclose(nuclear_lengths((1.0, 2.0)), [NEAR_NUCLEI] * 2)
    np.testing.assert_allclose(nuclear_lengths((8.0,)), [[0.125, 0.75, 4.0]])
    assert nuclear_lengths(()).shape == (0, 3)


def test_the_scale_is_that_of_the_core_at_nuclei_and_one_elsewhere():
    nuclei, charges = np.array([[0, 0, 0], [0, 0, 5.0], [0, 9.0, 0]]), (8.0, 3.0, 1.0)
    with double():
        where = np.asarray(places(jnp.asarray([*nuclei, [900, 0, 0]]), nuclei, charges))
        pair = np.asarray(apart(jnp.asarray(where[0]), jnp.asarray(where[2])))
    beside = np.sqrt(((2 / np.array([8, 3])) ** 2 + 25) / 26)  # each at the other
    np.testing.assert_allclose(where[:2, 3] ** 2, np.array([0.25, 2 / 3]) * beside[::-1], rtol=1e-12)
    np.testing.assert_allclose(where[2:, 3], 1, atol=0.02)
    np.testing.assert_allclose(pair, [0, -9, 0, where[0, 3] * where[2, 3]])


def test_the_scale_has_no_kink_at_a_nucleus():
    with double():
        slope = jax.grad(lambda x: places(x[None], np.zeros((1, 3)), (8.0,))[0, 3])
        assert np.abs(slope(jnp.asarray([0, 0, 1e-9]))).max() < 1e-6


def test_light_atoms_have_one_scale():
    assert np.array_equal(places(jnp.zeros((2, 3)), np.zeros((2, 3)), (1.0, 2.0))[:, 3], [1, 1])
    assert np.array_equal(places(jnp.zeros((2, 3)), np.zeros((0, 3)), ())[:, 3], [1, 1])
