"""Bases that stand for a Gaussian kernel: random waves, and the span of some frames (Nyström)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.representation.basis import checked_rows, with_constant

__all__ = ["Nystroem", "RandomFourier", "median_distance"]

RANK_CUT = 1e-12  # of the largest eigenvalue of a kernel matrix: about the rounding error of 1000 points


def _check_bandwidth(bandwidth: float | None) -> None:
    if bandwidth is not None and not bandwidth > 0:
        raise DataError(expected("bandwidth", "a positive number in the unit of the features", bandwidth))


def median_distance(x: Float[Tensor, "rows features"], *, seed: int | torch.Generator, rows: int = 1000) -> float:
    """Median distance between two frames, of at most ``rows`` of them: the usual first guess of a bandwidth.

    Raises
    ------
    DataError
        If more than half of the pairs are the same point.
    """
    chosen = torch.randperm(len(checked_rows(x)), generator=generator(seed, x.device), device=x.device)[:rows]
    middle = float(torch.pdist(x[chosen]).median()) if len(chosen) > 1 else 0.0
    if not middle > 0:
        raise DataError(expected("x", "frames that differ", "mostly equal ones", "give a bandwidth"))
    return middle


@dataclass(frozen=True)
class RandomFourier:
    r"""Constant and ``functions`` random waves :math:`\sqrt{2/D} \cos(w^\top x + b)`, which make a Gaussian kernel.

    With :math:`w \sim N(0, \sigma^{-2})` and b uniform on :math:`(0, 2\pi)`, the mean of the sum of products of the
    waves at x and y is :math:`\exp(-|x - y|^2 / 2\sigma^2)`.

    Attributes
    ----------
    bandwidth
        σ, in the unit of the features; by default the median distance between two frames.

    References
    ----------
    Rahimi, Recht, Advances in Neural Information Processing Systems 20 (2007), algorithm 1.
    """

    functions: int
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        _check_bandwidth(self.bandwidth)
        if self.functions < 1:
            raise DataError(expected("functions", "at least 1", self.functions))

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator) -> _RandomWaves:
        """Draw frequencies and phases."""
        source = generator(seed, x.device)
        width = self.bandwidth or median_distance(x, seed=source)
        numbers: dict[str, Any] = {"generator": source, "dtype": x.dtype, "device": x.device}
        frequencies = torch.randn(checked_rows(x).shape[1], self.functions, **numbers) / width
        return _RandomWaves(frequencies, 2 * math.pi * torch.rand(self.functions, **numbers))


@dataclass(frozen=True, eq=False)
class _RandomWaves:
    frequencies: Float[Tensor, "features waves"]
    phases: Float[Tensor, " waves"]
    constant: bool = True

    @property
    def functions(self) -> int:
        return len(self.phases) + 1

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows functions"]:
        waves = (checked_rows(x, len(self.frequencies)) @ self.frequencies + self.phases).cos()
        return with_constant(math.sqrt(2 / len(self.phases)) * waves)


@dataclass(frozen=True)
class Nystroem:
    r"""Constant, and the functions of a Gaussian kernel that ``points`` frames span, orthonormal in its space.

    .. math:: \varphi(x) = \Lambda^{-1/2} V^\top k(Z, x), \quad k(Z, Z) = V \Lambda V^\top, \quad
              k(x, y) = e^{-|x - y|^2 / 2\sigma^2}

    An infinite bandwidth gives what the centred kernel, times :math:`\sigma^2`, tends to: the linear kernel
    :math:`(x - \bar z)^\top (y - \bar z)`. Directions below 1e-12 of the largest eigenvalue are rounding errors and
    left out, so there may be fewer functions than points.

    Attributes
    ----------
    points
        Frames chosen at random, without repetition; all if there are fewer.
    bandwidth
        σ, in the unit of the features; by default the median distance between two frames.

    References
    ----------
    Williams, Seeger, Advances in Neural Information Processing Systems 13 (2000).
    """

    points: int
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        _check_bandwidth(self.bandwidth)
        if self.points < 1:
            raise DataError(expected("points", "at least 1", self.points))

    def fit(self, x: Float[Tensor, "rows features"], *, seed: int | torch.Generator) -> _KernelFunctions:
        """Choose the points."""
        source = generator(seed, x.device)
        width = self.bandwidth or median_distance(x, seed=source)
        chosen = torch.randperm(len(checked_rows(x)), generator=source, device=x.device)[: self.points]
        centre = x[chosen].mean(0)
        points = x[chosen] - centre
        values, vectors = torch.linalg.eigh(_kernel(points, points, width))
        kept = values > RANK_CUT * values[-1]
        return _KernelFunctions(centre, points, width, vectors[:, kept] / values[kept].sqrt())


def _kernel(x: Tensor, points: Tensor, bandwidth: float) -> Tensor:
    """Gaussian kernel, or the linear one of an infinite bandwidth."""
    if math.isinf(bandwidth):
        return x @ points.mT
    return torch.exp(torch.cdist(x, points).square() / (-2 * bandwidth**2))


@dataclass(frozen=True, eq=False)
class _KernelFunctions:
    centre: Float[Tensor, " features"]
    points: Float[Tensor, "points features"]
    bandwidth: float
    weights: Float[Tensor, "points rank"]
    constant: bool = True

    @property
    def functions(self) -> int:
        return self.weights.shape[1] + 1

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows functions"]:
        shifted = checked_rows(x, len(self.centre)) - self.centre
        return with_constant(_kernel(shifted, self.points, self.bandwidth) @ self.weights)
