"""Moves of one electron to anywhere near the nuclei: from shell to shell, and from atom to atom."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.local_energy import System

__all__ = ["NUMBERS", "Hop", "hop", "sometimes"]

NUMBERS = 12  # normal numbers for the hop of a walker: whether, which electron, which shell, radius, direction
_VALENCE = 1.0  # exponent in 1/bohr of the shell that all atoms have, beside one of their charge

Propose = Callable[[Float[Array, "walkers electrons 3"], Float[Array, "walkers 12"]], "Hop"]


class Hop(NamedTuple):
    """Configurations in which one electron has another place, and the logarithm of g(old) / g(new)."""

    r: Float[Array, "walkers electrons 3"]
    log_ratio: Float[Array, " walkers"]


def sometimes(molecule: System, share: float) -> tuple[Callable[..., tuple[Array, Array, Array]], int]:
    """Hops of a share of the walkers in place of another move.

    Returns
    -------
    Function ``(r, other, normals)`` of the configurations, those of the other move and normal numbers, with new
    configurations, who hops, and the logarithm of g(old) / g(new) of these; and how many normal numbers it needs.
    """
    away = hop(molecule) if share else None

    def proposed(r: Array, other: Array, normals: Array) -> tuple[Array, Array, Array]:
        if away is None:
            return other, jnp.zeros(len(r), bool), jnp.zeros(len(r), r.dtype)
        hopping, elsewhere = jax.scipy.special.ndtr(normals[:, 0]) < share, away(r, normals)
        return jnp.where(hopping[:, None, None], elsewhere.r, other), hopping, elsewhere.log_ratio

    return proposed, 0 if away is None else NUMBERS


def hop(molecule: System) -> Propose | None:
    r"""Proposal of a new place for one electron, drawn at random, whatever its old place was.

    .. math:: g(r) = \sum_{A,\zeta} w_A \frac{\zeta^3}{\pi} e^{-2 \zeta |r - R_A|}, \qquad \zeta \in \{Z_A, 1\},

    with weights in proportion to the charges. A walker with a hole in a shell, or with an electron too many at a far
    atom, is left by small moves only after thousands of them; such regions are rare, and their energies far off.

    Returns
    -------
    Function of the configurations and of ``NUMBERS`` normal numbers for each walker; ``None`` without nuclei.
    """
    charges = np.asarray(molecule.charges, float)
    if not len(charges):
        return None
    centres = jnp.repeat(jnp.asarray(molecule.positions), 2, 0)
    exponents = jnp.asarray(np.stack([charges, np.full_like(charges, _VALENCE)], 1).ravel())
    chances = np.repeat(charges / (2 * charges.sum()), 2)
    steps, constants = jnp.asarray(np.cumsum(chances)), jnp.asarray(np.log(chances / math.pi)) + 3 * jnp.log(exponents)

    def log_density(place: Float[Array, "walkers 3"]) -> Float[Array, " walkers"]:
        distances = jnp.linalg.norm(place[:, None] - centres, axis=-1)
        return jax.nn.logsumexp(constants - 2 * exponents * distances, axis=1)

    def propose(r: Float[Array, "walkers electrons 3"], normals: Float[Array, "walkers 12"]) -> Hop:
        walkers, electrons = r.shape[:2]
        which, shell = jax.scipy.special.ndtr(normals[:, 1:3]).T
        moved = jnp.minimum((which * electrons).astype(int), electrons - 1)
        chosen = jnp.minimum(jnp.searchsorted(steps, shell), len(chances) - 1)
        # The radius has a Gamma law of shape 3, the sum of half the squares of six normal numbers.
        radius = jnp.sum(normals[:, 3:9] ** 2, 1) / (4 * exponents[chosen])
        direction = normals[:, 9:] / jnp.linalg.norm(normals[:, 9:], axis=1, keepdims=True)
        new, rows = centres[chosen] + radius[:, None] * direction, jnp.arange(walkers)
        return Hop(r.at[rows, moved].set(new), log_density(r[rows, moved]) - log_density(new))

    return propose
