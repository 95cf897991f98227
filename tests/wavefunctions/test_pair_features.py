"""Features leave cusps as they are, and pairs are counted once each way."""

import jax
import jax.numpy as jnp
import numpy as np

from bayesmol.wavefunctions.pair_features import BETWEEN_ELECTRONS, PAIR_FEATURES, pair_features, pairs
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


def test_each_ordered_pair_once_by_its_spins():
    (equal, different), order = pairs(3, 2)
    assert equal.T.tolist() == [[0, 1], [1, 0]]
    assert different.T.tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    assert np.concatenate([equal, different], 1)[:, order][0].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_pairs_of_one_kind_or_none():
    assert [kind.shape for kind in pairs(3, 3).kinds] == [(2, 6), (2, 0)]
    assert pairs(1, 1).order.shape == (1, 0)
