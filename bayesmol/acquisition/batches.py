"""Batches by greedy log-determinants: structures that are informative together, not one by one."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.progress import progress
from bayesmol.typing import Features

__all__ = ["Batch", "checked_first", "checked_pool", "greedy_log_determinant", "information_gain"]


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of a pool in the order of choice.

    Attributes
    ----------
    indices
        Positions in the pool.
    gains
        What each brought when it was chosen; the rule says in which unit.
    """

    indices: Int[Tensor, " size"]
    gains: Float[Tensor, " size"]

    def __len__(self) -> int:
        return len(self.indices)


def checked_pool(features: Features, size: int, training: Features | None = None) -> None:
    """Raise :class:`DataError` unless ``size`` rows can be chosen from finite features."""
    for name, matrix in {"features": features, "training": training}.items():
        if matrix is None:
            continue
        if matrix.ndim != 2 or 0 in matrix.shape or not matrix.is_floating_point():
            raise ShapeError(expected(name, "numbers of shape (rows, features), not empty", tuple(matrix.shape)))
        if matrix.shape[1] != features.shape[1]:
            raise ShapeError(expected(name, f"shape (rows, {features.shape[1]})", tuple(matrix.shape)))
        # one pass and no second array: the extremes of a NaN are NaN
        if not all(bool(torch.isfinite(extreme)) for extreme in matrix.aminmax()):
            raise DataError(expected(name, "finite numbers", "NaN or infinity", "remove such rows"))
    if not 1 <= size <= len(features):
        raise DataError(expected("size", f"1 to {len(features)} (candidates)", size, "enlarge the pool"))


def checked_first(first: Sequence[int], size: int, candidates: int) -> None:
    """Raise :class:`DataError` unless ``first`` are different candidates, at most ``size`` of them."""
    if len(set(first)) != len(first) or len(first) > size or not all(0 <= index < candidates for index in first):
        raise DataError(expected("first", f"at most {size} different positions below {candidates}", list(first)))


def greedy_log_determinant(
    factors: Sequence[Float[Tensor, " _ rank"]],
    noise: float,
    size: int,
    *,
    first: Sequence[int] = (),
    costs: Sequence[float] | None = None,
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
    first
        Structures that are in the batch anyway; the others are chosen given these.
    costs
        Of each structure: the gain for a unit of cost decides, and not the gain.

    Returns
    -------
    indices, gains
        In the order of choice; gains in nats, given the structures chosen before.

    References
    ----------
    Minoux, Optimization Techniques, Springer (1978), 234 (lazy greedy); Krause, Singh, Guestrin, J. Mach. Learn.
    Res. 9, 235 (2008); Kirsch et al., NeurIPS 2019 (the same objective as BatchBALD for a Gaussian process).
    """
    _check(factors, noise, size, first)
    weights = [1.0] * len(factors) if costs is None else [1 / cost for cost in costs]
    left = _Left([factor.double() for factor in factors], noise)
    queue = []
    with progress("scoring candidates", len(factors)) as advance:
        for index in sorted(set(range(len(factors))) - set(first)):
            queue.append((-weights[index] * left.gain(index), index, 0))
            advance()
    heapq.heapify(queue)
    gains: list[float] = []
    with progress("choosing structures", size) as advance:
        while len(gains) < size:
            if len(gains) < len(first):
                index = first[len(gains)]
            else:
                _, index, age = heapq.heappop(queue)
                if age < len(gains):
                    heapq.heappush(queue, (-weights[index] * left.gain(index), index, len(gains)))
                    continue
            gains.append(left.gain(index))
            left.choose(index)
            advance()
    return left.chosen, gains


class _Left:
    """What is left to learn of each structure after those chosen, brought up to date when it is asked for."""

    def __init__(self, factors: list[Tensor], noise: float) -> None:
        self.factors, self.noise = factors, noise
        self.covariances = [factor @ factor.T for factor in factors]
        self.ages = [0] * len(factors)
        self.gains: list[float | None] = [None] * len(factors)
        self.chosen: list[int] = []
        self.learned, self.ends = factors[0][:0], [0]

    def gain(self, index: int) -> float:
        """Information of a structure given those chosen."""
        if self.ages[index] < len(self.chosen):
            overlap = self.factors[index] @ self.learned[self.ends[self.ages[index]] :].T
            self.covariances[index] = self.covariances[index] - overlap @ overlap.T
            self.ages[index], self.gains[index] = len(self.chosen), None
        if (gain := self.gains[index]) is None:
            gain = self.gains[index] = information_gain(self.covariances[index], self.noise)
        return gain

    def choose(self, index: int) -> None:
        """Learn the labels of a structure whose gain is up to date."""
        rows = _learned(self.factors[index], self.covariances[index], self.learned, self.noise)
        self.learned = torch.cat([self.learned, rows])
        self.chosen.append(index)
        self.ends.append(len(self.learned))


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


def _check(factors: Sequence[Tensor], noise: float, size: int, first: Sequence[int]) -> None:
    if not 1 <= size <= len(factors):
        raise DataError(expected("size", f"1 to {len(factors)} (candidates)", size, "enlarge the pool"))
    if not noise > 0:
        raise DataError(expected("noise", "a positive standard deviation of a label", noise))
    if any(factor.ndim != 2 or factor.shape[1] != factors[0].shape[1] for factor in factors):
        shapes = {tuple(factor.shape) for factor in factors}
        raise DataError(expected("factors", "shape (labels, rank) with one rank", shapes))
    if not all(bool(torch.isfinite(factor).all()) for factor in factors):
        raise DataError(expected("factors", "finite numbers", "NaN or infinity"))
    checked_first(first, size, len(factors))
