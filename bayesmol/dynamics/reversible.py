"""Transition matrices of maximum likelihood: free, reversible, and reversible with known populations."""

from __future__ import annotations

from dataclasses import dataclass, field

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
from bayesmol.dynamics.multipliers import FixedPopulations, FreePopulations, PairSums, newton
from bayesmol.errors import DataError, expected

__all__ = [
    "ReversibleEstimate",
    "TransitionEstimate",
    "fixed_stationary_estimate",
    "largest_connected_set",
    "nonreversible_estimate",
    "reversible_estimate",
    "reversible_from_potentials",
    "reversible_potentials",
]

_COLUMNS = 256  # count matrices that are worked on together


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


@dataclass(frozen=True, eq=False)
class ReversibleEstimate(TransitionEstimate):
    """One with detailed balance, whose potentials are known."""

    potentials: Float[Tensor, "*draws states"] = field()  # without the default of the others


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
) -> ReversibleEstimate:
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
    out = (rows.sum(-1) - rows.diagonal(dim1=-2, dim2=-1)).mT.contiguous()
    potentials = reversible_potentials(PairSums.of(rows), out, start)
    return reversible_from_potentials(counts, potentials.reshape(counts.shape[:-1]))


def reversible_potentials(
    sums: PairSums, out: Float[Tensor, "states draws"], start: Float[Tensor, " states"] | None = None
) -> Float[Tensor, "draws states"]:
    """``potentials`` of :func:`reversible_estimate` from what it needs of connected counts.

    Parameters
    ----------
    sums, out
        Symmetric counts of pairs, and the counts that leave each state.
    start
        Potentials of similar counts.

    Raises
    ------
    ConvergenceError
        If the iteration does not end.
    """
    if start is None:
        mean = PairSums(sums.first, sums.second, sums.values.mean(1, keepdim=True))
        leaving = out.mean(1, keepdim=True)
        start = newton(FreePopulations(mean, leaving), torch.zeros_like(leaving)).squeeze(1)
    problem, found = FreePopulations(sums, out), []
    for draws in torch.arange(out.shape[1], device=out.device).split(_COLUMNS):
        found.append(newton(problem.only(draws), start[:, None].expand(-1, len(draws))))
    return torch.cat(found, 1).mT.contiguous()


def reversible_from_potentials(
    counts: Float[Tensor, "*draws states states"], potentials: Float[Tensor, "*draws states"]
) -> ReversibleEstimate:
    """The estimate of :func:`reversible_estimate` whose ``potentials`` are known."""
    u = potentials.exp()
    flows = (counts + counts.mT).div_(u[..., :, None] + u[..., None, :])
    weights = flows.sum(-1)
    stationary = weights / weights.sum(-1, keepdim=True)
    return ReversibleEstimate(flows.div_(weights[..., None]), stationary, potentials)


def fixed_stationary_estimate(
    counts: Float[Tensor, "*draws states states"], stationary: Float[Tensor, "*draws states"]
) -> ReversibleEstimate:
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
    pairs = rows + rows.mT
    totals, diagonal = pairs.sum(-1), pairs.diagonal(dim1=-2, dim2=-1)
    if not bool((totals > 0).all()):
        raise DataError(expected("counts", "transitions into or out of each state", "a state without any"))
    floor = 1e-10 * totals.mean(-1, keepdim=True)
    problem = FixedPopulations(PairSums.of(rows), torch.maximum(diagonal, floor).mT, populations.mT)
    u = newton(problem, (totals / (2 * populations)).mT).mT
    flows = pairs / (u[:, :, None] + u[:, None, :])
    flows.diagonal(dim1=-2, dim2=-1).zero_()
    flows.diagonal(dim1=-2, dim2=-1).copy_((populations - flows.sum(-1)).clamp_min(0))
    transition = (flows / populations[..., None]).reshape(counts.shape)
    return ReversibleEstimate(transition, populations.reshape(counts.shape[:-1]), u.log().reshape(counts.shape[:-1]))
