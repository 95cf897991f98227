"""When to stop labelling: a bound on the error from labels kept aside, and a forecast of the labels still needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.applicability import tolerance_rank
from bayesmol.errors import ApplicabilityError, DataError, ShapeError, expected

__all__ = ["Check", "Forecast", "StopRule", "forecast"]


@dataclass(frozen=True)
class Check:
    """A look at the structures kept aside.

    Attributes
    ----------
    bound
        Error that at least the share of structures does not exceed, with the confidence; infinite if they are too few.
    met
        Whether the bound is at most the target.
    guarantee
        The sentence that holds.
    """

    bound: float
    met: bool
    guarantee: str


@dataclass(frozen=True)
class StopRule:
    r"""Stop as soon as most structures are predicted well, with confidence: ``rule.check(errors)``.

    The bound is an exact tolerance limit: the error of rank k from above, with k from
    :func:`~bayesmol.applicability.tolerance_rank` at confidence :math:`1 - \delta / L`. The L looks of a campaign
    share the probability δ of being wrong, so each of them may stop it. The errors are of structures drawn from the
    pool at random and never learned from.

    Attributes
    ----------
    target
        Error that is good enough, in the unit of the errors.
    share
        Fraction of structures that must be as good.
    confidence
        Probability that they are when the rule says stop, whenever it does.
    looks
        Most looks that will be taken.

    References
    ----------
    Wilks, Ann. Math. Stat. 12, 91 (1941), for the tolerance limit.
    """

    target: float
    share: float = 0.9
    confidence: float = 0.95
    looks: int = 10

    def __post_init__(self) -> None:
        if not self.target > 0:
            raise DataError(expected("target", "a positive error", self.target))
        if self.looks < 1:
            raise DataError(expected("looks", "at least 1", self.looks))
        for name in ("share", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise DataError(expected(name, "a probability strictly between 0 and 1", getattr(self, name)))

    def check(self, errors: Float[Tensor, " structures"]) -> Check:
        """One look.

        Raises
        ------
        DataError
            If an error is NaN or negative.
        """
        if errors.ndim != 1:
            raise ShapeError(expected("errors", "one error a structure", tuple(errors.shape)))
        if not bool((errors >= 0).all()):
            raise DataError(expected("errors", "errors ≥ 0", "NaN or a negative number"))
        try:
            rank = tolerance_rank(len(errors), 1 - self.share, 1 - self._miss)
            bound = float(errors.sort(descending=True).values[rank - 1])
        except ApplicabilityError:
            bound = math.inf
        return Check(bound, bound <= self.target, self._sentence(len(errors)))

    def due(self, look: int, labels: int, first: int, last: int) -> bool:
        """Whether look number ``look``, from 1, is to be taken at so many labels.

        The looks are spread evenly in the logarithm of the labels, from the ``first`` to the ``last``.
        """
        if look > self.looks:
            return False
        place = (look - 1) / (self.looks - 1) if self.looks > 1 else 1.0
        return labels >= first * (last / first) ** place - 1e-9

    @property
    def needed(self) -> int:
        """Smallest number of structures to keep aside that can give a finite bound."""
        return math.ceil(math.log(self._miss) / math.log(self.share) - 1e-9)

    @property
    def _miss(self) -> float:
        return (1 - self.confidence) / self.looks

    def _sentence(self, count: int) -> str:
        return (
            f"at least {100 * self.share:g} % of structures like the {count} kept aside have an error within the "
            f"bound, with {100 * self.confidence:g} % confidence in all of {self.looks} looks together; a finite bound "
            f"takes {self.needed}"
        )


@dataclass(frozen=True)
class Forecast:
    """Number of labels at which the error is expected to reach the target, with its interval; may be infinite."""

    labels: float
    lower: float
    upper: float
    level: float

    def __str__(self) -> str:
        return f"{self.labels:.0f} labels ({self.lower:.0f} to {self.upper:.0f}, {100 * self.level:g} %)"


def forecast(
    labels: Sequence[int], errors: Sequence[float], target: float, *, level: float = 0.9, largest: float = 1e9
) -> Forecast:
    r"""Labels needed for a target error, if the learning curve :math:`e = a n^{-b}` goes on as it went.

    Least squares of :math:`\ln e` on :math:`\ln n`; the interval is Fieller's, of the place where line and target
    meet, with the scatter about the line as its error. It is an extrapolation, not a guarantee: a curve that bends
    leaves it, and in campaigns on ethanol 90 % intervals held in 72 % (``experiments/active_learning.py stop``).

    Parameters
    ----------
    labels, errors
        Points of the curve, in the order of learning; at least 3.
    largest
        What lies beyond is called infinite.

    Raises
    ------
    DataError
        If there are fewer than three points, or a number is not positive.

    References
    ----------
    Fieller, J. R. Stat. Soc. B 16, 175 (1954).
    """
    if len(labels) != len(errors) or len(set(labels)) < 3 or min(*labels, *errors, target) <= 0:
        raise DataError(expected("labels, errors", "three or more points of positive numbers", (labels, errors)))
    x, y = (torch.tensor([float(v) for v in values], dtype=torch.float64).log() for values in (labels, errors))
    center, spread = x.mean(), (x - x.mean()).square().sum()
    slope, height = ((x - center) * y).sum() / spread, y.mean() - math.log(target)
    scatter = (y - y.mean() - slope * (x - center)).square().sum() / (len(x) - 2)
    quantile = float(stats.t.ppf((1 + level) / 2, len(x) - 2)) ** 2 * float(scatter)
    ends = _fieller(float(height), float(slope), quantile / len(x), quantile / float(spread))
    best = -float(height / slope) if slope < 0 else math.inf
    counts = [math.exp(min(float(center) + end, 700.0)) for end in (best, *ends)]
    best, least, most = (count if count <= largest else math.inf for count in counts)
    return Forecast(best, least, most, level)


def _fieller(height: float, slope: float, first: float, second: float) -> tuple[float, float]:
    r"""Ends of the u with :math:`(h + s u)^2 \le c_1 + c_2 u^2`; without an upper end where the slope may be zero."""
    a, b, c = slope**2 - second, height * slope, height**2 - first
    if slope >= 0 or (a <= 0 and b * b <= a * c) or a == 0:
        return -math.inf, math.inf
    root = math.sqrt(max(b * b - a * c, 0.0))
    lower, upper = sorted(((-b - root) / a, (-b + root) / a))
    if a > 0:
        return lower, upper
    return (upper if -height / slope >= upper else -math.inf), math.inf
