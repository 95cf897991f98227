"""Conformal intervals under covariate shift: calibration structures weigh as much as new structures resemble them.

The features may be distributed otherwise than in calibration; the labels given the features may not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.observed import paired
from bayesmol.calibration.scores import Absolute, Normalised
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Interval, Posterior
from bayesmol.posterior.estimate import kish
from bayesmol.posterior.interval import checked_level

__all__ = ["WeightedConformal", "WeightedRule", "interval_of", "score_of"]

Kind = Literal["normalised", "absolute"]


@dataclass(frozen=True)
class WeightedConformal:
    r"""Split conformal intervals for new structures whose features are distributed otherwise.

    The radius is a quantile of the calibration scores where structure g has the probability
    :math:`w_g / (\sum_j w_j + w)`, shared by its entries, and the new structure's own :math:`w / (\sum_j w_j + w)`
    lies at infinity. Where that exceeds 1 − level no finite interval has the level.

    Attributes
    ----------
    score
        ``"normalised"``: error over predicted standard deviation; ``"absolute"``: the error itself.
    simultaneous
        Whether all entries of a new structure shall be covered together, or a random one of them.
    floor
        Least standard deviation, in the unit of the quantity; for normalised scores.

    References
    ----------
    Tibshirani, Barber, Candès, Ramdas, NeurIPS 2019, arXiv:1904.06019, corollary 1; Lee, Barber, Willett,
    arXiv:2306.06342, for the entries of a structure.
    """

    score: Kind = "normalised"
    simultaneous: bool = False
    floor: float = 0.0

    def fit(
        self,
        posterior: Posterior,
        truth: Tensor | Labelled,
        weights: Float[Tensor, " structures"],
        *,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> WeightedRule:
        """Rule from calibration structures, their labels and their weights.

        Parameters
        ----------
        weights
            Density ratio at each calibration structure, up to a common factor.
        groups
            Structure of each row; by default each row is one of its own (of a ``Labelled``: it knows).

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, a weight is negative, all weights are zero, or a standard
            deviation is zero without a floor.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        weights = _checked_weights(weights, observed.structures).to(posterior.mean.device)
        if not bool((weights > 0).any()):
            raise DataError(expected("weights", "a positive one", "only zeros", "no calibration structure is alike"))
        scores = score_of(self.score, self.floor).scores(posterior, observed.values).flatten()
        owner = observed.owner
        if self.simultaneous:
            scores = scores.new_zeros(len(weights)).scatter_reduce(0, owner, scores, "amax")
            owner = torch.arange(len(weights), device=scores.device)
        scores, order = scores.sort()
        shares = (weights / owner.bincount(minlength=len(weights)))[owner[order]]
        return WeightedRule(scores, shares.cumsum(0), weights, self)


@dataclass(frozen=True, eq=False)
class WeightedRule:
    """Fitted rule; each new structure brings its own weight.

    Attributes
    ----------
    scores, cumulative
        Scores of the calibration, ascending, and the weight up to each of them.
    weights
        Of the calibration structures.
    """

    scores: Float[Tensor, " scores"]
    cumulative: Float[Tensor, " scores"]
    weights: Float[Tensor, " structures"]
    specification: WeightedConformal

    @property
    def effective_sample_size(self) -> float:
        """Number of equally weighted calibration structures that these are worth, by Kish."""
        return float(kish(self.weights.log()))

    def radii(self, level: float, weights: Float[Tensor, " new"]) -> Float[Tensor, " new"]:
        """Radius of each new structure: bound of its scores; infinite where its own weight is too large."""
        checked_level(level)
        weights = _checked_weights(weights, len(weights)).to(self.scores.device)
        # The tolerance keeps a sum of equal weights from missing its own level by a rounding error.
        wanted = level * (self.cumulative[-1] + weights) * (1 - 1e-12)
        place = torch.searchsorted(self.cumulative, wanted)
        return torch.cat([self.scores, self.scores.new_tensor([math.inf])])[place]

    def interval(
        self,
        posterior: Posterior,
        level: float,
        weights: Float[Tensor, " new"],
        *,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> Interval:
        """Intervals of new structures: ``mean ± radius``, or ``mean ± radius · max(stddev, floor)``.

        Parameters
        ----------
        weights
            Density ratio at each new structure, with the same factor as in calibration.
        groups
            Position in ``weights`` of the structure of each row; by default one weight a row.
        """
        rows = torch.arange(len(posterior), device=posterior.mean.device) if groups is None else groups
        if rows.shape != posterior.shape[:1] or not 0 <= int(rows.min()) <= int(rows.max()) < len(weights):
            got = f"{len(weights)} weights for {len(posterior)} rows"
            raise ShapeError(expected("weights, groups", "a weight for the structure of each row", got))
        radii = self.radii(level, weights)
        sentence = self.guarantee(level, int(radii.isinf().sum()), len(radii))
        score = score_of(self.specification.score, self.specification.floor)
        return interval_of(score, posterior, radii[rows], level, sentence)

    def guarantee(self, level: float, infinite: int = 0, new: int = 0) -> str:
        """The sentence that holds at ``level``, for ``new`` structures of which ``infinite`` cannot be bounded."""
        subject = "a new label" if len(self.scores) == len(self.weights) else "a random entry of a new structure"
        if self.specification.simultaneous:
            subject = "all entries of a new structure together"
        text = (
            f"covers {subject} with probability ≥ {level:g} if the weights are the true density ratio of the features "
            f"and labels depend on features as in calibration (n = {len(self.weights)} structures, worth "
            f"{self.effective_sample_size:.4g} by their weights); a learned ratio makes it approximate"
        )
        if not infinite:
            return text
        return (
            f"{text}; infinite for {infinite} of {new} structures, because their own weight exceeds 1 − level of the "
            "sum with that of all calibration structures: calibrate on structures like them"
        )


def score_of(kind: Kind, floor: float) -> Absolute | Normalised:
    """The score that a specification names.

    Raises
    ------
    DataError
        If the name is unknown, or the floor is negative or not finite.
    """
    if not 0 <= floor < math.inf:
        raise DataError(expected("floor", "a finite number ≥ 0", floor))
    if kind not in ("normalised", "absolute"):
        raise DataError(expected("score", "'normalised' or 'absolute'", repr(kind)))
    return Normalised(floor) if kind == "normalised" else Absolute()


def interval_of(
    score: Absolute | Normalised, posterior: Posterior, radii: Float[Tensor, " rows"], level: float, guarantee: str
) -> Interval:
    """Interval with one radius a row; the whole line if it is infinite, the mean if it is negative."""
    shape = (-1, *[1] * (len(posterior.shape) - 1))
    radius = radii.clamp_min(0.0).reshape(shape).expand(posterior.shape).to(posterior.mean)
    return Interval(*score.ends(posterior, radius), level, posterior.unit, guarantee)


def _checked_weights(weights: Tensor, count: int) -> Tensor:
    if weights.shape != (count,):
        raise ShapeError(expected("weights", f"one for each structure, shape ({count},)", tuple(weights.shape)))
    if not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        raise DataError(expected("weights", "finite numbers ≥ 0", "others"))
    return weights.double()
