"""Several scores as one: the rank of the score that finds a row the strangest."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["MaxRank", "MaxRankScore"]


@dataclass(frozen=True)
class MaxRank:
    r"""Highest rank that any of several scores gives to a row, among reference rows.

    .. math:: s(x) = \max_k\, r_k\bigl(s_k(x)\bigr), \qquad
              r_k(s) = -\ln \frac{\#\{i : s_{ki} \ge s\}}{n + 1} \text{ at the scores } s = s_{ki}

    of n reference rows. Between these, r is linear; above the highest it goes on as the exponential tail through the
    highest tenth, :math:`\ln(n + 1) + (s - s_{k(n)})/\tau_k`, so that rows far outside are not all equal. It has no
    unit, so scores of different units can be combined.

    The result is a score, not a p-value: the least of several p-values is too small, and Fisher's and Stouffer's sums
    of p-values are wrong as well, since the scores of one row depend on each other. Calibrate the combination as any
    score, on rows that are neither training nor reference rows:
    ``Domain(MaxRank((a, b))).fit(reference).calibrate(calibration)``.

    Attributes
    ----------
    scores
        Fitted scores of the same features.
    """

    scores: Sequence[Callable[[Tensor], Tensor]]

    def __post_init__(self) -> None:
        if len(self.scores) < 2:
            raise DataError(expected("scores", "at least two fitted scores", len(self.scores)))
        for score in self.scores:
            if not callable(score):
                raise DataError(expected("scores", "fitted scores", type(score).__name__, "fit it to training rows"))

    def fit(self, features: Tensor) -> MaxRankScore:
        """Combination by the ranks among reference rows, on which none of the scores was fitted.

        Raises
        ------
        DataError
            If a score of a reference row is not finite, or a score is the same for all.
        """
        values = _stacked(self.scores, features).sort(1).values
        if values.shape[1] < 2 or not bool(torch.isfinite(values).all()):
            raise DataError(expected("features", "at least two reference rows with finite scores", "others"))
        if not bool((values[:, 0] < values[:, -1]).all()):
            raise DataError(expected("features", "reference rows that the scores tell apart", "constant scores"))
        return MaxRankScore(tuple(self.scores), values, _tails(values))


@dataclass(frozen=True, eq=False)
class MaxRankScore:
    """Fitted :class:`MaxRank`: the scores, those of the reference rows (ascending), and the lengths of their tails."""

    scores: tuple[Callable[[Tensor], Tensor], ...]
    reference: Float[Tensor, "scores reference"]
    tails: Float[Tensor, " scores"]

    def ranks(self, features: Tensor) -> Float[Tensor, "scores rows"]:
        r"""Rank of each row in each score, :math:`r_k`, in nats: the greatest says which score found it strange."""
        values = _stacked(self.scores, features)
        return torch.stack(
            [_rank(*parts) for parts in zip(values, self.reference.to(values), self.tails.to(values), strict=True)]
        )

    def __call__(self, features: Tensor) -> Float[Tensor, " rows"]:
        """Highest rank of each row, in nats."""
        ranks = self.ranks(features).amax(0)
        return ranks.to(features.dtype) if features.is_floating_point() else ranks


def _stacked(scores: Sequence[Callable[[Tensor], Tensor]], features: Tensor) -> Tensor:
    values = [score(features).double() for score in scores]
    for value in values:
        if tuple(value.shape) != (len(features),):
            raise ShapeError(expected("scores", f"one number a row, shape ({len(features)},)", tuple(value.shape)))
    if any(bool(value.isnan().any()) for value in values):
        raise DataError(expected("features", "rows with scores", "NaN", "look for NaN in the features"))
    return torch.stack(values)


def _tails(values: Tensor) -> Tensor:
    """Mean excess of the highest tenth over the value below it; the whole range where ties leave no excess."""
    count = values.shape[1]
    top = max(1, count // 10)
    excess = (values[:, -top:] - values[:, count - top - 1, None]).mean(1)
    return torch.where(excess > 0, excess, values[:, -1] - values[:, 0])


def _rank(values: Tensor, reference: Tensor, tail: Tensor) -> Tensor:
    count = len(reference)
    levels = math.log(count + 1) - torch.arange(count, 0, -1).to(values).log()
    within = values.clamp(reference[0], reference[-1])
    # The lower of equal reference scores counts: a tie is no evidence of strangeness.
    upper = torch.searchsorted(reference, within, right=False)
    lower = (upper - 1).clamp_min(0)
    width = reference[upper] - reference[lower]
    share = torch.where(width > 0, (within - reference[lower]) / width, 1.0)
    excess = (values - reference[-1]).clamp_min(0) / tail
    return torch.lerp(levels[lower], levels[upper], share) + excess
