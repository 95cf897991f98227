"""Model densities on lattices: coupled oscillators, whose answers are exact, and a scalar field with two phases."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.density import BoltzmannDensity, Exact
from bayesmol.flows.quadrature import slope

__all__ = ["crystal_stiffness", "harmonic", "harmonic_crystal", "phi4"]

_KEPT = {2: 12, 3: 8, 4: 6}  # functions of each site by which rows of 2, 3 and 4 sites are described
_NEGLIGIBLE = 5e-4  # eigenvalue of a function that is left out, of the largest: ln Z is then right to 1e-5


def harmonic(stiffness: Float[Tensor, "dimension dimension"], *, temperature: float = 1.0) -> BoltzmannDensity:
    r"""Coupled oscillators, :math:`U = \tfrac12 x^T K x`: a Gaussian with covariance :math:`T K^{-1}`.

    .. math:: \ln Z = \tfrac{d}{2} \ln 2 \pi T - \tfrac12 \ln \det K

    The state is the sign of the first coordinate.

    Parameters
    ----------
    stiffness
        K, symmetric and positive definite.
    """
    if stiffness.ndim != 2 or stiffness.shape[0] != stiffness.shape[1] or not torch.equal(stiffness, stiffness.mT):
        raise ShapeError(expected("stiffness", "a symmetric square matrix", tuple(stiffness.shape)))
    root, failed = torch.linalg.cholesky_ex(stiffness.double())
    if bool(failed):
        raise DataError(expected("stiffness", "a positive definite matrix", "another one", "pin the crystal"))
    dimension, volume = len(stiffness), float(root.diagonal().log().sum())

    def exact(temperature: float) -> Exact:
        total = dimension / 2 * math.log(2 * math.pi * temperature) - volume
        return Exact(total, (0.5, 0.5), dimension / 2)

    return BoltzmannDensity(
        lambda x: ((x @ stiffness.to(x)) * x).sum(1) / 2,
        dimension,
        temperature,
        start=torch.zeros(1, dimension, dtype=torch.float64),
        states=lambda x: (x[:, 0] > 0).long(),
        exact=exact,
        name="harmonic",
    )


def crystal_stiffness(*, side: int, coupling: float, pinning: float) -> Float[Tensor, "dimension dimension"]:
    r"""Stiffness of a simple cubic crystal with periodic borders, atom by atom: three numbers for each site.

    .. math:: U = \tfrac{k}{2} \sum_{\langle ij \rangle} |x_i - x_j|^2 + \tfrac{p}{2} \sum_i |x_i|^2

    of the displacements x from the sites.
    """
    if side < 2 or coupling < 0 or not pinning > 0:
        raise DataError(expected("side, coupling, pinning", "≥ 2, ≥ 0, > 0", (side, coupling, pinning)))
    sites = torch.arange(side**3).reshape(side, side, side)
    matrix = pinning * torch.eye(side**3, dtype=torch.float64)
    for axis in range(3):
        first, second = sites.flatten(), sites.roll(1, axis).flatten()
        for a, b, sign in ((first, first, 1), (second, second, 1), (first, second, -1), (second, first, -1)):
            matrix.index_put_((a, b), torch.tensor(sign * coupling, dtype=torch.float64), accumulate=True)
    return torch.kron(matrix, torch.eye(3, dtype=torch.float64))


def harmonic_crystal(
    *, side: int = 2, coupling: float = 1.0, pinning: float = 0.2, temperature: float = 1.0
) -> BoltzmannDensity:
    """Displacements of the atoms of a harmonic crystal from their sites, :func:`crystal_stiffness`, as
    :func:`harmonic`."""
    return harmonic(crystal_stiffness(side=side, coupling=coupling, pinning=pinning), temperature=temperature)


def phi4(*, side: int = 8, mass: float = -1.0, coupling: float = 1.0, temperature: float = 1.0) -> BoltzmannDensity:
    r"""Scalar field on a square lattice with periodic borders, dimension :math:`L^2`.

    .. math:: U = \sum_x \Big[ \tfrac12 \sum_{\mu} (\phi_{x + \mu} - \phi_x)^2 + \tfrac{m^2}{2} \phi_x^2
        + \lambda \phi_x^4 \Big]

    over the two directions :math:`\mu`. The state is the sign of the mean field. The symmetry has :math:`2 L^2`
    elements: translations, with and without a change of sign. Lattices of sides 2 to 4 have an exact partition
    function, by transfer matrices, unless the coupling is too weak for these.

    Parameters
    ----------
    mass
        :math:`m^2`; two phases exist where it is negative enough.
    coupling
        :math:`\lambda`.
    """
    if side < 2 or not coupling > 0:
        raise DataError(expected("side, coupling", "≥ 2, > 0", (side, coupling)))

    def energy(x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        field = x.unflatten(1, (side, side))
        bonds = sum((field.roll(1, axis) - field).square() for axis in (1, 2))
        square = field.square()
        return (bonds / 2 + mass / 2 * square + coupling * square.square()).sum((1, 2))

    @cache
    def exact(temperature: float) -> Exact | None:
        values, _, _ = _site(side, mass, coupling, temperature)
        if float(values[0]) > _NEGLIGIBLE * float(values[-1]):
            return None

        def log_partition(temperature: float) -> float:
            return _field_log_partition(side, mass, coupling, temperature)

        total, mean = log_partition(temperature), slope(log_partition, temperature)
        return Exact(total, (0.5, 0.5), mean)

    symmetry, signs = _field_symmetry(side)
    bottom = math.sqrt(max(-mass, 0.0) / (4 * coupling))
    return BoltzmannDensity(
        energy,
        side**2,
        temperature,
        shape=(side, side),
        start=torch.tensor([[-bottom], [bottom]], dtype=torch.float64).repeat(1, side**2),
        states=lambda x: (x.sum(1) > 0).long(),
        symmetry=symmetry,
        signs=signs,
        exact=exact if side in _KEPT else None,
        name=f"φ⁴ {side} × {side}",
    )


def _field_symmetry(side: int) -> tuple[Tensor, Tensor]:
    """Translations of the lattice, without and with a change of sign."""
    sites = torch.arange(side**2).reshape(side, side)
    moved = torch.stack([sites.roll((a, b), (0, 1)).flatten() for a in range(side) for b in range(side)])
    signs = torch.ones(2 * side**2, side**2, dtype=torch.float64)
    signs[side**2 :] = -1
    return moved.repeat(2, 1), signs


def _site(side: int, mass: float, coupling: float, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the transfer matrix of one site, and the weights of a bond between two."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(64))
    reach = (50 * temperature / coupling + (mass / coupling) ** 2) ** 0.25 + abs(mass / coupling) ** 0.5
    x, weights = reach * nodes, reach * weights
    own = (mass / 2 * x.square() + coupling * x**4) / temperature
    half = (weights.log() - own) / 2
    bond = (-(x[:, None] - x).square() / (2 * temperature)).exp()
    values, vectors = torch.linalg.eigh((half[:, None] + half).exp() * bond)
    kept = _KEPT[side] + 1  # and the first that is left out, to judge by
    return values[-kept:].clamp_min(0), vectors[:, -kept:], bond


def _field_log_partition(side: int, mass: float, coupling: float, temperature: float) -> float:
    r"""Logarithm of the trace of the transfer matrix to the power of the side.

    The matrix between rows is :math:`C\,(B \otimes \dots \otimes B)\,C` with B of one site, which holds its own energy
    and the bond to the next row, and the diagonal C of the bonds within a row. B is described by its largest
    eigenvalues; what is left acts on their products.
    """
    values, vectors, bond = _site(side, mass, coupling, temperature)
    values, vectors = values[1:], vectors[:, 1:]
    pairs = (vectors[:, :, None] * vectors[:, None, :]).flatten(1)
    steps = pairs.T[:, :, None] * bond
    halves = [_products(steps, sites) for sites in (side // 2, side - side // 2)]
    ring = halves[0].flatten(1) @ halves[1].mT.flatten(1).T
    order = [*range(0, 2 * side, 2), *range(1, 2 * side, 2)]
    size, root, factor = _KEPT[side] ** side, values.sqrt(), torch.ones(1, dtype=torch.float64)
    kernel = ring.reshape(2 * side * (_KEPT[side],)).permute(order).reshape(size, size)
    for _ in range(side):
        factor = torch.outer(factor, root).flatten()
    matrix = factor[:, None] * kernel * factor
    left, right = (torch.linalg.matrix_power(matrix, power) for power in (side // 2, side - side // 2))
    return float((left * right.mT).sum().log())


def _products(steps: Float[Tensor, "pairs n n"], sites: int) -> Float[Tensor, "_ n n"]:
    """Products of so many steps along a row, over all choices of the pairs of functions."""
    found = steps
    for _ in range(sites - 1):
        found = (found[:, None] @ steps).flatten(0, 1)
    return found
