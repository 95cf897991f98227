"""Scores of strangeness: functions of features that are higher the less the training features support a point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.typing import Features

__all__ = ["Leverage", "LeverageScore", "Nearest", "NearestScore", "Score", "identity"]

Score = Callable[[Tensor], Tensor]


def identity(features: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """The features themselves: for models that bring their own score, one number a row."""
    if features.ndim != 1:
        raise ShapeError(expected("features", "one score a row, shape (rows,)", tuple(features.shape)))
    return features


@dataclass(frozen=True)
class Leverage:
    r"""Leverage :math:`h(x) = x^\top (X^\top X + \lambda I)^{-1} x` of a linear model with training features X.

    Attributes
    ----------
    ridge
        :math:`\lambda` as a fraction of the mean diagonal of :math:`X^\top X`.
    """

    ridge: float = 1e-8

    def fit(self, features: Features) -> LeverageScore:
        """Score from training features.

        Raises
        ------
        DataError
            If a feature is not finite, all are zero, or the ridge is too small for a Cholesky factor.
        """
        features = _finite(features)
        gram = features.T @ features
        scale = float(gram.diagonal().mean())
        if scale == 0:
            raise DataError(expected("features", "features other than zero", "only zeros"))
        factor, failed = torch.linalg.cholesky_ex(gram + self.ridge * scale * torch.eye(len(gram)).to(gram))
        if bool(failed):
            raise DataError(expected("ridge", "a ridge that makes the features definite", self.ridge, "increase it"))
        return LeverageScore(factor)


@dataclass(frozen=True, eq=False)
class LeverageScore:
    """Fitted :class:`Leverage`: the lower Cholesky factor of the ridged Gram matrix."""

    factor: Float[Tensor, " features features"]

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Leverage of each row."""
        features = _columns(features, len(self.factor))
        return torch.linalg.solve_triangular(self.factor, features.T, upper=False).square().sum(0)


@dataclass(frozen=True)
class Nearest:
    """Mean distance to the nearest training rows, each feature in units of its training standard deviation.

    Features that are constant in training keep their own unit.

    Attributes
    ----------
    neighbours
        Number of nearest rows in the mean.
    """

    neighbours: int = 5

    def fit(self, features: Features) -> NearestScore:
        """Score from training features; raises :class:`DataError` with fewer rows than neighbours."""
        features = _finite(features)
        if not 1 <= self.neighbours <= len(features):
            raise DataError(expected("neighbours", f"1 to {len(features)} (training rows)", self.neighbours))
        spread = features.std(0, correction=0)
        scale = torch.where(spread > 0, spread, 1.0)
        return NearestScore(features / scale, scale, torch.tensor(self.neighbours))


@dataclass(frozen=True, eq=False)
class NearestScore:
    """Fitted :class:`Nearest`: the scaled training rows, the scales, and the number of neighbours."""

    reference: Features
    scale: Float[Tensor, " features"]
    neighbours: Tensor

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Mean distance of each row to its nearest training rows; memory is bounded by chunks of rows."""
        scaled = _columns(features, len(self.scale)) / self.scale
        chunk = max(1, 2**24 // len(self.reference))
        nearest = [
            torch.cdist(part, self.reference).topk(int(self.neighbours), largest=False).values.mean(1)
            for part in scaled.split(chunk)
        ]
        return torch.cat(nearest)


def _finite(features: Tensor) -> Tensor:
    if features.ndim != 2 or features.numel() == 0:
        raise ShapeError(expected("features", "shape (rows, features), not empty", tuple(features.shape)))
    if not bool(torch.isfinite(features).all()):
        raise DataError(expected("features", "finite numbers", "NaN or infinity"))
    return features.double()


def _columns(features: Tensor, count: int) -> Tensor:
    if features.ndim != 2 or features.shape[1] != count:
        raise ShapeError(expected("features", f"shape (rows, {count})", tuple(features.shape)))
    return features.double()
