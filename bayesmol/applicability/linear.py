"""Scores by one quadratic form of the features: leverage, alias last-layer variance, and Mahalanobis distance."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.typing import Features

__all__ = [
    "Leverage",
    "LeverageScore",
    "Mahalanobis",
    "MahalanobisScore",
    "new_rows",
    "spreads",
    "training_rows",
]


def training_rows(features: Tensor) -> Tensor:
    """Features to fit a score to, in float64; raises :class:`ShapeError` or :class:`DataError` if they cannot be."""
    if features.ndim != 2 or features.numel() == 0:
        raise ShapeError(expected("features", "shape (rows, features), not empty", tuple(features.shape)))
    if not bool(torch.isfinite(features).all()):
        raise DataError(expected("features", "finite numbers", "NaN or infinity"))
    return features.double()


def new_rows(features: Tensor, columns: int) -> Tensor:
    """Features to score, in float64; raises :class:`ShapeError` or :class:`DataError` if they do not fit."""
    if features.ndim != 2 or features.shape[1] != columns:
        raise ShapeError(expected("features", f"shape (rows, {columns})", tuple(features.shape)))
    # Unseen, infinity would become NaN in one score, a finite number in another.
    if not bool(torch.isfinite(features).all()):
        raise DataError(expected("features", "finite numbers", "NaN or infinity", "remove or repair these rows"))
    return features.double()


def spreads(features: Features) -> Float[Tensor, " features"]:
    """Standard deviation of each feature over the rows; 1 for a constant one, which so keeps its own unit."""
    spread = features.std(0, correction=0)
    rounding = 1e-12 * features.abs().amax(0)
    return torch.where(spread > rounding, spread, 1.0)


@dataclass(frozen=True)
class Leverage:
    r"""Leverage :math:`h(x) = x^\top (X^\top X + \lambda I)^{-1} x` of a linear model with training features X.

    With the last hidden layer of a network, or its gradients, as features this is the last-layer score (LLPR): up to
    a factor the variance of the prediction that the uncertainty of the last layer's weights gives.

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
        features = training_rows(features)
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

    factor: Float[Tensor, "features features"]

    def __post_init__(self) -> None:
        if self.factor.ndim != 2 or self.factor.shape[0] != self.factor.shape[1]:
            raise ShapeError(expected("factor", "a square matrix", tuple(self.factor.shape)))

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Leverage of each row."""
        rows = new_rows(features, len(self.factor))
        return torch.linalg.solve_triangular(self.factor, rows.T, upper=False).square().sum(0).to(features.dtype)


@dataclass(frozen=True)
class Mahalanobis:
    r"""Distance from the training mean in standard deviations, with a shrunk covariance.

    .. math:: d(x) = \sqrt{(x - m)^\top \Sigma^{-1} (x - m)}, \qquad \Sigma = (1 - \delta) S + \delta\, \mu I,

    with the sample covariance S of the features, each in units of its training standard deviation, :math:`\mu` the
    mean of its diagonal, and the :math:`\delta` of least expected squared error. It needs no more rows than features.

    References
    ----------
    Ledoit, Wolf, J. Multivar. Anal. 88, 365 (2004).
    """

    def fit(self, features: Features) -> MahalanobisScore:
        """Score from training features.

        Raises
        ------
        DataError
            If a feature is not finite, or all are constant.
        """
        from sklearn.covariance import ledoit_wolf

        features = training_rows(features)
        center, scale = features.mean(0), spreads(features)
        standard = (features - center) / scale
        if bool((features == features[0]).all()):
            raise DataError(expected("features", "at least two different rows", "constant features"))
        covariance, _ = ledoit_wolf(standard.cpu().numpy(), assume_centered=True)
        factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(covariance).to(standard))
        if bool(failed):
            raise DataError(expected("features", "linearly independent features", "dependent ones", "use Leverage"))
        return MahalanobisScore(center, scale, factor)


@dataclass(frozen=True, eq=False)
class MahalanobisScore:
    """Fitted :class:`Mahalanobis`: mean, scales, and the lower Cholesky factor of the shrunk covariance."""

    center: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    factor: Float[Tensor, "features features"]

    def __post_init__(self) -> None:
        shapes, count = [tuple(part.shape) for part in vars(self).values()], len(self.center)
        if shapes != [(count,), (count,), (count, count)]:
            raise ShapeError(expected("center, scale, factor", "as many features in each", shapes))

    def __call__(self, features: Features) -> Float[Tensor, " rows"]:
        """Distance of each row, in standard deviations."""
        standard = (new_rows(features, len(self.center)) - self.center) / self.scale
        return torch.linalg.solve_triangular(self.factor, standard.T, upper=False).norm(dim=0).to(features.dtype)
