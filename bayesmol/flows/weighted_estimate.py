"""Estimates from importance weights whose intervals know skewness and heavy tails, or say why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.posterior import Estimate, Interval
from bayesmol.posterior.interval import checked_level

__all__ = ["Untrusted", "WeightedEstimate", "influenced"]

_KURTOSIS = 2.0  # a sample kurtosis of heavy tails is too small; by what, was tried on Gaussians and wells


@dataclass(frozen=True)
class WeightedEstimate(Estimate):
    r"""An estimate from weighted draws, with the shape of its error.

    With the influence :math:`z_i` of each draw, :math:`\hat\theta - \theta \approx \bar z`, the error has the skewness
    :math:`a = \gamma_z / \sqrt n`, and its variance is known as if from :math:`\nu = n / (\kappa_z - 1)` degrees of
    freedom. Of the true kurtosis :math:`\kappa_z` they would be twice as many; that of a heavy-tailed sample is too
    small.

    Attributes
    ----------
    degrees_of_freedom, skewness
        :math:`\nu` and a, of the shape of the value.
    guarantee
        The sentence that holds for an interval.

    References
    ----------
    Owen, Monte Carlo theory, methods and examples (2013), equation 9.8 (the standard error); Hall, J. R. Stat. Soc. B
    54, 221 (1992) (the skewness).
    """

    degrees_of_freedom: Float[Tensor, "*shape"]
    skewness: Float[Tensor, "*shape"]
    guarantee: str

    def interval(self, level: float) -> Interval:
        r"""Interval by the inverse of Hall's cubic transformation, with quantiles y of Student's t:
        :math:`\hat\theta - \sigma T(y)`, :math:`T(y) = \frac3a [(1 + a (y - a/6))^{1/3} - 1]`."""
        upper = (1 + checked_level(level)) / 2
        quantile = torch.from_numpy(stats.t.ppf(upper, self.degrees_of_freedom.double().cpu().numpy()).reshape(-1))
        quantile = quantile.reshape(self.value.shape).to(self.value)
        low = self.value - self.standard_error * self._studentised(quantile)
        high = self.value - self.standard_error * self._studentised(-quantile)
        known = torch.isfinite(self.standard_error) & torch.isfinite(self.value)
        low, high = torch.where(known, low, -math.inf), torch.where(known, high, math.inf)
        return Interval(low, high, level, self.unit, self.guarantee)

    def _studentised(self, y: Tensor) -> Tensor:
        a = self.skewness
        straight = a.abs() < 1e-6
        safe = torch.where(straight, 1.0, a)
        inner = 1 + safe * (y - safe / 6)
        return torch.where(straight, y, 3 / safe * (inner.sign() * inner.abs() ** (1 / 3) - 1))


@dataclass(frozen=True)
class Untrusted(Estimate):
    """What the draws cannot tell: NaN with an infinite error; prints the reason.

    Attributes
    ----------
    reason
        Why there is no number.
    """

    reason: str

    @classmethod
    def like(cls, value: Float[Tensor, "*shape"], unit: str, reason: str) -> Untrusted:
        """Of the shape of ``value``."""
        missing = torch.full_like(value, math.nan)
        return cls(missing, torch.full_like(value, math.inf), torch.zeros_like(value), unit, reason)

    def interval(self, level: float) -> Interval:
        """The whole line."""
        infinite = self.standard_error
        return Interval(-infinite, infinite, checked_level(level), self.unit, f"none: {self.reason}")

    def __str__(self) -> str:
        return f"not known: {self.reason}"


def influenced(
    value: Float[Tensor, "*shape"],
    influence: Float[Tensor, " draws *shape"],
    effective: Float[Tensor, ""],
    unit: str,
    guarantee: str,
) -> WeightedEstimate:
    """Estimate from the influence of each independent draw, whose mean is zero.

    Parameters
    ----------
    effective
        Effective number of the weights.
    """
    count, square = len(influence), influence.square().mean(0)
    safe = torch.where(square > 0, square, 1.0)
    kurtosis = influence.pow(4).mean(0) / safe.square()
    freedom = 2 * count / (_KURTOSIS * (kurtosis - 1)).clamp_min(1e-3)
    freedom = torch.where(square > 0, freedom, math.inf).clamp(1.0, 2e3 * count)
    skewness = influence.pow(3).mean(0) / safe.pow(1.5) / math.sqrt(count)
    error = (square / max(count - 1, 1)).sqrt() if count > 1 else torch.full_like(square, math.inf)
    # Of a proposal that is exact the weights differ by rounding alone.
    rounding = 64 * torch.finfo(value.dtype).eps * value.abs().clamp_min(1.0)
    error = torch.maximum(error, torch.where(torch.isfinite(value), rounding, math.inf))
    number = effective.to(value).expand_as(value).clone()
    return WeightedEstimate(value, error, number, unit, freedom, skewness, guarantee)
