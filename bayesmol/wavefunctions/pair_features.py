"""Distances of electrons as a network sees them: smooth enough to leave every cusp as it is."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = [
    "BETWEEN_ELECTRONS",
    "NEAR_NUCLEI",
    "PAIR_FEATURES",
    "WIDE",
    "apart",
    "nuclear_lengths",
    "pair_features",
    "places",
]

# Lengths in bohr. Beside the coalescence of two electrons hardly a walker is, and a short length would fit noise there:
# with ½ bohr local energies of H2 were off by 5 Ha at 0.1 bohr, and energies were refused for their tails.
NEAR_NUCLEI, BETWEEN_ELECTRONS = (0.5, 1.5, 4.0), (1.0, 2.0, 4.0)
PAIR_FEATURES = 2 * len(NEAR_NUCLEI) + 3
WIDE = 2.0  # largest charge of a nucleus whose core is as wide as a bond; in that of oxygen all is four times as small


def nuclear_lengths(charges: Sequence[float]) -> Float[np.ndarray, "nuclei 3"]:
    """Lengths in bohr at nuclei: the shortest shrinks with the core, the longest is that of a molecule."""
    return np.asarray(NEAR_NUCLEI) * _cores(charges)[:, None] ** [1, 0.5, 0]


def places(
    r: Float[Array, "electrons 3"], positions: Float[np.ndarray | Array, "nuclei 3"], charges: Sequence[float]
) -> Float[Array, "electrons 4"]:
    r"""Places of electrons, and √s, where s is the scale there: 1 far from nuclei, 2/Z at one of charge Z > 2.

    .. math:: s(r) = \prod_I \sqrt{\frac{c_I^2 + |r - R_I|^2}{1 + |r - R_I|^2}}, \quad c_I = \min(1, 2/Z_I)

    In the core of an atom all lengths of an exact wavefunction are those of helium times 2/Z. As long as ours were not,
    two thirds of the variance of the local energy of water came from walkers with an electron at the oxygen.
    """
    cores = _cores(charges)
    if not np.any(cores < 1):
        return jnp.concatenate([r, jnp.ones_like(r[:, :1])], 1)
    square = jnp.sum((r[:, None] - positions) ** 2, -1)
    root = jnp.prod(((cores**2 + square) / (1 + square)) ** 0.25, 1, keepdims=True)
    return jnp.concatenate([r, root], 1)


def apart(first: Float[Array, "*pairs 4"], second: Float[Array, "*pairs 4"]) -> Float[Array, "*pairs 4"]:
    """Vectors from the second to the first places in bohr, and the scale of the pair."""
    return jnp.concatenate([first[..., :3] - second[..., :3], first[..., 3:] * second[..., 3:]], -1)


def pair_features(
    vectors: Float[Array, "*pairs 3"],
    lengths: Sequence[float] | Float[np.ndarray, "*#pairs 3"],
    scale: Float[Array, "*pairs 1"] | float = 1.0,
) -> Float[Array, "*pairs features"]:
    r""":math:`t_b^2, t_b^3` with :math:`t_b = r / (s b + r)` for three lengths b, and the vector over √(s² + r²).

    The slope of the scalars at r = 0 is zero and the spherical average of the slope of the vector too, so a factor that
    depends on them alone does not change the cusp; their third derivatives are odd in r, as those of exact
    wavefunctions are.

    Parameters
    ----------
    vectors, lengths
        Vectors between two particles and b, in bohr.
    scale
        s.
    """
    square = jnp.sum(vectors * vectors, -1, keepdims=True)
    r = jnp.sqrt(square + 1e-24)
    t = r / (jnp.asarray(lengths) * scale + r)
    return jnp.concatenate([t**2, t**3, vectors / jnp.sqrt(scale**2 + square)], -1)


def _cores(charges: Sequence[float]) -> Float[np.ndarray, " nuclei"]:
    return np.minimum(1.0, WIDE / np.asarray(charges, float))
