r"""Full conformal prediction sets of ridge regression and Gaussian processes: exact, no label is set aside.

For each candidate label y of a new point the model is fitted to all rows and (x, y); y belongs to the set if its own
absolute residual is among the :math:`\lceil (n+1)\,\mathrm{level} \rceil` smallest. With a linear smoother a residual
is linear in y, so the set is known from where the lines cross, without any further fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.calibration.reference import conformal_rank
from bayesmol.calibration.regressors import GaussianProcess, Ridge, checked_rows, cholesky
from bayesmol.calibration.rules import needed
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Interval

__all__ = ["FullConformal", "FullRule"]

ENTRIES = 2**20  # crossings in memory at a time


@dataclass(frozen=True)
class FullConformal:
    """Full conformal prediction: as sharp as a fit to all rows allows, with the exact guarantee of split conformal.

    References
    ----------
    Nouretdinov, Melluish, Vovk, ICML 2001, pages 385-392 (ridge regression confidence machine);
    Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005), section 2.3.
    """

    def fit(
        self,
        regressor: Ridge | GaussianProcess,
        inputs: Float[Tensor, "rows features"],
        truth: Float[Tensor, " rows"],
        *,
        unit: str = "",
    ) -> FullRule:
        """One factorisation; its hyper-parameters must be chosen without these labels, or symmetrically in all of them.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, or a number is not finite.
        ConvergenceError
            If the Gram matrix is singular to working precision.
        """
        inputs, truth = checked_rows(inputs, truth)
        if isinstance(regressor, GaussianProcess):
            return FullRule(_process(regressor, inputs, truth), len(truth), unit)
        if isinstance(regressor, Ridge):
            return FullRule(_linear(regressor, inputs, truth), len(truth), unit)
        raise DataError(expected("regressor", "a Ridge or a GaussianProcess", type(regressor).__name__))


@dataclass(frozen=True, eq=False)
class FullRule:
    r"""Fitted smoother: makes the prediction set of any new point, in :math:`O(n \log n)` each.

    Attributes
    ----------
    lines
        Function from inputs to residuals e ``(rows)``, slopes h ``(points, rows)``, predictions and stiffnesses c
        ``(points)``: with the new label :math:`y = \mu + c z` its own residual is z, and that of row i
        :math:`e_i - h_i z`.
    count
        Number of rows.
    """

    lines: Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]
    count: int
    unit: str = ""

    def predict(self, inputs: Float[Tensor, "points features"]) -> Float[Tensor, " points"]:
        """Prediction from all rows, which is always in the set."""
        return self.lines(inputs.double())[2].to(inputs.dtype)

    def interval(self, inputs: Float[Tensor, "points features"], level: float) -> Interval:
        """Least interval that contains the prediction set of each point; infinite where the set has no end."""
        rank = conformal_rank(self.count, level)
        lower, upper = [], []
        for part in inputs.double().split(max(1, min(512, ENTRIES // self.count))):
            residual, slope, centre, stiffness = self.lines(part)
            residual, slope, place = _near(residual, slope, rank)
            upper.append(centre + stiffness * _reach(*_crossings(residual, slope), place))
            lower.append(centre - stiffness * _reach(*_crossings(-residual, slope), place))
        ends = torch.cat(lower).to(inputs.dtype), torch.cat(upper).to(inputs.dtype)
        return Interval(*ends, level, self.unit, self.guarantee(level))

    def pieces(self, inputs: Float[Tensor, "points features"], level: float) -> list[Float[Tensor, "pieces 2"]]:
        """The prediction set of each point as closed intervals, ascending; mostly one."""
        rank = conformal_rank(self.count, level)
        found = []
        for point in inputs.double().split(1):
            residual, slope, centre, stiffness = self.lines(point)
            ahead = _connected(*_crossings(residual, slope), rank)
            behind = -_connected(*_crossings(-residual, slope), rank).flip(0, 1)
            # both halves contain zero, so they meet there
            whole = torch.cat([behind[:-1], torch.stack([behind[-1:, 0], ahead[:1, 1]], 1), ahead[1:]])
            found.append((centre + stiffness * whole).to(inputs.dtype))
        return found

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        least = needed(level)
        if self.count < least:
            return f"infinite: level {level:g} needs n ≥ {least} rows, got {self.count}"
        sample = f"full conformal, n = {self.count} rows, needs n ≥ {least}"
        return (
            f"covers a new label with probability ≥ {level:g} if old and new rows are exchangeable and the "
            f"hyper-parameters were not chosen by these labels ({sample})"
        )


def _near(residual: Tensor, slope: Tensor, rank: int) -> tuple[Tensor, Tensor, int]:
    """Rows that can be at the end of the set, and the rank among them; all rows if one slope is not below one."""
    steepest = float(slope.abs().max())
    if rank > len(residual) or steepest >= 1:
        return residual, slope, rank
    size, order = residual.abs().sort()
    # all crossings of a row are between |e| / (1 + steepest) and |e| / (1 − steepest)
    ratio = (1 + steepest) / (1 - steepest) * (1 + 1e-12)
    first = int(torch.searchsorted(size, size[rank - 1] / ratio))
    last = int(torch.searchsorted(size, size[rank - 1] * ratio, right=True))
    rows = order[first:last]
    return residual[rows], slope[:, rows], rank - first


def _crossings(residual: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Where |e − h z| < z starts and stops on z > 0, for each point and row; infinity for nowhere."""
    flip, size = torch.where(residual < 0, -slope, slope), residual.abs().expand(slope.shape)
    # |e| = z (1 + h) and |e| = z (h − 1), h with the sign of e; a row without residual is smaller if |h| < 1
    some = (size > 0) | (flip.abs() < 1)
    start = torch.where(some & (flip > -1), size / (1 + flip), torch.inf)
    stop = torch.where(some & (flip > 1), size / (flip - 1), torch.inf)
    return start, stop


