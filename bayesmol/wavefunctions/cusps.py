"""The factor that makes the cusps between electrons exact."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["electron_cusps"]


def electron_cusps(widths: Float[Array, 2], r: Float[Array, "electrons 3"], up: int) -> Float[Array, ""]:
    r""":math:`\gamma = -\sum_{i<j} c_{ij} / (\alpha (1 + \alpha r_{ij}))`, whose slope at :math:`r_{ij} = 0` is
    :math:`c_{ij}`: ½ for electrons of different spins, ¼ for those of the same spin.

    Parameters
    ----------
    widths
        Logarithms of α (1/bohr) of pairs of the same spin and of different spins.

    References
    ----------
    Kato, Commun. Pure Appl. Math. 10, 151 (1957); Pack, Byers Brown, J. Chem. Phys. 45, 556 (1966) (same spins).
    """
    i, j = np.triu_indices(len(r), 1)
    different = ((i < up) != (j < up)).astype(int)
    distance = jnp.sqrt(jnp.sum((r[i] - r[j]) ** 2, -1))
    alpha = jnp.exp(widths)[different]
    slope = np.where(different, 0.5, 0.25)
    return -jnp.sum(slope / (alpha * (1 + alpha * distance)))
