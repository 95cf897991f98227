"""Conformal p-values under covariate shift: calibration rows count as much as new rows resemble them."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.applicability.tolerance import checked_probability
from bayesmol.errors import ApplicabilityError, DataError, ShapeError, expected
from bayesmol.posterior.estimate import kish

__all__ = ["checked_weights", "effective_rows", "weighted_p_values"]


def weighted_p_values(
    calibration: Float[Tensor, " calibration"],
    calibration_weights: Float[Tensor, " calibration"],
    scores: Float[Tensor, " rows"],
    weights: Float[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    r"""Weighted conformal p-value of each row,

    .. math:: p = \frac{\sum_i w_i\,[s_i \ge s] + w}{\sum_i w_i + w}.

    If the weights are the density ratio of new to calibration features, :math:`P(p \le a) \le a` for a new row of the
    shifted distribution. Equal weights give the plain p-value; a row of infinite weight gets :math:`p = 1`: no
    calibration row says anything about it.

    Parameters
    ----------
    calibration, calibration_weights
        Scores of the calibration rows in any order, and their weights, up to one factor.
    scores, weights
        Of the new rows, the weights with the same factor.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a score is NaN, a weight is negative or NaN, or those of the calibration are infinite or all
        zero.

    References
    ----------
    Tibshirani, Barber, Candès, Ramdas, NeurIPS 2019, arXiv:1904.06019, lemma 3.
    """
    own = checked_weights(weights, len(scores), finite=False).to(scores.device)
    known = checked_weights(calibration_weights, len(calibration)).to(scores.device)
    if bool(calibration.isnan().any()) or bool(scores.isnan().any()):
        raise DataError(expected("scores", "numbers", "NaN"))
    ordered, order = calibration.double().to(scores.device).sort()
    above = torch.cat([known[order].flip(0).cumsum(0).flip(0), known.new_zeros(1)])
    tail = above[torch.searchsorted(ordered, scores.double())]
    share = (tail + own) / (above[0] + own)
    return torch.where(own.isinf(), 1.0, share)


def effective_rows(weights: Float[Tensor, " calibration"], level: float | None = None) -> float:
    """Number of equal rows that weighted ones are worth, by Kish.

    Parameters
    ----------
    level
        Level that p-values shall reach; ``None``: any.

    Raises
    ------
    ApplicabilityError
        If they are worth fewer than 1/level − 1: so few equal rows can flag nothing at the level.
    """
    worth = float(kish(checked_weights(weights, len(weights)).log()))
    if level is not None:
        checked_probability(level=level)
        if worth < (needed := 1 / level - 1) - 1e-6:
            aim = f"calibration rows worth at least {math.ceil(needed - 1e-6)} by their weights for level {level:g}"
            remedy = "the new rows resemble too few of them: calibrate on rows like the new ones, or raise the level"
            raise ApplicabilityError(expected("weights", aim, f"{len(weights)} rows worth {worth:.3g}", remedy))
    return worth


def checked_weights(weights: Float[Tensor, " rows"], count: int, *, finite: bool = True) -> Float[Tensor, " rows"]:
    """Weights of ``count`` rows as float64, or the error that says what is wrong with them."""
    weights = weights.detach().double()
    if weights.shape != (count,):
        raise ShapeError(expected("weights", f"one a row, shape ({count},)", tuple(weights.shape)))
    if not bool((weights >= 0).all()) or (finite and not bool(weights.isfinite().all())):
        raise DataError(expected("weights", "finite numbers ≥ 0", "negative, infinite or NaN"))
    if finite and count and not bool((weights > 0).any()):
        raise DataError(expected("weights", "a positive one", "only zeros", "no calibration row is like the new ones"))
    return weights