def _reach(start: Tensor, stop: Tensor, rank: int) -> Float[Tensor, " points"]:
    """Largest z at which fewer than ``rank`` rows have a smaller residual."""
    if rank > start.shape[1]:
        return torch.full_like(start[:, 0], torch.inf)
    if not bool(stop.isfinite().any()):
        return start.kthvalue(rank, dim=1).values
    always = start.isfinite().sum(1) - stop.isfinite().sum(1)
    start, stop = start.sort(1).values, stop.sort(1).values
    smaller = torch.searchsorted(start, start) - torch.searchsorted(stop, start, right=True)
    last = torch.where((smaller < rank) & start.isfinite(), start, 0.0).amax(1)
    return torch.where(always < rank, torch.inf, last)


def _connected(start: Tensor, stop: Tensor, rank: int) -> Float[Tensor, "pieces 2"]:
    """The closed intervals of z ≥ 0 at which fewer than ``rank`` rows have a smaller residual, for one point."""
    start, stop = start.flatten().sort().values, stop.flatten().sort().values
    edges = torch.cat([start.new_zeros(1), start, stop]).unique()
    edges = edges[edges.isfinite()]
    stopped = torch.searchsorted(stop, edges, right=True)
    at, after = (torch.searchsorted(start, edges, right=right) - stopped for right in (False, True))
    inside = torch.stack([at, after], 1).flatten() < rank
    outside = ~torch.nn.functional.pad(inside, (1, 1))
    next_ = torch.cat([edges[1:], edges.new_tensor([torch.inf])])
    first, last = edges.repeat_interleave(2), torch.stack([edges, next_], 1).flatten()
    return torch.stack([first[inside & outside[:-2]], last[inside & outside[2:]]], 1)


def _linear(ridge: Ridge, inputs: Tensor, truth: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    centre, level = ridge.centre(inputs, truth)
    rows, mean = inputs - centre, 1 / len(truth) if ridge.intercept else 0.0
    root = cholesky(rows.T @ rows + ridge.penalty * torch.eye(rows.shape[1]).to(rows), "inputs")
    weights = torch.cholesky_solve(rows.T @ (truth - level)[:, None], root)[:, 0]
    residual = truth - level - rows @ weights

    def lines(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        points = points.to(rows) - centre
        solved = torch.cholesky_solve(points.T, root)
        own = mean + (points.T * solved).sum(0)
        return residual, (rows @ solved).T + mean, level + points @ weights, 1 + own

    return lines


def _process(
    process: GaussianProcess, inputs: Tensor, truth: Tensor
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]:
    root = process.root(inputs)
    weights = torch.cholesky_solve(truth[:, None], root)[:, 0]

    def lines(points: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        points = points.to(inputs)
        cross = process.matrix(inputs, points)
        solved = torch.cholesky_solve(cross, root)
        variance = process.matrix(points, points).diagonal() - (cross * solved).sum(0)
        return process.noise * weights, solved.T, cross.T @ weights, 1 + variance / process.noise

    return lines
