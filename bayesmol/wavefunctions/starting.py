"""First configurations of electrons: near the nuclei, as many as their charge, spins spread."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.wavefunctions.local_energy import System
from bayesmol.wavefunctions.precision import double

__all__ = ["start"]


def start(molecule: System, walkers: int, *, seed: int | torch.Generator) -> Float[Array, "walkers electrons 3"]:
    """Configurations in bohr, first the up then the down electrons, to be followed by a burn-in.

    Each nucleus gets electrons in proportion to its charge and each of its shells about half of either spin; where
    that is no whole number, by chance and for each walker anew, so that walkers start in all ways of sharing the
    electrons. Radii are those of Slater's screened shells. Without nuclei, normal about the origin.

    Raises
    ------
    DataError
        If ``walkers`` is not positive.

    References
    ----------
    Slater, Phys. Rev. 36, 57 (1930) (screening).
    """
    if walkers < 1:
        raise DataError(expected("walkers", "a positive number", walkers))
    source = numpy_generator(seed)
    electrons = molecule.up + molecule.down
    noise = source.standard_normal((walkers, electrons, 3))
    charges = np.asarray(molecule.charges, float)
    if len(charges):
        share = np.broadcast_to(charges * electrons / charges.sum(), (walkers, len(charges)))
        counts = _dealt(share, electrons, source)
        ups = _dealt(counts * (molecule.up / max(electrons, 1)), molecule.up, source)
        for walker in range(walkers):
            homes, order = _homes(ups[walker], counts[walker] - ups[walker])
            width = _width(charges[homes], order, counts[walker][homes])
            noise[walker] = molecule.positions[homes] + width[:, None] * noise[walker]
    with double():
        return jnp.asarray(noise)


def _dealt(shares: np.ndarray, total: int, source: np.random.Generator) -> np.ndarray:
    """Whole numbers near ``shares`` with the sum ``total`` in each row; what is left over falls by chance."""
    whole = np.floor(shares + 1e-9).astype(int)
    left = np.clip(shares - whole, 0, None)
    with np.errstate(divide="ignore"):
        order = np.argsort(-(np.log(left) + source.gumbel(size=shares.shape)), 1)
    rank = np.argsort(order, 1)
    return whole + (rank < (total - whole.sum(1))[:, None])


def _homes(ups: np.ndarray, downs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nucleus of each electron, and which one of its spin it is there."""
    nuclei = np.arange(len(ups))
    homes = np.concatenate([np.repeat(nuclei, ups), np.repeat(nuclei, downs)])
    order = np.concatenate([np.arange(count) for counts in (ups, downs) for count in counts])
    return homes, order


def _width(charge: np.ndarray, order: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Root mean square of a coordinate in a screened hydrogen-like shell, ⟨r²⟩ = n²(5n² + 1)/(2 Z²)."""
    shell = 1 + (order >= 1) + (order >= 5) + (order >= 9)
    inner = np.choose(shell - 1, [0, 2, 10, 18])
    same = np.clip(np.minimum(count - inner, np.choose(shell - 1, [2, 8, 8, 18])) - 1, 0, None)
    effective = np.maximum(charge - 0.85 * inner - 0.35 * same, 0.7)
    return np.sqrt(shell**2 * (5 * shell**2 + 1) / 6) / effective
