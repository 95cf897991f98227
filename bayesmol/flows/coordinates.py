"""Coordinate systems of configurations, as transforms with their exact volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float
from nflows.transforms.base import CompositeTransform, Transform
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.representation.internal import wrapped

__all__ = ["Cartesian", "Composed", "Coordinates", "MeanFree", "Planar"]

Rows = Float[Tensor, "points _"]
Volume = Float[Tensor, " points"]


class Coordinates(Transform):
    r"""A map from configurations x to rows y of independent numbers and angles.

    ``forward(x)`` gives y and :math:`\log |\partial y / \partial x|`, ``inverse(y)`` gives x and
    :math:`\log |\partial x / \partial y|`. The volume of x is that of orthonormal coordinates of the configurations
    with their centre at zero; a system that drops the orientation has integrated it out. So
    :math:`\int e^{-u(x(y))} |\partial x / \partial y|\, dy` is the same in each of them. Outside of the domain, of
    either map, the logarithm is :math:`-\infty`: there is no density.

    Attributes
    ----------
    dimension
        Numbers of a configuration x.
    circular
        Which columns of y are angles in :math:`[-\pi, \pi)`.
    """

    circular: Bool[Tensor, " columns"]

    def __init__(self, dimension: int, circular: Bool[Tensor, " columns"]) -> None:
        super().__init__()
        self.dimension = dimension
        self.register_buffer("circular", circular)

    def _checked(self, rows: Tensor, columns: int, name: str) -> Tensor:
        """Rows in double precision.

        Raises
        ------
        ShapeError, DataError
            If rows have another length or hold NaN.
        """
        if rows.ndim != 2 or rows.shape[1] != columns:
            raise ShapeError(expected(name, f"(points, {columns})", tuple(rows.shape)))
        if bool(torch.isnan(rows).any()):
            raise DataError(expected(name, "numbers", "NaN"))
        return rows.double()


class Cartesian(Coordinates):
    """The configurations themselves."""

    def __init__(self, dimension: int) -> None:
        super().__init__(dimension, torch.zeros(dimension, dtype=torch.bool))

    def forward(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        return inputs, inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        return inputs, inputs.new_zeros(len(inputs))


class MeanFree(Coordinates):
    r"""Orthonormal coordinates of the configurations of particles with their centre at zero.

    .. math:: v_k = \frac{k\,x_{k+1} - \sum_{i \le k} x_i}{\sqrt{k (k + 1)}}, \qquad k = 1 \ldots N - 1

    (Helmert's matrix); the volume is conserved, and a rotation of x is the same rotation of each v.
    """

    basis: Tensor

    def __init__(self, particles: int, space: int) -> None:
        if particles < 2 or space < 1:
            raise DataError(expected("particles, space", "two or more, in one dimension or more", (particles, space)))
        super().__init__(particles * space, torch.zeros((particles - 1) * space, dtype=torch.bool))
        self.space = space
        self.register_buffer("basis", _helmert(particles))

    def forward(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        x = self._checked(inputs, self.dimension, "x").unflatten(1, (-1, self.space))
        y = (self.basis @ x).flatten(1)
        return y.to(inputs.dtype), inputs.new_zeros(len(inputs))

    def inverse(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        y = self._checked(inputs, len(self.circular), "y").unflatten(1, (-1, self.space))
        x = (self.basis.T @ y).flatten(1)
        return x.to(inputs.dtype), inputs.new_zeros(len(inputs))


class Planar(Coordinates):
    r"""Particles in the plane, without their translations and rotations: 2N − 3 numbers.

    The mean-free vectors :math:`v_k` in polar form, first all radii, then the angles to :math:`v_1`. A radius r is
    given as

    .. math:: y = \Phi^{-1}\bigl(1 - e^{-r^2 / 2 s^2}\bigr),

    so that standard normal y and uniform angles are exactly normal vectors of the deviation s: unlike log r, nothing
    is singular where a vector vanishes. The inverse places :math:`v_1` along x.

    Parameters
    ----------
    scale
        s, a typical length of the vectors in each direction.
    """

    def __init__(self, particles: int, scale: float = 1.0) -> None:
        if not 0 < scale < math.inf:
            raise DataError(expected("scale", "a positive length", scale))
        vectors = MeanFree(particles, 2)
        super().__init__(2 * particles, torch.arange(2 * particles - 3) >= particles - 1)
        self.vectors, self.scale = vectors, scale

    def forward(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        v = self.vectors(self._checked(inputs, self.dimension, "x"))[0].unflatten(1, (-1, 2))
        half = v.square().sum(2) / (2 * self.scale**2)
        radii = _normal_of_exponential(half)
        angles = torch.atan2(v[..., 1], v[..., 0])
        y = torch.cat([radii, wrapped(angles[:, 1:] - angles[:, :1])], 1)
        return y.to(inputs.dtype), -self._volume(radii, half).to(inputs.dtype)

    def inverse(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        y = self._checked(inputs, len(self.circular), "y")
        radii, angles = y.split([self.vectors.basis.shape[0], self.vectors.basis.shape[0] - 1], 1)
        half = -torch.special.log_ndtr(-radii)
        length = self.scale * (2 * half).sqrt()
        angles = torch.cat([torch.zeros_like(angles[:, :1]), angles], 1) if angles.shape[1] else radii * 0
        v = torch.stack([length * angles.cos(), length * angles.sin()], 2).flatten(1)
        return self.vectors.inverse(v)[0].to(inputs.dtype), self._volume(radii, half).to(inputs.dtype)

    def _volume(self, radii: Tensor, half: Tensor) -> Volume:
        """Of :math:`d^2v = r\\,dr\\,d\\phi`, whose factor r cancels against that of the radius."""
        each = half - radii.square() / 2 - math.log(2 * math.pi) / 2 + 2 * math.log(self.scale)
        return each.sum(1) + math.log(2 * math.pi)


class Composed(CompositeTransform):
    """Coordinates of coordinates, the first acts on configurations.

    Attributes
    ----------
    dimension
        Of the first.
    circular
        Of the last.
    """

    def __init__(self, parts: Sequence[Coordinates]) -> None:
        if any(len(a.circular) != b.dimension for a, b in pairwise(parts)):
            raise ShapeError(expected("parts", "each to take what the one before gives", [p.dimension for p in parts]))
        super().__init__(parts)
        self.parts = tuple(parts)
        self.dimension = parts[0].dimension

    @property
    def circular(self) -> Bool[Tensor, " columns"]:
        return self.parts[-1].circular


def _helmert(particles: int) -> Float[Tensor, "vectors particles"]:
    k = torch.arange(1, particles, dtype=torch.float64)[:, None]
    column = torch.arange(particles, dtype=torch.float64)
    weights = torch.where(column < k, -1.0, torch.where(column == k, k, 0.0))
    return weights / (k * (k + 1)).sqrt()


def _normal_of_exponential(h: Tensor) -> Tensor:
    r"""The y with :math:`\log(1 - \Phi(y)) = -h`, exact in both tails."""
    small = h < math.log(2)
    lower = torch.special.ndtri(-torch.expm1(-torch.where(small, h, 0.5)))
    upper = -torch.special.ndtri(torch.exp(-torch.where(small, 1.0, h)))
    return torch.where(small, lower, upper)
