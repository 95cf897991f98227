"""How much more often a structure is met among new ones than in calibration: learned by telling the two apart."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator

__all__ = ["DensityRatio", "FittedRatio", "check_samples", "cross_fitted"]

Classifier = Literal["logistic", "quadratic", "boosting"]


@dataclass(frozen=True)
class DensityRatio:
    r"""Ratio of the density of new features to that of calibration features, by telling the two apart.

    With :math:`\hat\pi(x)` the probability that x is one of m new rows and not one of n calibration rows,

    .. math:: w(x) = \frac{n}{m} \frac{\hat\pi(x)}{1 - \hat\pi(x)}.

    Attributes
    ----------
    method
        ``"logistic"``: :math:`\ln w` linear in the features. ``"quadratic"``: with their squares and products, exact
        for normal features. ``"boosting"``: trees, whose weights are bounded: the steadiest where few calibration
        structures resemble the new ones, but beyond all of them a structure counts as no stranger than the last.
    folds
        Parts of the cross-fitting: each row gets its weight from classifiers that have not seen it.
    repeats
        Random partitions into folds whose log-odds are averaged: of one alone, a single row with too large a weight
        can decide the intervals.

    References
    ----------
    Tibshirani, Barber, Candès, Ramdas, NeurIPS 2019, arXiv:1904.06019, section 2.3.
    """

    method: Classifier = "logistic"
    folds: int = 5
    repeats: int = 5

    def fit(
        self,
        calibration: Float[Tensor, "calibration features"],
        new: Float[Tensor, "new features"],
        *,
        seed: int | torch.Generator,
    ) -> FittedRatio:
        """Weights of both samples, and a function for others; no labels are used.

        Raises
        ------
        ShapeError, DataError
            If the samples differ in their features, a feature is not finite, or one has fewer than two rows a fold.
        """
        check_samples(calibration, new, self.folds)
        if self.repeats < 1:
            raise DataError(expected("repeats", "at least 1", self.repeats))
        source, sizes = numpy_generator(seed), (len(calibration), len(new))
        classifiers: list[Any] = []
        odds = np.zeros(sum(sizes))
        for _ in range(self.repeats):
            parts = source.permutation(sizes[0]) % self.folds, source.permutation(sizes[1]) % self.folds
            log_odds, fitted = cross_fitted(self.method, calibration, new, parts)
            odds, classifiers = odds + log_odds / self.repeats, classifiers + fitted
        shift = math.log(len(calibration) / len(new))
        ratio = torch.from_numpy(np.exp(odds + shift)).to(calibration.device)

        def log_ratio(features: Tensor) -> Tensor:
            rows = features.detach().cpu().double().numpy()
            mean = np.mean([one.decision_function(rows) for one in classifiers], axis=0)
            return torch.from_numpy(mean + shift).to(features.device)

        return FittedRatio(log_ratio, ratio[: len(calibration)], ratio[len(calibration) :])


@dataclass(frozen=True, eq=False)
class FittedRatio:
    r"""Density ratio that gives weights.

    ``FittedRatio(lambda x: new.log_prob(x) - old.log_prob(x))`` is the ratio of two known densities, such as two
    flows. A constant factor has no influence on the intervals, so the densities need no normalisation: between two
    temperatures :math:`\ln w = (1/kT - 1/kT') U`.

    Attributes
    ----------
    log_ratio
        Logarithm of the ratio as a function of features.
    calibration, new
        Cross-fitted weights of the two samples that the ratio was learned from; ``None`` for known densities.
    """

    log_ratio: Callable[[Tensor], Tensor]
    calibration: Float[Tensor, " calibration"] | None = None
    new: Float[Tensor, " new"] | None = None

    def weights(self, features: Float[Tensor, " rows *features"]) -> Float[Tensor, " rows"]:
        """Weight of each row, up to one common factor.

        Raises
        ------
        DataError
            If a weight overflows or is not a number.
        """
        found = self.log_ratio(features).double().exp()
        if not bool(torch.isfinite(found).all()):
            remedy = "subtract a constant from log_ratio, such as its largest value on the calibration structures"
            raise DataError(expected("features", "finite weights", "infinity or NaN", remedy))
        return found


def cross_fitted(
    method: Classifier,
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    parts: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, list[Any]]:
    """Log-odds that each row of both samples is of the second, by a classifier that has not seen its part.

    Parameters
    ----------
    parts
        Number of the part, from 0, of each row of the first and of the second sample.

    Returns
    -------
    The log-odds of the rows of the first sample, then of the second; the classifiers, one a part.
    """
    rows = torch.cat([first, second]).detach().cpu().double().numpy()
    labels, part = np.repeat([0, 1], [len(first), len(second)]), np.concatenate(parts)
    log_odds, fitted = np.empty(len(rows)), []
    for k in range(int(part.max()) + 1):
        fitted.append(_classifier(method).fit(rows[part != k], labels[part != k]))
        log_odds[part == k] = fitted[-1].decision_function(rows[part == k])
    return log_odds, fitted


def check_samples(first: Float[Tensor, "first features"], second: Float[Tensor, "second others"], folds: int) -> None:
    """Raise unless both samples have the same finite features and enough rows for the folds."""
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        got = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ShapeError(expected("features", "two samples of shape (rows, features)", got))
    if not all(bool(torch.isfinite(sample).all()) for sample in (first, second)):
        raise DataError(expected("features", "finite numbers", "NaN or infinity", "remove these rows"))
    if folds < 2 or min(len(first), len(second)) < 2 * folds:
        got = f"{len(first)} and {len(second)} rows for {folds} folds"
        raise DataError(expected("features", "two or more folds, each with two rows of both samples", got))


def _classifier(method: Classifier) -> Any:
    """Classifier whose decision function is the logarithm of the odds."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    logistic = LogisticRegression(C=1.0, max_iter=1000)
    if method == "logistic":
        return make_pipeline(StandardScaler(), logistic)
    if method == "quadratic":
        return make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), logistic)
    if method == "boosting":
        return HistGradientBoostingClassifier(max_iter=100, max_depth=3, learning_rate=0.05, random_state=0)
    raise DataError(expected("method", "'logistic', 'quadratic' or 'boosting'", repr(method)))
