"""Functions of one electron and of pairs, with rules by which their Laplacian needs three derivatives and not all.

A forward Laplacian carries the derivatives with respect to all 3N coordinates through every operation. A function of
one point has only those of its three coordinates, up to the place where it meets something that depends on all
electrons: the local energy of water takes half the time. The rules are exact for any argument.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from folx import forward_laplacian, register_function
from folx.api import FwdJacobian, FwdLaplArray
from jaxtyping import Array, Float

from bayesmol.wavefunctions.pair_features import BETWEEN_ELECTRONS, apart, pair_features

__all__ = ["each_electron", "messages"]

_FEW = 4  # electrons up to which all derivatives are so few that the rules only take longer to compile

Point = Callable[[Float[Array, " 3"]], Float[Array, " values"]]


class _Local(NamedTuple):
    """A function of points: its values, their slopes along the point's own numbers, and their Laplacian in all."""

    values: Float[Array, "*points values"]
    slopes: Float[Array, "*points size values"]
    laplacian: Float[Array, "*points values"]


def each_electron(function: Point, r: Float[Array, "electrons 3"]) -> Float[Array, "electrons values"]:
    """A function of one point for every electron.

    Parameters
    ----------
    function
        A registered tree, whose arrays are arguments of what is compiled and do not depend on the electrons.
    """
    if len(r) <= _FEW:
        return jax.vmap(function)(r)
    arrays, tree = jax.tree.flatten(function)
    return _each(tree)(*arrays, r)


@lru_cache
def _each(tree: Any) -> Callable[..., Array]:
    def each(*arguments: Array) -> Array:
        return jax.vmap(tree.unflatten(arguments[:-1]))(arguments[-1])

    each.__name__ = f"bayesmol each electron {tree}"
    register_function(each.__name__, partial(_each_forward, tree))
    return jax.jit(each)


def _each_forward(tree: Any, arguments: tuple[Any, ...], options: Any, sparsity_threshold: int) -> FwdLaplArray:
    *arrays, r = arguments
    derivatives = r.jacobian.dense_array
    found = _local(tree.unflatten(arrays), r.x, derivatives, r.laplacian)
    return _forward(found.values, jnp.einsum("kec,ecv->kev", derivatives, found.slopes), found.laplacian)


def messages(
    filters: Float[Array, "features width"],
    alone: Float[Array, "features width"],
    sent: Float[Array, "senders width"],
    receivers: Float[Array, "receivers 4"],
    senders: Float[Array, "senders 4"],
) -> Float[Array, "receivers width"]:
    r"""What electrons hear of others, :math:`\sum_j (F_{ij} W) \odot s_j + F_{ij} V`.

    The features F vanish at distance zero, so one that is among the senders, too, hears nothing of itself.

    Parameters
    ----------
    filters, alone
        W and V.
    sent
        s, which depends on all electrons.
    receivers, senders
        From :func:`~bayesmol.wavefunctions.pair_features.places`; F depends on them.
    """
    few = len(receivers) + len(senders) <= _FEW
    return (_messages if few else _local_messages)(filters, alone, sent, receivers, senders)


def _messages(filters: Array, alone: Array, sent: Array, receivers: Array, senders: Array) -> Array:
    features = _features(_pairs(receivers, senders))
    return jnp.sum((features @ filters) * sent + features @ alone, 1)


@jax.jit
def _local_messages(filters: Array, alone: Array, sent: Array, receivers: Array, senders: Array) -> Array:
    return _messages(filters, alone, sent, receivers, senders)


def _messages_forward(arguments: tuple[Any, ...], options: Any, sparsity_threshold: int) -> FwdLaplArray:
    filters, alone, sent, receivers, senders = arguments
    pairs = forward_laplacian(_pairs, sparsity_threshold, disable_jit=True)(receivers, senders)
    derivatives = pairs.jacobian.dense_array
    features = _local(_features, pairs.x, derivatives, pairs.laplacian)
    weights = _Local(*(part @ filters for part in features))
    s, s_derivatives, s_laplacian = _parts(sent)
    slopes = weights.slopes * s[:, None] + features.slopes @ alone
    both = jnp.einsum("kijc,kjw->ijcw", derivatives, s_derivatives)
    return _forward(
        jnp.sum(weights.values * s + features.values @ alone, 1),
        jnp.einsum("ijw,kjw->kiw", weights.values, s_derivatives) + jnp.einsum("kijc,ijcw->kiw", derivatives, slopes),
        jnp.sum(weights.laplacian * s + weights.values * s_laplacian + features.laplacian @ alone, 1)
        + 2 * jnp.einsum("ijcw,ijcw->iw", weights.slopes, both),
    )


register_function("_local_messages", _messages_forward)  # folx knows compiled functions by their name


def _pairs(receivers: Array, senders: Array) -> Array:
    return apart(receivers[:, None], senders)


def _features(pairs: Array) -> Array:
    return pair_features(pairs[..., :3], BETWEEN_ELECTRONS, pairs[..., 3:])


def _local(
    function: Callable[[Array], Array],
    points: Float[Array, "*points size"],
    derivatives: Float[Array, "coordinates *points size"],
    laplacian: Float[Array, "*points size"],
) -> _Local:
    """A function of points that depend on coordinates, by the chain rule."""
    derived = jax.jacfwd(partial(_first, function), has_aux=True)
    for _ in points.shape[1:]:
        derived = jax.vmap(derived)
    curvature, (values, slopes) = derived(points)
    slopes = jnp.swapaxes(slopes, -1, -2)
    metric = jnp.einsum("k...c,k...d->...cd", derivatives, derivatives)
    curved = jnp.einsum("...vcd,...cd->...v", curvature, metric)
    return _Local(values, slopes, curved + jnp.einsum("...cv,...c->...v", slopes, laplacian))


def _first(function: Point, point: Array) -> tuple[Array, tuple[Array, Array]]:
    slopes, values = jax.jacfwd(lambda x: (function(x),) * 2, has_aux=True)(point)
    return slopes, (values, slopes)


def _parts(array: FwdLaplArray) -> tuple[Array, Array, Array]:
    return array.x, array.jacobian.dense_array, array.laplacian


def _forward(values: Array, derivatives: Array, laplacian: Array) -> FwdLaplArray:
    return FwdLaplArray(values, FwdJacobian.from_dense(derivatives), laplacian)
