"""Batches by greedy log-determinants: structures that are informative together, not one by one."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.progress import progress

__all__ = ["greedy_log_determinant", "information_gain"]


def greedy_log_determinant(
    factors: Sequence[Float[Tensor, " _ rank"]], noise: float, size: int
) -> tuple[list[int], list[float]]:
    r"""Indices and gains of a batch S that maximises the information of its labels greedily.

    .. math:: I(S) = \tfrac12 \ln \det\bigl( I + W_S W_S^\top / \sigma^2 \bigr),

    with the factor :math:`W_s` of the prior covariance :math:`W_s W_t^\top` of the labels of structures s and t. Each
    choice t adds the rows :math:`V_t = L^{-1} W_t C` to V, where :math:`C = I - V^\top V` is the covariance that is
    left in the space of the rank and :math:`L L^\top = \sigma^2 I + W_t C W_t^\top`. A gain only shrinks as others are
    chosen (submodularity), so gains are brought up to date lazily, at the top of the queue: the result is that of
    the full greedy search, and within :math:`1 - 1/e` of the best batch.

    Parameters
    ----------
    factors
        One a structure, in the unit of the labels.
    noise
        Standard deviation of a label, in the same unit.

    Returns
    -------
    indices, gains
        In the order of choice; gains in nats, given the structures chosen before.

    References
    ----------
    Minoux, Optimization Techniques, Springer (1978), 234 (lazy greedy); Krause, Singh, Guestrin, J. Mach. Learn.
    Res. 9, 235 (2008); Kirsch et al., NeurIPS 2019 (the same objective as BatchBALD for a Gaussian process).
    """
    _check(factors, noise, size)
    factors = [factor.double() for factor in factors]
    with progress("scoring candidates", len(factors)) as advance:
        covariances, queue = [], []
        for index, factor in enumerate(factors):
            covariances.append(factor @ factor.T)
            queue.append((-information_gain(covariances[-1], noise), index, 0))
            advance()
    heapq.heapify(queue)
    indices, gains, learned, ends = [], [], factors[0][:0], [0]
    with progress("choosing structures", size) as advance:
        while len(indices) < size:
            bound, index, age = heapq.heappop(queue)
            if age < len(indices):
                overlap = factors[index] @ learned[ends[age] :].T
                covariances[index] = covariances[index] - overlap @ overlap.T
                gain = information_gain(covariances[index], noise)
                heapq.heappush(queue, (-gain, index, len(indices)))
                continue
            learned = torch.cat([learned, _learned(factors[index], covariances[index], learned, noise)])
            indices.append(index)
            gains.append(-bound)
            ends.append(len(learned))
            advance()
    return indices, gains


def information_gain(covariance: Float[Tensor, " labels labels"], noise: float) -> float:
    r"""Information :math:`\tfrac12 \ln\det(I + \Sigma/\sigma^2)` of labels with a covariance and noise, in nats."""
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    return float(torch.linalg.cholesky(eye + covariance / noise**2).diagonal().log().sum())


def _learned(factor: Tensor, covariance: Tensor, learned: Tensor, noise: float) -> Tensor:
    """Rows that the labels of one structure add to the square root of what is learned."""
    left = factor - (factor @ learned.T) @ learned
    eye = torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)
    cholesky = torch.linalg.cholesky(noise**2 * eye + covariance)
    return torch.linalg.solve_triangular(cholesky, left, upper=False)


def _check(factors: Sequence[Tensor], noise: float, size: int) -> None:
    if not 1 <= size <= len(factors):
        raise DataError(expected("size", f"1 to {len(factors)} (candidates)", size, "enlarge the pool"))
    if not noise > 0:
        raise DataError(expected("noise", "a positive standard deviation of a label", noise))
    if any(factor.ndim != 2 or factor.shape[1] != factors[0].shape[1] for factor in factors):
        shapes = {tuple(factor.shape) for factor in factors}
        raise DataError(expected("factors", "shape (labels, rank) with one rank", shapes))
    if not all(bool(torch.isfinite(factor).all()) for factor in factors):
        raise DataError(expected("factors", "finite numbers", "NaN or infinity"))
