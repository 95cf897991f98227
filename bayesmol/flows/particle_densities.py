"""Model densities of particles: four in a plane, exactly solved, and Lennard-Jones clusters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.density import BoltzmannDensity, Exact
from bayesmol.flows.quadrature import slope, square

__all__ = ["dw4", "lennard_jones"]

_DW4_MINIMA = (
    (2.849, -0.031, -2.02, 2.009, -1.462, -3.489, 0.633, 1.511),
    (-0.266, -0.384, -1.886, -2.727, 0.057, 2.26, 2.094, 0.851),
    (-1.828, 2.185, -2.849, -0.001, 2.849, 0.001, 1.828, -2.185),
    (0.26, -2.416, 1.185, 0.128, -0.26, 2.416, -1.185, -0.128),
)
_NEAR = 0.2  # of the radius of a particle: closer than this, a power law is continued by its tangent


def dw4(*, temperature: float = 1.0) -> BoltzmannDensity:
    r"""Four like particles in a plane with two preferred distances, :math:`U = \sum_{i<j} 0.9 (d-4)^4 - 4 (d-4)^2`.

    The exact partition function is the integral over centred configurations in six orthonormal coordinates. The
    symmetry has 48 elements: permutations of the particles, with and without a reflection.

    References
    ----------
    Köhler, Klein, Noé, Equivariant flows, ICML (2020), for the system; the strength of the wells is that of the
    samplers compared by Akhound-Sadegh et al., ICML (2024).
    """

    symmetry, signs = _square_symmetry()
    start = torch.tensor(_DW4_MINIMA, dtype=torch.float64)
    return BoltzmannDensity(
        lambda x: _dw4_pair(_distances(x.unflatten(1, (4, 2)))).sum(1),
        8,
        temperature,
        shape=(4, 2),
        space=2,
        start=start,
        symmetry=symmetry,
        signs=signs,
        exact=_dw4_exact,
        name="DW4",
    )


def _dw4_pair(distance: Tensor) -> Tensor:
    away = (distance - 4).square()
    return 0.9 * away.square() - 4 * away


@cache
def _dw4_exact(temperature: float) -> Exact:
    def log_partition(temperature: float) -> float:
        reach = 4 + 1.3 * (5 + 50 * temperature) ** 0.25
        spacing = 0.15 * min(1.0, temperature**0.5)
        return square(lambda d: _dw4_pair(d) / temperature, reach, spacing)

    return Exact(log_partition(temperature), (), slope(log_partition, temperature))


def _square_symmetry() -> tuple[Tensor, Tensor]:
    """Permutations of four particles in a plane, without and with a change of sign of the second coordinate."""
    orders = torch.tensor(list(itertools.permutations(range(4))))
    places = (2 * orders[:, :, None] + torch.arange(2)).flatten(1)
    mirror = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64).repeat(1, 4)
    return places.repeat(2, 1), mirror.repeat_interleave(len(orders), 0)


def _distances(positions: Float[Tensor, "points particles space"]) -> Float[Tensor, "points pairs"]:
    """Distances of all pairs, with a gradient of zero where particles coincide."""
    squares = _squared_distances(positions)
    return torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0)


def _squared_distances(positions: Float[Tensor, "points particles space"]) -> Float[Tensor, "points pairs"]:
    first, second = torch.triu_indices(positions.shape[1], positions.shape[1], 1, device=positions.device)
    return (positions[:, first] - positions[:, second]).square().sum(2)


def lennard_jones(*, particles: int = 13, trap: float = 1.0, temperature: float = 1.0) -> BoltzmannDensity:
    r"""A Lennard-Jones cluster that a harmonic trap holds together.

    .. math:: U = \sum_{i \ne j} (r_{ij}^{-12} - 2 r_{ij}^{-6}) + \tfrac{k}{2} \sum_i |x_i - \bar x|^2

    Each pair counts twice, as in the data sets of the literature (their virial says so). Below r = 0.2 the power law
    is continued by its tangent in :math:`r^2`, where the energy is above :math:`10^8`: no density is lost, and neither
    energy nor gradient overflows.

    Parameters
    ----------
    trap
        k.

    References
    ----------
    Köhler, Klein, Noé, Equivariant flows, ICML (2020).
    """
    if particles < 2 or not trap > 0:
        raise DataError(expected("particles, trap", "at least 2, and a positive number", (particles, trap)))

    def energy(x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        positions = x.unflatten(1, (particles, 3))
        centred = positions - positions.mean(1, keepdim=True)
        square, least = _squared_distances(positions), _NEAR**2
        inverse = square.clamp_min(least).reciprocal() ** 3
        tangent = 6 * (least**-7 - least**-4) * (least - square).clamp_min(0)
        pairs = (inverse.square() - 2 * inverse + tangent).sum(1)
        return 2 * pairs + trap / 2 * centred.square().sum((1, 2))

    return BoltzmannDensity(
        energy,
        3 * particles,
        temperature,
        shape=(particles, 3),
        space=3,
        start=_scaled(energy, _shells(particles)),
        name=f"LJ{particles}",
    )


def _shells(particles: int) -> Float[Tensor, "1 dimension"]:
    """An icosahedron with its centre for 13 particles; else the sites of a close packing nearest to the origin."""
    if particles == 13:
        golden = (1 + 5**0.5) / 2
        corner = torch.tensor([[0.0, a, b * golden] for a in (-1, 1) for b in (-1, 1)], dtype=torch.float64)
        shell = torch.cat([corner, corner.roll(1, 1), corner.roll(2, 1)]) / corner[0].norm()
        return torch.cat([torch.zeros(1, 3, dtype=torch.float64), shell]).reshape(1, -1)
    reach = math.ceil(particles ** (1 / 3)) + 1
    sites = torch.cartesian_prod(*3 * (torch.arange(-reach, reach + 1),))
    sites = sites[sites.sum(1) % 2 == 0].double() / 2**0.5
    return sites[sites.norm(dim=1).argsort(stable=True)[:particles]].reshape(1, -1)


def _scaled(energy: Callable[[Tensor], Tensor], start: Float[Tensor, "1 dimension"]) -> Tensor:
    """The configuration of the size with the least energy, with its centre at zero."""
    positions = start.unflatten(1, (-1, 3))
    centred = (positions - positions.mean(1, keepdim=True)).flatten(1)
    sizes = torch.linspace(0.7, 1.3, 241, dtype=start.dtype)[:, None] * centred
    return sizes[energy(sizes).argmin()][None]
