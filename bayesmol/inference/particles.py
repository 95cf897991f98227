"""Weighted particles in independent islands: estimates of the partition function and of means, with error bars."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.posterior import Draws, Estimate
from bayesmol.posterior.estimate import kish

__all__ = ["Particles", "Schedule", "family_mean"]


@dataclass(frozen=True, eq=False)
class Schedule:
    r"""Ladder of densities :math:`q^{1-\beta} e^{-\beta u}` and the moves on each.

    Attributes
    ----------
    ladder
        :math:`\beta`, rising to 1.
    steps, scales
        Length of the leapfrog steps on each rung, and the deviations of the coordinates that they are multiples of.

    Raises
    ------
    DataError
        If the ladder does not rise from above 0 to 1.
    """

    ladder: Float[Tensor, " rungs"]
    steps: Float[Tensor, " rungs"]
    scales: Float[Tensor, "rungs dimension"]

    def __post_init__(self) -> None:
        rising = len(self.ladder) > 0 and bool((self.ladder.diff(prepend=self.ladder.new_zeros(1)) > 0).all())
        if not rising or float(self.ladder[-1]) != 1.0:
            raise DataError(expected("ladder", "rising numbers above 0 that end at 1", self.ladder.tolist()))


@dataclass(frozen=True, eq=False)
class Particles:
    """Weighted particles of a target, in independent islands.

    Attributes
    ----------
    rows
        The particles.
    log_weights
        Their mean weight, over all islands, estimates the partition function.
    schedule
        Ladder and steps that were used; give it to a second run for an unbiased estimate.
    acceptance, effective
        Mean acceptance on each rung, and effective size before resampling as a share of the particles.
    evaluations
        Energies of the target that were evaluated, all but the first of each particle with gradients.
    fixed
        Whether the schedule was fixed in advance.
    """

    rows: Float[Tensor, "islands particles dimension"]
    log_weights: Float[Tensor, "islands particles"]
    schedule: Schedule
    acceptance: Float[Tensor, " rungs"]
    effective: Float[Tensor, " rungs"]
    evaluations: int
    fixed: bool

    @property
    def guarantee(self) -> str:
        """What holds for the estimate of the partition function."""
        if self.fixed:
            return "exact: the mean weight is an unbiased estimate of the partition function"
        return "asymptotic: the ladder and the steps were chosen by the same particles"

    @cached_property
    def effective_sample_size(self) -> float:
        """Kish's effective number of particles; copies made by resampling count as different."""
        return float(kish(self.log_weights))

    @cached_property
    def log_partition(self) -> Estimate:
        r"""Logarithm of the mean weight, :math:`\ln \frac{1}{I} \sum_i Z_i`, with the error from the islands.

        Like all errors here, that of the delta method times the deviation :math:`\sqrt{(I-1)/(I-3)}` of Student's law,
        because a normal interval from few islands would be too narrow.
        """
        logs = self._island_weights
        share = logs.softmax(0)
        error = ((len(logs) * share - 1).square().sum()).sqrt() / len(logs) * self._inflation
        value = logs.logsumexp(0) - math.log(len(logs))
        return Estimate(value, error, kish(logs), "")

    def expectation(self, observable: Callable[[Tensor], Tensor], unit: str = "") -> Estimate:
        """Mean of the values of an observable, which takes rows, with the error from the islands, in ``unit``."""
        islands = torch.arange(len(self.log_weights), device=self.rows.device)
        families = islands.repeat_interleave(self.log_weights.shape[1])
        values = observable(self.rows.flatten(0, 1)).double()
        return family_mean(values, self.log_weights.flatten(), families, unit, inflation=self._inflation)

    def draws(self, unit: str = "") -> Draws:
        """As weighted draws; paths that share nothing are one chain, islands are chains."""
        if self.log_weights.shape[1] == 1:
            return Draws(self.rows.transpose(0, 1), self.log_weights.mT, unit=unit)
        return Draws(self.rows, self.log_weights, unit=unit)

    @property
    def _island_weights(self) -> Float[Tensor, " islands"]:
        return self.log_weights.logsumexp(1) - math.log(self.log_weights.shape[1])

    @property
    def _inflation(self) -> float:
        """From the mean square to the deviation of Student's law with I − 1 degrees of freedom."""
        islands = len(self.log_weights)
        return math.sqrt(islands / (islands - 3))


def family_mean(
    values: Float[Tensor, "particles ..."],
    log_weights: Float[Tensor, " particles"],
    families: Int[Tensor, " particles"],
    unit: str,
    *,
    inflation: float = 1.0,
) -> Estimate:
    r"""Weighted mean of particles that are independent from one family to another, as islands or ancestors make them,

    .. math:: \hat f = \sum_i W_i f_i, \qquad
        \sigma^2 = \sum_a \Bigl(\sum_{i \in a} W_i (f_i - \hat f)\Bigr)^2.

    Copies of one ancestor that moves have made different count as different as they are for this observable. The error
    is consistent for families of the first ancestors of sequential Monte Carlo.

    Parameters
    ----------
    families
        Number of the family of each particle.
    inflation
        Of the error, for few families.

    References
    ----------
    Chan, Lai, Ann. Stat. 41, 2877 (2013); Lee, Whiteley, Biometrika 105, 609 (2018).
    """
    weights = log_weights.softmax(0)
    mean = torch.einsum("p,p...->...", weights, values)
    shares = torch.einsum("p,p...->p...", weights, values - mean)
    sums = shares.new_zeros((int(families.max()) + 1, *mean.shape)).index_add(0, families, shares)
    error = sums.square().sum(0).sqrt() * inflation
    variance = torch.einsum("p,p...->...", weights, (values - mean).square())
    count = torch.where(error > 0, variance / error.square(), float(len(values)))
    return Estimate(mean, error, count, unit)
