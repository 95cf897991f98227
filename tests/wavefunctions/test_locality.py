"""Laplacians by the rules are those of second derivatives, for coordinates of any kind, and spare what they should."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folx import forward_laplacian

from bayesmol.wavefunctions.locality import each_electron, messages
from bayesmol.wavefunctions.pair_features import PAIR_FEATURES, places
from bayesmol.wavefunctions.precision import double

WIDTH = 4


@partial(jax.tree_util.register_dataclass, data_fields=["centre", "weights"], meta_fields=["power"])
@dataclass(frozen=True, eq=False)
class Bump:
    """A function of a point with arrays and with a constant."""

    centre: np.ndarray
    weights: np.ndarray
    power: int

    def __call__(self, r):
        return jnp.exp(-jnp.sum((r - self.centre) ** self.power)) * jnp.sin(r @ self.weights)


def bent(x):
    """Electrons whose coordinates are no longer those that are differentiated, and have a Laplacian."""
    r = x.reshape(-1, 3)
    return r + 0.2 * jnp.sin(r[::-1] * r.sum())


def electrons(x, power=2):
    source = np.random.default_rng(5)
    return each_electron(Bump(source.normal(size=3), source.normal(size=(3, 5)), power), bent(x))


def heard(x, *, within):
    source = np.random.default_rng(6)
    filters, alone = source.normal(size=(2, PAIR_FEATURES, WIDTH))
    where = places(bent(x), np.ones((2, 3)), (8.0, 1.0))
    receivers, senders = (where, where) if within else (where[:2], where[2:])
    return messages(
        filters, alone, jnp.tanh(senders.sum() + senders @ source.normal(size=(4, WIDTH))), receivers, senders
    )


@pytest.mark.parametrize(
    "function",
    [electrons, partial(electrons, power=4), partial(heard, within=True), partial(heard, within=False)],
    ids=["electrons", "another constant", "messages of the same", "messages of others"],
)
def test_derivatives_are_those_of_the_plain_function(function):
    with double():
        x = jnp.asarray(np.random.default_rng(7).normal(size=15))
        found = jax.jit(forward_laplacian(function, sparsity_threshold=0))(x)
        first, second = jax.jit(jax.jacfwd(function))(x), jax.jit(jax.hessian(function))(x)
        plain = function(x)
    np.testing.assert_allclose(found.x, plain, atol=1e-12)
    np.testing.assert_allclose(np.moveaxis(np.asarray(found.jacobian.dense_array), 0, -1), first, atol=1e-11)
    np.testing.assert_allclose(found.laplacian, np.trace(second, axis1=-2, axis2=-1), atol=1e-10)
    assert np.abs(np.asarray(found.laplacian)).max() > 1


def test_nobody_hears_itself():
    source = np.random.default_rng(8)
    filters, alone = source.normal(size=(2, PAIR_FEATURES, WIDTH))
    with double():
        r, sent = jnp.asarray(source.normal(size=(3, 4))), source.normal(size=(3, WIDTH))
        both = messages(filters, alone, sent, r, r)
        others = messages(filters, alone, sent[1:], r[:1], r[1:])
        alone_there = messages(filters, alone, sent[:1], r[:1], r[:1])
    np.testing.assert_allclose(both[:1], others, atol=1e-12)
    np.testing.assert_allclose(alone_there, 0, atol=1e-20)


def test_the_rules_are_used():
    """Without them every operation on features carries all 15 derivatives."""
    with double():
        x = jnp.asarray(np.random.default_rng(7).normal(size=15))
        text = str(jax.make_jaxpr(forward_laplacian(partial(heard, within=True), sparsity_threshold=0))(x))
    assert f"[15,5,5,{PAIR_FEATURES}]" not in text.replace("f64", "")
    assert "[15,5,5,4]" in text
