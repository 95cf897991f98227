"""Exact tests of the rate of large errors among accepted rows: binomial for independent rows, by bets for groups."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr, betaincinv
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Accepted", "Rows", "exceedance_bound", "least_rows"]

GRID = 100
# Stakes of the betting test, as fractions of the largest one that cannot go bankrupt.
STAKES = np.geomspace(0.01, 0.99, 24)


@dataclass(frozen=True, eq=False)
class Rows:
    """Calibration rows by ascending score; each group has the weight one."""

    score: np.ndarray
    exceeds: np.ndarray
    group: np.ndarray
    weight: np.ndarray
    independent: int

    @classmethod
    def of(cls, scores: Tensor, errors: Tensor, tolerance: float, groups: Tensor | None) -> Rows:
        """Rows from scores and absolute errors, (rows,), where an error above the tolerance is one too many.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, there are no rows, a score is NaN, or an error is negative.
        """
        if scores.ndim != 1 or scores.shape != errors.shape or (groups is not None and groups.shape != scores.shape):
            shapes = [tuple(part.shape) for part in (scores, errors, groups) if part is not None]
            raise ShapeError(expected("errors", "one error (and group) for each score, shape (rows,)", shapes))
        if len(scores) == 0 or bool(scores.isnan().any()) or not bool((errors >= 0).all()):
            raise DataError(expected("errors", "scores that are numbers and errors ≥ 0", "NaN, negative or none"))
        score, order = scores.double().cpu().sort(stable=True)
        group = torch.arange(len(score)) if groups is None else groups.cpu()[order].unique(return_inverse=True)[1]
        sizes = group.bincount()
        exceeds = (errors.double().cpu() > tolerance)[order]
        weight = 1.0 / sizes[group].double()
        return cls(score.numpy(), exceeds.numpy(), group.numpy(), weight.numpy(), len(sizes))

    def grid(self, first: int) -> np.ndarray:
        """Largest numbers below scores at evenly spaced ranks, from the rank ``first``."""
        if first > self.independent:
            return np.empty(0)
        wanted = np.linspace(first, self.independent, min(GRID, self.independent - first + 1))
        places = np.searchsorted(self.weight.cumsum(), wanted - 1e-9).clip(max=len(self.score) - 1)
        scores = np.unique(self.score[places])
        return np.nextafter(scores[np.isfinite(scores)], -np.inf)

    def accepted(self, threshold: float) -> Accepted:
        """Rows with scores up to the threshold."""
        end = int(np.searchsorted(self.score, threshold, side="right"))
        exceeding = int(self.exceeds[:end].sum())
        if self.independent == len(self.score):
            return Accepted(end, exceeding, float(end), None)
        every, worse = (
            np.bincount(self.group[:end], self.weight[:end] * part[:end], self.independent)
            for part in (np.ones(end), self.exceeds)
        )
        return Accepted(end, exceeding, float(self.weight[:end].sum()), (every, worse))


@dataclass(frozen=True, eq=False)
class Accepted:
    """Rows accepted at one threshold; with groups, the shares of each group that are accepted, and that exceed."""

    count: int
    exceeding: int
    weight: float
    shares: tuple[np.ndarray, np.ndarray] | None

    def p_value(self, risk: float) -> float:
        """Against the hypothesis that the rate of the accepted is above ``risk``."""
        if self.shares is None:
            return float(bdtr(self.exceeding, self.count, risk)) if self.count else 1.0
        accepted, exceed = self.shares
        gain = (risk * accepted - exceed) / (1 - risk)
        log_wealth = np.log1p(np.outer(STAKES, gain)).sum(1)
        top = log_wealth.max()
        return min(1.0, math.exp(-top) / float(np.exp(log_wealth - top).mean()))

    def bound(self, spend: float) -> float:
        """Least risk that is rejected: the upper confidence bound of the rate."""
        if self.shares is None:
            return float(exceedance_bound(self.exceeding, self.count, spend))
        lower, upper = 0.0, 1.0 - 1e-9
        for _ in range(40):  # the p-value falls with the risk
            middle = (lower + upper) / 2
            lower, upper = (lower, middle) if self.p_value(middle) <= spend else (middle, upper)
        return upper

    def needed(self, risk: float, spend: float, independent: int) -> int | None:
        """Independent rows in all for which this threshold would be certified at its observed rate."""
        rate = 0.0 if self.shares is None else float(self.shares[1].sum())
        rate = ((self.exceeding if self.shares is None else rate) + 0.5) / (self.weight + 1)
        if rate >= risk or self.weight == 0:
            return None
        size = least_rows(risk, spend)
        while bdtr(math.ceil(rate * size), size, risk) > spend:
            size = math.ceil(1.05 * size)
        return max(independent + 1, math.ceil(size * independent / self.weight))


def least_rows(risk: float, spend: float) -> int:
    r"""Least number of accepted rows, none of them exceeding, that certifies: :math:`\ln\delta / \ln(1 - r)`."""
    return math.ceil(math.log(spend) / math.log1p(-risk) - 1e-9)


def exceedance_bound(exceeding: Any, count: Any, spend: float) -> np.ndarray:
    """Clopper-Pearson upper bound of a rate at confidence 1 − ``spend``; 1 where all exceed or there are none."""
    exceeding, count = np.asarray(exceeding, dtype=float), np.asarray(count, dtype=float)
    below = exceeding < count
    bound = betaincinv(exceeding + 1, np.where(below, count - exceeding, 1.0), 1 - spend)
    return np.where(below, bound, 1.0)
