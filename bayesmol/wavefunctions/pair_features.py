"""Distances of electrons as a network sees them: smooth enough to leave every cusp as it is."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

__all__ = ["BETWEEN_ELECTRONS", "NEAR_NUCLEI", "PAIR_FEATURES", "Pairs", "pair_features", "pairs"]

# Lengths in bohr. Beside the coalescence of two electrons hardly a walker is, and a short length would fit noise there:
# with ½ bohr local energies of H2 were off by 5 Ha at 0.1 bohr, and energies were refused for their tails.
NEAR_NUCLEI, BETWEEN_ELECTRONS = (0.5, 1.5, 4.0), (1.0, 2.0, 4.0)
PAIR_FEATURES = 2 * len(NEAR_NUCLEI) + 3


def pair_features(apart: Float[Array, "*pairs 3"], lengths: tuple[float, ...]) -> Float[Array, "*pairs features"]:
    r""":math:`t_b^2, t_b^3` with :math:`t_b = r / (b + r)` for three lengths b, and the vector over √(1 + r²).

    The slope of the scalars at r = 0 is zero and the spherical average of the slope of the vector too, so a factor that
    depends on them alone does not change the cusp; their third derivatives are odd in r, as those of exact
    wavefunctions are.

    Parameters
    ----------
    apart, lengths
        Vectors between two particles and b, in bohr.
    """
    square = jnp.sum(apart * apart, -1, keepdims=True)
    r = jnp.sqrt(square + 1e-24)
    t = r / (jnp.asarray(lengths) + r)
    return jnp.concatenate([t**2, t**3, apart / jnp.sqrt(1 + square)], -1)


class Pairs(NamedTuple):
    """Ordered pairs of electrons.

    Attributes
    ----------
    kinds
        First and second electrons of all pairs of equal spins, and of all others.
    order
        Row i holds the places of the pairs that begin with electron i, those of equal spins counted first.
    """

    kinds: tuple[Int[np.ndarray, "2 equal"], Int[np.ndarray, "2 different"]]
    order: Int[np.ndarray, "electrons electrons-1"]


def pairs(electrons: int, up: int) -> Pairs:
    """All ordered pairs of electrons, of which the first ``up`` have the one spin."""
    first, second = np.nonzero(~np.eye(electrons, dtype=bool))
    equal = (first < up) == (second < up)
    kinds = np.stack([first, second])[:, equal], np.stack([first, second])[:, ~equal]
    order = np.argsort(np.concatenate(kinds, 1)[0], kind="stable")
    return Pairs(kinds, order.reshape(electrons, electrons - 1))
