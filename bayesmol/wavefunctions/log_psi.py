"""The value of a wavefunction: its sign and the logarithm of its modulus, and sums of determinants in that form."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

__all__ = ["LogPsi", "determinant_sum"]

_CLOSED = 3  # rows up to which a determinant in closed form is faster and differentiates through zero


class LogPsi(NamedTuple):
    """A real wavefunction at one configuration, :math:`\\psi = s\\,e^{\\ell}`.

    Attributes
    ----------
    sign, log
        s, which is ±1 (0 on a node), and ℓ.
    """

    sign: Float[Array, ""]
    log: Float[Array, ""]


def determinant_sum(
    up: Float[Array, "determinants up up"],
    down: Float[Array, "determinants down down"],
    coefficients: Float[Array, " determinants"],
) -> LogPsi:
    r""":math:`\sum_p c_p \det \Phi^\uparrow_p \det \Phi^\downarrow_p`, without overflow for many electrons.

    Parameters
    ----------
    up, down
        Orbital j of electron i in row i and column j; without electrons of a spin, matrices of size zero.
    """
    if up.shape[-1] <= _CLOSED and down.shape[-1] <= _CLOSED:
        total = jnp.sum(coefficients * _determinant(up) * _determinant(down))
        return LogPsi(jnp.sign(total), jnp.log(jnp.abs(total)))
    signs, logs = jnp.ones_like(coefficients), jnp.zeros_like(coefficients)
    for matrices in (up, down):
        if matrices.shape[-1]:
            sign, log = jnp.linalg.slogdet(matrices)
            signs, logs = signs * sign, logs + log
    largest = jnp.max(logs)
    total = jnp.sum(coefficients * signs * jnp.exp(logs - largest))
    return LogPsi(jnp.sign(total), jnp.log(jnp.abs(total)) + largest)


def _determinant(matrices: Float[Array, "determinants size size"]) -> Float[Array, " determinants"]:
    a = jnp.moveaxis(matrices, 0, -1)
    match len(a):
        case 0:
            return jnp.ones(matrices.shape[0])
        case 1:
            return a[0, 0]
        case 2:
            return a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]
    minors = (a[1, (i + 1) % 3] * a[2, (i + 2) % 3] - a[1, (i + 2) % 3] * a[2, (i + 1) % 3] for i in range(3))
    first, second, third = (a[0, i] * minor for i, minor in enumerate(minors))
    return first + second + third
