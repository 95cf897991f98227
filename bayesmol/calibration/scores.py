"""Conformity scores: how strange a label is to its posterior, and which labels are no stranger than a radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.posterior import Posterior

__all__ = ["Absolute", "Central", "Normalised", "Score", "automatic_floor"]


@dataclass(frozen=True)
class Absolute:
    r"""Score :math:`|y - \mu|`; intervals :math:`\mu \pm r`, as wide everywhere."""

    def scores(self, posterior: Posterior, truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Score of each label, in the unit of the posterior."""
        return (truth.double() - posterior.mean.double()).abs()

    def ends(self, posterior: Posterior, radius: Float[Tensor, "*entries"]) -> tuple[Tensor, Tensor]:
        """Ends of the intervals of this radius."""
        return posterior.mean - radius, posterior.mean + radius


@dataclass(frozen=True)
class Normalised:
    r"""Score :math:`|y - \mu| / \max(\sigma, f)` with a floor f; intervals :math:`\mu \pm r \max(\sigma, f)`."""

    floor: float = 0.0

    def scores(self, posterior: Posterior, truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Score of each label, a number; raises :class:`DataError` where the standard deviation is zero."""
        scale = posterior.stddev.double().clamp_min(self.floor)
        if not bool((scale > 0).all()):
            raise DataError(expected("posterior", "positive standard deviations", "zeros", "give a floor"))
        return (truth.double() - posterior.mean.double()).abs() / scale

    def ends(self, posterior: Posterior, radius: Float[Tensor, "*entries"]) -> tuple[Tensor, Tensor]:
        """Ends of the intervals of this radius."""
        half = radius * posterior.stddev.clamp_min(self.floor)
        half = torch.where(radius.isinf(), radius, half)  # else ∞ · 0
        return posterior.mean - half, posterior.mean + half


@dataclass(frozen=True)
class Central:
    r"""Score :math:`\max(q_- - y, y - q_+)` of the central quantiles of a level; intervals :math:`[q_- - r, q_+ + r]`.

    A negative radius narrows the interval of the posterior; where that leaves nothing, its middle remains.
    """

    level: float

    def scores(self, posterior: Posterior, truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Score of each label, in the unit of the posterior."""
        lower, upper = self._quantiles(posterior)
        return torch.maximum(lower.double() - truth.double(), truth.double() - upper.double())

    def ends(self, posterior: Posterior, radius: Float[Tensor, "*entries"]) -> tuple[Tensor, Tensor]:
        """Ends of the intervals of this radius."""
        lower, upper = self._quantiles(posterior)
        middle = (lower + upper) / 2
        return torch.minimum(lower - radius, middle), torch.maximum(upper + radius, middle)

    def _quantiles(self, posterior: Posterior) -> tuple[Tensor, Tensor]:
        return posterior.quantile((1 - self.level) / 2), posterior.quantile((1 + self.level) / 2)


Score = Absolute | Normalised | Central


def automatic_floor(stddev: Float[Tensor, "*shape"], ratio: float = 3.0) -> tuple[float, float]:
    r"""Floors of the standard deviations in calibration and in prediction that bound the width, whatever the labels.

    With a floor f each score is at most :math:`|y-\mu|/f`, so the mean width over the calibration is at most
    :math:`\langle\max(\sigma, f)\rangle / f` times that of absolute scores. The floors are the least for which this is
    ``ratio``. They would be one number if it might depend on the new entry as on the others, as exchangeable scores
    must; instead the calibration uses the lower bound of that number and the prediction the upper,

    .. math:: \sum_i \max(\sigma_i, f_-) = (3n - 1) f_-, \qquad \sum_i \max(\sigma_i, f_+) = \frac{3n^2}{n+1} f_+,

    for a ratio of three, :math:`f_- \le f_+ \le f_- (n+1)/n`. The intervals then contain the exact ones, so the level
    stays exact. Without tiny standard deviations, below a third of the mean, the floors have no effect.

    Returns
    -------
    Floors of the calibration and of the prediction, in the unit of ``stddev``.
    """
    ordered = stddev.double().flatten().sort().values
    count = len(ordered)
    return _root(ordered, ratio * count - 1), _root(ordered, ratio * count**2 / (count + 1))


def _root(ordered: Tensor, slope: float) -> float:
    r"""Least f with :math:`\sum_i \max(\sigma_i, f) = \mathrm{slope} f`, from ascending standard deviations."""
    above = ordered.flip(0).cumsum(0).flip(0)
    floors = above / (slope - torch.arange(len(ordered), dtype=torch.float64, device=ordered.device))
    return float(floors[floors <= ordered][0])
