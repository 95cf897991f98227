"""The factor that makes the cusps between electrons exact."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.pair_features import apart

__all__ = ["electron_cusps"]


def electron_cusps(widths: Float[Array, 2], where: Float[Array, "electrons 4"], up: int) -> Float[Array, ""]:
    r""":math:`\gamma = -\sum_{i<j} c_{ij} / (\alpha_{ij} (1 + \alpha_{ij} r_{ij}))`, whose slope at
    :math:`r_{ij} = 0` is :math:`c_{ij}`: ½ for electrons of different spins, ¼ for those of the same spin.

    Parameters
    ----------
    widths
        Logarithms of α (1/bohr) of pairs of the same spin and of different spins, where the scale is 1; in the core of
        an atom :math:`\alpha_{ij}` is α over the scale of the pair.
    where
        From :func:`~bayesmol.wavefunctions.pair_features.places`.

    References
    ----------
    Kato, Commun. Pure Appl. Math. 10, 151 (1957); Pack, Byers Brown, J. Chem. Phys. 45, 556 (1966) (same spins).
    """
    i, j = np.triu_indices(len(where), 1)
    different = ((i < up) != (j < up)).astype(int)
    pairs = apart(where[i], where[j])
    distance = jnp.sqrt(jnp.sum(pairs[:, :3] ** 2, -1))
    alpha = jnp.exp(widths)[different] / pairs[:, 3]
    slope = np.where(different, 0.5, 0.25)
    return -jnp.sum(slope / (alpha * (1 + alpha * distance)))
