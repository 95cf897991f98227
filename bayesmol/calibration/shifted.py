"""Order statistics of residuals that are shifted by fold: exact, without forming all sums."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["ShiftedResiduals"]


@dataclass(frozen=True, eq=False)
class ShiftedResiduals:
    r"""Absolute residuals :math:`R_i` in folds, each with a weight; finds quantiles of :math:`s_{k(i)} + R_i`.

    Memory is at most twice that of the residuals, and :math:`O(K)` a point.

    Attributes
    ----------
    residuals, folds, weights
        Of each row; the weights of a group sum to one.
    sizes
        Number of groups in each fold.
    tables
        The finite residuals, sorted by fold, folds of similar size together.
    """

    residuals: Float[Tensor, " rows"]
    folds: Int[Tensor, " rows"]
    weights: Float[Tensor, " rows"]
    sizes: Int[Tensor, " folds"]
    tables: tuple[_Table, ...]

    @classmethod
    def of(
        cls, residuals: Float[Tensor, " rows"], folds: Int[Tensor, " rows"], groups: Int[Tensor, " rows"] | None = None
    ) -> ShiftedResiduals:
        """Residuals, sorted; the sign of a residual has no effect, and each row is a group if there are none.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a residual is NaN, a fold is empty, or a group is in two folds.
        """
        for name, array in {"folds": folds, "groups": groups}.items():
            if array is not None and (array.shape != residuals.shape or not array.numel()):
                raise ShapeError(expected(name, f"one a residual, {tuple(residuals.shape)}", tuple(array.shape)))
        residuals = residuals.detach().double().abs()
        if bool(residuals.isnan().any()) or int(folds.min()) < 0 or bool((folds.bincount() == 0).any()):
            raise DataError(expected("residuals, folds", "numbers, and rows in each fold from 0 on", "NaN or a gap"))
        weights, sizes = torch.ones_like(residuals), folds.bincount()
        if groups is not None:
            _, owner, counts = groups.unique(return_inverse=True, return_counts=True)
            home = folds.new_zeros(len(counts)).index_copy_(0, owner, folds)
            if not torch.equal(home[owner], folds):
                raise DataError(expected("groups", "each in one fold", "one in several", "leave out whole groups"))
            weights, sizes = 1.0 / counts.double()[owner], home.bincount()
        return cls(residuals, folds, weights, sizes, _tables(residuals, folds, weights))

    @property
    def groups(self) -> int:
        """Number of groups."""
        return int(self.sizes.sum())

    @property
    def whole(self) -> bool:
        """Whether each row is a group."""
        return self.groups == len(self.folds)

    @property
    def direct(self) -> bool:
        """Whether folds are so small that forming all sums of a point costs less than bisection."""
        return 4 * len(self.sizes) > len(self.folds)

    @property
    def width(self) -> int:
        """Numbers that one point takes in memory."""
        return len(self.folds) if self.direct else 2 * len(self.sizes)

    def smallest(self, shifts: Float[Tensor, "folds points"], goal: float) -> Float[Tensor, " points"]:
        """Least of the sums of a point that has sums of weight ``goal`` at most as large; else infinity."""
        goal -= 1e-9 * (self.groups + 1)  # rounding of the weights, and of (n + 1) · level
        finite = float(sum(table.weights[:, -1].sum() for table in self.tables))
        if finite < goal:
            return torch.full_like(shifts[0], torch.inf)
        if self.direct:
            return self._summed(shifts, goal)
        return self._bisected(shifts, goal, goal / finite)

    def _summed(self, shifts: Tensor, goal: float) -> Tensor:
        """Of the rows sorted by residual, only those that can be on either side of the answer are summed and sorted."""
        ordered, order = self.residuals.sort()
        weight = self.weights[order].cumsum(0)
        middle = ordered[int((weight < goal).sum())]
        spread = float((shifts.amax(0) - shifts.amin(0)).amax()) * (1 + 1e-9) + 1e-12 * float(middle)
        first = int(torch.searchsorted(ordered, middle - spread))
        rows = order[first : int(torch.searchsorted(ordered, middle + spread, right=True))]
        sums = shifts[self.folds[rows]].T + self.residuals[rows]
        goal -= float(weight[first - 1]) if first else 0.0
        if self.whole:
            return sums.kthvalue(math.ceil(goal)).values
        ordered, order = sums.sort(1)
        place = (self.weights[rows][order].cumsum(1) < goal).sum(1, keepdim=True)
        return ordered.gather(1, place)[:, 0]

    def _bisected(self, shifts: Tensor, goal: float, share: float) -> Tensor:
        """Bracket by the quantiles of the folds, halve it until one sum is in it, and return that sum."""
        starts = torch.cat([shifts[table.folds] + table.quantiles(share) for table in self.tables])
        slack = 8 * torch.finfo(shifts.dtype).eps * (shifts.abs().amax(0) + starts.abs().amax(0))
        lower, upper = starts.amin(0) - slack, starts.amax(0) + slack
        before, reached = self._below(shifts, lower)[0], self._below(shifts, upper)[0]
        open_ = torch.arange(len(lower), device=lower.device)
        while True:
            many = (reached[open_] - before[open_] > 1) & (upper[open_] - lower[open_] > slack[open_])
            open_ = open_[many]
            if not len(open_):
                return self._next(shifts, lower)
            middle = (lower[open_] + upper[open_]) / 2
            count, weight = self._below(shifts[:, open_], middle)
            high = weight >= goal
            upper[open_[high]], reached[open_[high]] = middle[high], count[high]
            lower[open_[~high]], before[open_[~high]] = middle[~high], count[~high]

    def _below(self, shifts: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """How many sums of each point are at most ``value``, and their weight."""
        parts = [table.below(value - shifts[table.folds]) for table in self.tables]
        counts, weights = zip(*parts, strict=True)
        return sum(count.sum(0) for count in counts), sum(weight.sum(0) for weight in weights)

    def _next(self, shifts: Tensor, value: Tensor) -> Tensor:
        """Least sum of each point above ``value``."""
        found = []
        for table in self.tables:
            place, _ = table.below(value - shifts[table.folds])
            found.append((shifts[table.folds] + table.ordered.gather(1, place)).amin(0))
        return torch.stack(found).amin(0)


@dataclass(frozen=True, eq=False)
class _Table:
    """Residuals of some folds ascending, infinity after the last; the weight of the first j of each fold."""

    folds: Int[Tensor, " folds"]
    ordered: Float[Tensor, "folds slots"]
    weights: Float[Tensor, "folds slots"]

    def quantiles(self, share: float) -> Tensor:
        """Least residual of each fold with at least this share of its weight at or below it."""
        place = torch.searchsorted(self.weights, self.weights[:, -1:] * (share * (1 - 1e-12)))
        return self.ordered.gather(1, place.clamp_min(1) - 1)

    def below(self, distance: Float[Tensor, "folds points"]) -> tuple[Tensor, Tensor]:
        """How many residuals of each fold are at most ``distance``, and their weight."""
        place = torch.searchsorted(self.ordered, distance, right=True)
        return place, self.weights.gather(1, place)


def _tables(residuals: Tensor, folds: Tensor, weights: Tensor) -> tuple[_Table, ...]:
    """Finite residuals; folds whose sizes share the power of two in one table, so that at most half is padding."""
    order = folds.argsort(stable=True)
    order = order[residuals[order].isfinite()]
    home, residuals, weights = folds[order], residuals[order], weights[order]
    counts = torch.bincount(home, minlength=int(folds.max()) + 1)
    slot = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[home]
    bucket = counts.double().log2().floor()
    tables = []
    for size in bucket[counts > 0].unique():
        chosen = (bucket == size).nonzero()[:, 0]
        inside = bucket[home] == size
        place = torch.searchsorted(chosen, home[inside]), slot[inside]
        shape = len(chosen), int(counts[chosen].max()) + 1
        ordered, moved = residuals.new_full(shape, torch.inf).index_put_(place, residuals[inside]).sort(1)
        total = weights.new_zeros(shape).index_put_(place, weights[inside]).gather(1, moved).cumsum(1)
        tables.append(_Table(chosen, ordered, torch.nn.functional.pad(total[:, :-1], (1, 0))))
    return tuple(tables)
