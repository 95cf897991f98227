"""Numbers with intervals, exact where there is an exact one, for rows or for groups of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.calibration.metrics import auroc
from bayesmol.calibration.ranks import ascending_order, midranks
from bayesmol.calibration.reference import resampled_counts
from bayesmol.calibration.statistics import Influenced, average, confidence_interval
from bayesmol.errors import DataError, expected
from bayesmol.posterior.interval import checked_level
from bayesmol.progress import progress

__all__ = ["Intervals", "Measure", "clopper_pearson"]

RESAMPLES = 200


@dataclass(frozen=True)
class Measure:
    """A number with the interval that holds it, and how that was made."""

    value: float
    lower: float
    upper: float
    method: str

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.lower:.3g}, {self.upper:.3g}]"


def clopper_pearson(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact interval of a probability; it holds it with at least ``confidence``, whatever it is.

    Raises
    ------
    DataError
        If there are more hits than trials, or the confidence is no probability.

    References
    ----------
    Clopper, Pearson, Biometrika 26, 404 (1934).
    """
    if not 0 <= hits <= trials:
        raise DataError(expected("hits", f"0 to {trials} (trials)", hits))
    tail = (1 - checked_level(confidence)) / 2
    lower = float(stats.beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    upper = float(stats.beta.isf(tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return lower, upper


@dataclass(frozen=True, eq=False)
class Intervals:
    """Maker of measures of one sample.

    Attributes
    ----------
    groups
        What rows depend on each other in; ``None`` if each is independent.
    confidence
        Of each interval.
    """

    groups: Int[Tensor, " rows"] | None
    confidence: float

    def owner(self, chosen: Bool[Tensor, " rows"]) -> Int[Tensor, " chosen"]:
        """Group of each chosen row, 0 to their number − 1."""
        if self.groups is None:
            return torch.arange(int(chosen.sum()), device=chosen.device)
        return self.groups[chosen].unique(return_inverse=True)[1]

    def rate(self, hits: Bool[Tensor, " rows"], chosen: Bool[Tensor, " rows"]) -> Measure:
        """Fraction of the chosen rows that are hits; Wilson's interval over groups, exact without."""
        if not bool(chosen.any()):
            return Measure(math.nan, 0.0, 1.0, "no such rows")
        if self.groups is not None:
            return self.influenced(average(hits[chosen].double(), "proportion"), chosen)
        count, trials = int((hits & chosen).sum()), int(chosen.sum())
        return Measure(count / trials, *clopper_pearson(count, trials, self.confidence), "Clopper-Pearson")

    def influenced(self, found: Influenced, chosen: Bool[Tensor, " rows"], method: str = "influence") -> Measure:
        """A statistic of the chosen rows with the interval that its influence function gives."""
        return Measure(found.value, *confidence_interval(found, self.owner(chosen), 0.0, self.confidence), method)

    def separation(self, score: Float[Tensor, " rows"], strange: Bool[Tensor, " rows"]) -> Measure:
        """Probability that a strange row scores higher than another (AUROC).

        References
        ----------
        DeLong, DeLong, Clarke-Pearson, Biometrics 44, 837 (1988).
        """
        if bool(strange.all()) or not bool(strange.any()):
            return Measure(math.nan, 0.0, 1.0, "all rows are of one kind")
        area = float(auroc(score, strange))
        exact = area in (0.0, 1.0)  # no row has an influence, and rounding should not give it one
        found = Influenced(area, lambda: (0.0 if exact else 1.0) * _placements(score, strange, area), "proportion")
        return self.influenced(found, torch.ones_like(strange), "DeLong")

    def resampled(
        self, statistics: Callable[[Int[Tensor, " drawn"]], list[float]], rows: int, *, seed: int | torch.Generator
    ) -> list[Measure]:
        """Statistics of all rows with percentiles of those of rows that are drawn again, group by group."""
        every = torch.arange(rows)
        owner = self.owner(torch.ones(rows, dtype=torch.bool)).cpu()
        counts = resampled_counts(int(owner.max()) + 1, RESAMPLES, seed=seed).long()
        values, found = statistics(every), []
        with progress("bootstrap", RESAMPLES) as advance:
            for count in counts:
                found.append(statistics(every.repeat_interleave(count[owner])))
                advance()
        tail, measures = (1 - self.confidence) / 2, []
        for value, drawn in zip(values, torch.tensor(found, dtype=torch.float64).T, strict=True):
            known = drawn[~drawn.isnan()]
            low, high = (
                known.quantile(known.new_tensor([tail, 1 - tail])).tolist() if len(known) else [-math.inf, math.inf]
            )
            measures.append(Measure(value, low, high, "bootstrap"))
        return measures


def _placements(score: Tensor, strange: Bool[Tensor, " rows"], area: float) -> Float[Tensor, " rows"]:
    """Influences on the area: the fraction of the other kind that each row beats, from its mean."""
    share = float(strange.double().mean())
    place, own = midranks(score, ascending_order(score)) * len(score), torch.empty_like(score)
    for side in (strange, ~strange):
        own[side] = midranks(score[side], ascending_order(score[side])) * int(side.sum())
    below = (place - own) / torch.where(strange, (~strange).sum(), strange.sum())
    return torch.where(strange, (below - area) / share, (1 - below - area) / (1 - share))
