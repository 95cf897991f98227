"""Wasserstein distance of order two in several dimensions: exact of small samples, smoothed by entropy of weighted."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.calibration.divergences import TURN, shares_of_rows
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected

__all__ = ["assignment_distance", "sinkhorn_distance"]

LARGEST = 2**26  # entries of a matrix of costs


def assignment_distance(
    first: Float[Tensor, "rows features"],
    second: Float[Tensor, "rows features"],
    *,
    periodic: Bool[Tensor, " features"] | None = None,
) -> Float[Tensor, ""]:
    r"""Wasserstein distance of order two of two samples of one size, exact, by the best assignment of their rows.

    The time grows as the cube of the rows: some 2000 take seconds.

    Parameters
    ----------
    periodic
        Features that are angles in radians, with the distance along the circle.

    Raises
    ------
    ShapeError, DataError
        If the samples differ in shape, a number is not finite, or there are more than 8192 rows.
    """
    from scipy.optimize import linear_sum_assignment

    if first.shape != second.shape:
        remedy = "use sinkhorn_distance"
        raise ShapeError(expected("second", f"shape {tuple(first.shape)}", tuple(second.shape), remedy))
    costs = _costs(first, second, periodic)
    chosen = linear_sum_assignment(costs.cpu().numpy())
    return costs[tuple(torch.from_numpy(part).to(costs.device) for part in chosen)].mean().sqrt()


def sinkhorn_distance(
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    *,
    regularisation: float,
    weights: Float[Tensor, " first"] | None = None,
    second_weights: Float[Tensor, " second"] | None = None,
    periodic: Bool[Tensor, " features"] | None = None,
    iterations: int = 5000,
    tolerance: float = 1e-6,
) -> Float[Tensor, ""]:
    r"""Root of the debiased entropic cost of transport :math:`S_\varepsilon`; that of a shift is the shift, exactly.

    .. math:: S_\varepsilon(p, q) = \mathrm{OT}_\varepsilon(p, q)
       - \tfrac12 \mathrm{OT}_\varepsilon(p, p) - \tfrac12 \mathrm{OT}_\varepsilon(q, q)

    with squared distances as cost; the square of the Wasserstein distance of order two as :math:`\varepsilon \to 0`.

    Parameters
    ----------
    regularisation
        :math:`\varepsilon`, in squared units of the features; the time grows as 1/ε. One hundredth of the mean
        squared distance is a usual choice.
    tolerance
        Largest error of a probability of the marginal distributions, summed over its rows.

    Raises
    ------
    ConvergenceError
        If the iterations do not reach the tolerance.
    ShapeError, DataError
        If the features differ, a number is not finite, there are too many rows, or ε is not positive.

    References
    ----------
    Feydy, Séjourné, Vialard, Amari, Trouvé, Peyré, AISTATS 2019, arXiv:1810.08278, equation 3.
    """
    if first.shape[1] != second.shape[1]:
        raise ShapeError(expected("second", f"{first.shape[1]} features", second.shape[1]))
    if not regularisation > 0:
        raise DataError(expected("regularisation", "a positive number", regularisation))
    own = shares_of_rows(len(first), weights, first.device)
    other = shares_of_rows(len(second), second_weights, first.device)
    limits = regularisation, iterations, tolerance
    found = _entropic(_costs(first, second, periodic), own, other, *limits)
    for rows, part in ((first, own), (second, other)):
        found = found - _entropic_of_itself(_costs(rows, rows, periodic), part, *limits) / 2
    return found.clamp_min(0.0).sqrt()


def _entropic(cost: Tensor, p: Tensor, q: Tensor, scale: float, iterations: int, tolerance: float) -> Tensor:
    """Optimum of the dual problem, by updates of both potentials in turn, in logarithms."""
    log_p, log_q = p.log(), q.log()
    width = max(scale, float(cost.max()))  # from wide to narrow, which saves most of the steps
    f, g = torch.zeros_like(p), torch.zeros_like(q)
    for _ in range(iterations):
        before, f = f, -width * torch.logsumexp((g - cost) / width + log_q, 1)
        # The update changes f by as much as the logarithm of its marginal was wrong.
        if width == scale and _missed(before - f, p, scale) < tolerance:
            return (p * f).sum() + (q * g).sum()
        width = max(scale, width / 2)
        g = -width * torch.logsumexp((f[:, None] - cost) / width + log_p[:, None], 0)
    raise ConvergenceError(_unfinished(iterations, tolerance))


def _entropic_of_itself(cost: Tensor, p: Tensor, scale: float, iterations: int, tolerance: float) -> Tensor:
    """The same between a sample and itself: one potential, whose averaged update halves the error each time."""
    log_p, width, f = p.log(), max(scale, float(cost.max())), torch.zeros_like(p)
    for _ in range(iterations):
        updated = -width * torch.logsumexp((f - cost) / width + log_p, 1)
        missed, f = _missed(f - updated, p, scale), (f + updated) / 2
        if width == scale and missed < tolerance:
            return 2 * (p * f).sum()
        width = max(scale, width / 2)
    raise ConvergenceError(_unfinished(iterations, tolerance))


def _missed(change: Tensor, p: Tensor, scale: float) -> float:
    return float((torch.expm1((change / scale).clamp(max=50.0)).abs() * p).sum())


def _unfinished(iterations: int, tolerance: float) -> str:
    remedy = "raise regularisation or iterations"
    return expected("regularisation", f"marginals within {tolerance:g}", f"not in {iterations} steps", remedy)


def _costs(first: Tensor, second: Tensor, periodic: Tensor | None) -> Float[Tensor, "first second"]:
    """Squared distances, angles along the circle."""
    if len(first) * len(second) > LARGEST:
        aim, got = f"at most {LARGEST} pairs of rows", len(first) * len(second)
        raise DataError(expected("first, second", aim, got, "use fewer rows, or sliced_wasserstein"))
    if not all(bool(torch.isfinite(sample).all()) for sample in (first, second)):
        raise DataError(expected("first, second", "finite numbers", "NaN or infinity"))
    rows, columns = first.double(), second.double()
    costs = rows.new_zeros(len(rows), len(columns))
    for axis in range(rows.shape[1]):  # one axis at a time: the memory of one matrix
        gap = rows[:, axis, None] - columns[:, axis]
        if periodic is not None and bool(periodic[axis]):
            gap = (gap + math.pi).remainder(TURN) - math.pi
        costs += gap.square()
    return costs
