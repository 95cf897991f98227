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

__all__ = ["NUMBERS", "Hop", "hop"]

NUMBERS = 11  # normal numbers for the hop of a walker
_VALENCE = 1.0  # exponent in 1/bohr of the shell that all atoms have, beside one of their charge

Propose = Callable[[Float[Array, "walkers electrons 3"], Float[Array, "walkers 11"]], "Hop"]


class Hop(NamedTuple):
    """Configurations in which one electron has another place, and the logarithm of g(old) / g(new)."""

    r: Float[Array, "walkers electrons 3"]
    log_ratio: Float[Array, " walkers"]


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
    centres = jnp.asarray(np.repeat(molecule.positions, 2, 0))
    exponents = jnp.asarray(np.stack([charges, np.full_like(charges, _VALENCE)], 1).ravel())
    chances = np.repeat(charges / (2 * charges.sum()), 2)
    steps, constants = jnp.asarray(np.cumsum(chances)), jnp.asarray(np.log(chances / math.pi)) + 3 * jnp.log(exponents)

    def log_density(place: Float[Array, "walkers 3"]) -> Float[Array, " walkers"]:
        distances = jnp.linalg.norm(place[:, None] - centres, axis=-1)
        return jax.nn.logsumexp(constants - 2 * exponents * distances, axis=1)

    def propose(r: Float[Array, "walkers electrons 3"], normals: Float[Array, "walkers 11"]) -> Hop:
        walkers, electrons = r.shape[:2]
        which, shell = jax.scipy.special.ndtr(normals[:, :2]).T
        moved = jnp.minimum((which * electrons).astype(int), electrons - 1)
        chosen = jnp.minimum(jnp.searchsorted(steps, shell), len(chances) - 1)
        # The radius has a Gamma law of shape 3, the sum of half the squares of six normal numbers.
        radius = jnp.sum(normals[:, 2:8] ** 2, 1) / (4 * exponents[chosen])
        direction = normals[:, 8:] / jnp.linalg.norm(normals[:, 8:], axis=1, keepdims=True)
        new, rows = centres[chosen] + radius[:, None] * direction, jnp.arange(walkers)
        return Hop(r.at[rows, moved].set(new), log_density(r[rows, moved]) - log_density(new))

    return propose
