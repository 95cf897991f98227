"""Transition matrices of maximum likelihood: free, reversible, and reversible with known populations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.connected_counts import (
    check_connected,
    checked_counts,
    checked_populations,
    largest_connected_set,
)
from bayesmol.dynamics.elimination import stationary_distribution
from bayesmol.errors import ConvergenceError, DataError, expected

__all__ = [
    "TransitionEstimate",
    "fixed_stationary_estimate",
    "largest_connected_set",
    "nonreversible_estimate",
    "reversible_estimate",
]

_ITERATIONS = 500
_BLOCK = 2**18  # entries of the count matrices that are worked on at once: they stay in the cache of a core


@dataclass(frozen=True, eq=False)
class TransitionEstimate:
    r"""A transition matrix of maximum likelihood.

    Attributes
    ----------
    transition, stationary
        Row-stochastic matrix and its stationary distribution.
    potentials
        Logarithms of the multipliers :math:`u_i` of the rows, up to a constant if the populations are free; a warm
        start for similar counts. ``None`` without detailed balance.
    """

    transition: Float[Tensor, "*draws states states"]
    stationary: Float[Tensor, "*draws states"]
    potentials: Float[Tensor, "*draws states"] | None = None


def nonreversible_estimate(counts: Float[Tensor, "*draws states states"]) -> TransitionEstimate:
    r"""Transition matrix :math:`\hat p_{ij} = c_{ij} / c_i` without any constraint.

    Raises
    ------
    ShapeError, DataError
        If the counts cannot be used or the states are not strongly connected.
    """
    counts = checked_counts(counts)
    check_connected(counts.reshape(-1, *counts.shape[-2:]))
    transition = counts / counts.sum(-1, keepdim=True)
    return TransitionEstimate(transition, stationary_distribution(transition))


def reversible_estimate(
    counts: Float[Tensor, "*draws states states"], *, start: Float[Tensor, " states"] | None = None
) -> TransitionEstimate:
    r"""Transition matrix of maximum likelihood among those with detailed balance.

    With :math:`x_{ij} = \pi_i p_{ij} = x_{ji}` the maximum is :math:`x_{ij} = (c_{ij} + c_{ji}) / (u_i + u_j)` and
    :math:`x_{ii} = c_{ii} / u_i`, where :math:`\theta = \ln u` maximises the concave function

    .. math:: \sum_i (c_i - c_{ii})\,\theta_i - \sum_{i<j} (c_{ij} + c_{ji}) \ln(e^{\theta_i} + e^{\theta_j}),

    the likelihood of paired comparisons. Newton steps :math:`t\,d` with :math:`t = \ln(1+R)/R`, R the range of d,
    never lower it. A batch starts at the estimate of its mean counts. Detailed balance holds to rounding, because x is
    symmetric whatever u is.

    Parameters
    ----------
    start
        ``potentials`` of the estimate for similar counts.

    Raises
    ------
    ShapeError, DataError
        If the counts cannot be used or the states are not strongly connected.
    ConvergenceError
        If the iteration does not end.

    References
    ----------
    Bowman, Beauchamp, Boxer, Pande, J. Chem. Phys. 131, 124101 (2009) (the equations of the maximum); Hunter,
    Ann. Stat. 32, 384 (2004) (existence and uniqueness for paired comparisons); Bach, Electron. J. Stat. 4, 384 (2010)
    (the step).
    """
    counts = checked_counts(counts)
    rows = counts.reshape(-1, *counts.shape[-2:])
    check_connected(rows)
    if start is None:
        average = rows.mean(0, keepdim=True)
        start = _newton(_FreePopulations(average), (average.sum(-1) / (average + average.mT).sum(-1)).log())[0]
    size = max(1, _BLOCK // rows[0].numel()) if rows.device.type == "cpu" else len(rows)
    parts = [_newton(_FreePopulations(part), start.to(part).expand(len(part), -1)) for part in rows.split(size)]
    potentials = torch.cat(parts) if len(parts) > 1 else parts[0]
    transition, stationary = _from_potentials(rows, potentials)
    shape = counts.shape[:-1]
    return TransitionEstimate(transition.reshape(counts.shape), stationary.reshape(shape), potentials.reshape(shape))


def _from_potentials(counts: Tensor, potentials: Tensor) -> tuple[Tensor, Tensor]:
    u = potentials.exp()
    flows = (counts + counts.mT) / (u[:, :, None] + u[:, None, :])
    weights = flows.sum(-1)
    return flows / weights[..., None], weights / weights.sum(-1, keepdim=True)


def _newton(problem: _FreePopulations | _FixedPopulations, start: Tensor) -> Tensor:
    """Maximise; the Hessian is kept once the steps are small, as its error then only multiplies them."""
    value, last, factor = start, torch.inf, None
    for _ in range(_ITERATIONS):
        gradient, hessian = problem(value, curvature=factor is None or last > 1e-3)
        if hessian is not None:
            factor = torch.linalg.cholesky_ex(hessian).L
        step = torch.cholesky_solve(gradient[..., None], factor).squeeze(-1)
        size = problem.size(value, step)
        value, largest = value + problem.damping(size)[:, None] * step, float(size.max())
        # Below 1e-7 rounding of the gradient may end the descent before the tolerance of 1e-12 does.
        if largest < 1e-12 or (last < 1e-7 and largest > last / 4):
            return value
        last = largest
    raise ConvergenceError(expected("counts", "a maximum of the likelihood", f"steps of {last:.1e}"))


class _FreePopulations:
    """The likelihood of :func:`reversible_estimate` in θ, made definite along the free constant."""

    def __init__(self, counts: Tensor) -> None:
        self.pairs = counts + counts.mT
        diagonal = counts.diagonal(dim1=-2, dim2=-1)
        self.pairs.diagonal(dim1=-2, dim2=-1).zero_()
        self.out = counts.sum(-1) - diagonal

    def __call__(self, value: Tensor, *, curvature: bool) -> tuple[Tensor, Tensor | None]:
        u = (value - value.amax(-1, keepdim=True)).exp()
        total = u[:, :, None] + u[:, None, :]
        flows = self.pairs / total
        gradient = self.out - u * flows.sum(-1)
        if not curvature:
            return gradient, None
        coupling = flows.div_(total).mul_(u[:, :, None]).mul_(u[:, None, :])
        degree = coupling.sum(-1)
        hessian = coupling.neg_().add_(degree.mean(-1)[:, None, None] / degree.shape[-1])
        hessian.diagonal(dim1=-2, dim2=-1).add_(degree)
        return gradient, hessian

    def size(self, value: Tensor, step: Tensor) -> Tensor:
        return step.amax(-1) - step.amin(-1)

    def damping(self, size: Tensor) -> Tensor:
        return torch.log1p(size) / size.clamp_min(1e-300)


def fixed_stationary_estimate(
    counts: Float[Tensor, "*draws states states"], stationary: Float[Tensor, "*draws states"]
) -> TransitionEstimate:
    r"""Reversible transition matrix of maximum likelihood with the populations ``stationary``.

    :math:`x_{ij} = (c_{ij} + c_{ji}) / (u_i + u_j)` where u > 0 minimises the self-concordant

    .. math:: \sum_i \pi_i u_i - \sum_{i<j} (c_{ij} + c_{ji}) \ln(u_i + u_j) - \sum_i c_{ii} \ln u_i ,

    by Newton steps of length 1/(1 + R), R the largest relative change of a sum. The diagonal is what is left of each
    row, so that the matrix is stochastic and reversible to rounding. A diagonal count of zero is replaced by
    :math:`10^{-10}` of the mean count of a row, which moves the optimum by about as much.

    Parameters
    ----------
    stationary
        Positive, normalised here; one vector, or one a matrix.

    Raises
    ------
    ShapeError, DataError
        If the counts or the populations cannot be used, or a state has no counts at all.
    ConvergenceError
        If the iteration does not end.

    References
    ----------
    Trendelkamp-Schroer, Wu, Paul, Noé, J. Chem. Phys. 143, 174101 (2015) (the estimator); Nesterov, Nemirovskii,
    Interior-point polynomial algorithms in convex programming, SIAM (1994) (the step).
    """
    counts = checked_counts(counts)
    populations = checked_populations(stationary, counts).expand(counts.shape[:-1]).reshape(-1, counts.shape[-1])
    rows = counts.reshape(-1, *counts.shape[-2:])
    problem = _FixedPopulations(rows, populations)
    if not bool((problem.totals > 0).all()):
        raise DataError(expected("counts", "transitions into or out of each state", "a state without any"))
    u = _newton(problem, problem.totals / (2 * populations))
    flows = problem.pairs / (u[:, :, None] + u[:, None, :])
    flows.diagonal(dim1=-2, dim2=-1).zero_()
    flows.diagonal(dim1=-2, dim2=-1).copy_((populations - flows.sum(-1)).clamp_min(0))
    transition = (flows / populations[..., None]).reshape(counts.shape)
    return TransitionEstimate(transition, populations.reshape(counts.shape[:-1]), u.log().reshape(counts.shape[:-1]))


class _FixedPopulations:
    """The likelihood of :func:`fixed_stationary_estimate` in u."""

    def __init__(self, counts: Tensor, populations: Tensor) -> None:
        self.populations = populations
        self.pairs = counts + counts.mT
        self.totals = self.pairs.sum(-1)
        diagonal = self.pairs.diagonal(dim1=-2, dim2=-1)
        floor = 1e-10 * self.totals.mean(-1, keepdim=True).expand_as(diagonal)
        diagonal.copy_(torch.where(diagonal > 0, diagonal, floor))

    def __call__(self, value: Tensor, *, curvature: bool) -> tuple[Tensor, Tensor | None]:
        total = value[:, :, None] + value[:, None, :]
        flows = self.pairs / total
        gradient = flows.sum(-1) - self.populations
        if not curvature:
            return gradient, None
        hessian = flows.div_(total)
        degree = hessian.sum(-1)
        hessian.diagonal(dim1=-2, dim2=-1).add_(degree)
        return gradient, hessian

    def size(self, value: Tensor, step: Tensor) -> Tensor:
        change = (step[:, :, None] + step[:, None, :]).abs() / (value[:, :, None] + value[:, None, :])
        return torch.where(self.pairs > 0, change, 0.0).amax((-1, -2))

    def damping(self, size: Tensor) -> Tensor:
        return 1 / (1 + size)
