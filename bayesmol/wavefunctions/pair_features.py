"""Distances of electrons as a network sees them: smooth enough to leave every cusp as it is."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["PAIR_FEATURES", "others", "pair_features"]

_SCALES = (0.5, 1.5, 4.0)  # bohr
PAIR_FEATURES = 2 * len(_SCALES) + 3


def pair_features(apart: Float[Array, "*pairs 3"]) -> Float[Array, "*pairs features"]:
    r""":math:`t_b^2, t_b^3` with :math:`t_b = r / (b + r)` for three lengths b, and the vector over :math:`1 + r`.

    The slope of the scalars at r = 0 is zero and the spherical average of the slope of the vector too, so a factor that
    depends on them alone does not change the cusp; their third derivatives are odd in r, as those of exact
    wavefunctions are.
    """
    square = jnp.sum(apart * apart, -1, keepdims=True)
    r = jnp.sqrt(square + 1e-24)
    t = r / (jnp.asarray(_SCALES) + r)
    return jnp.concatenate([t**2, t**3, apart / jnp.sqrt(1 + square)], -1)


def others(electrons: int, up: int) -> tuple[np.ndarray, np.ndarray]:
    """For each electron the indices of all others, and whether their spin is another (1) or the same (0)."""
    index = np.array([[j for j in range(electrons) if j != i] for i in range(electrons)], dtype=int)
    index = index.reshape(electrons, max(electrons - 1, 0))
    return index, ((np.arange(electrons)[:, None] < up) != (index < up)).astype(int)
