"""What a monitor compares with: bets against small p-values, and the tail of scores beyond those that were seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy import stats
from torch import Tensor

from bayesmol.errors import DataError, expected

__all__ = ["PowerStarts", "Tail"]


@dataclass(frozen=True)
class PowerStarts:
    r"""Bets on small p-values that start at every step, each with a part of the money; the rest is kept.

    .. math:: M_t = \frac{c}{c + t} + \sum_{s \le t} \frac{c}{(c + s)(c + s - 1)}
              \Big\langle \prod_{i=s}^t \epsilon p_i^{\epsilon - 1} \Big\rangle_\epsilon

    A change is found as fast after c quiet steps as at once, up to a logarithm, because no more than half of the money
    has been lost by then. A score that is the largest of n can multiply a bet by a number near n, where the linear
    bets of :class:`~bayesmol.calibration.Jumper` gain at most a factor 3/2.

    Attributes
    ----------
    exponents
        :math:`\epsilon` of the bets.
    patience
        c, in steps.

    References
    ----------
    Vovk, Nouretdinov, Gammerman, ICML 2003, for power martingales.
    """

    exponents: tuple[float, ...] = (0.5, 0.25, 0.1)
    patience: float = 1000.0

    def __post_init__(self) -> None:
        if not all(0 < exponent < 1 for exponent in self.exponents) or not 0 < self.patience < math.inf:
            got = (self.exponents, self.patience)
            raise DataError(expected("exponents, patience", "numbers between 0 and 1, and one above 0", got))

    def initial(self) -> tuple[float, ...]:
        """Number of steps, and the money in the bets of each exponent."""
        return (0.0, *(0.0 for _ in self.exponents))

    def updated(self, capital: tuple[float, ...], largest: int, least: int, count: int) -> tuple[float, ...]:
        """Capital after a score with the p-value ``largest / count``."""
        step, log_p, patience = capital[0] + 1, math.log(largest / count), self.patience
        dealt = patience / ((patience + step) * (patience + step - 1)) / len(self.exponents)
        bets = (
            (money + dealt) * exponent * math.exp((exponent - 1) * log_p)
            for money, exponent in zip(capital[1:], self.exponents, strict=True)
        )
        return (step, *(min(bet, 1e300) for bet in bets))

    def log_martingale(self, capital: tuple[float, ...]) -> float:
        """Logarithm of all money."""
        return math.log(self.patience / (self.patience + capital[0]) + sum(capital[1:]))


@dataclass(frozen=True)
class Tail:
    r"""Upper tail of scores beyond those that were seen: :math:`P(S > s) = q \, (s / u)^{-1/\xi}` above u.

    Of scores that are not all positive the tail is exponential, :math:`q \exp(-(s - u)/\xi)`. The fraction q of the
    scores is above u; :math:`\xi` is an upper confidence bound of Hill's estimator.

    References
    ----------
    Hill, Ann. Stat. 3, 1163 (1975).
    """

    start: float
    fraction: float
    index: float
    positive: bool

    @classmethod
    def of(cls, scores: Tensor, independent: float, *, fraction: float = 0.1, confidence: float = 0.95) -> Tail:
        """Tail of scores that are worth so many independent ones."""
        positive = bool((scores > 0).all())
        ordered = (scores.log() if positive else scores).double().flatten().sort(descending=True).values
        count = max(1, int(fraction * len(ordered)))
        start, worth = float(ordered[count]), fraction * independent
        index = float((ordered[:count] - start).mean()) * worth / float(stats.gamma.ppf(1 - confidence, worth))
        return cls(start, count / len(ordered), index, positive)

    def quantile(self, probability: float) -> float:
        """Score that is exceeded with this probability, at most the fraction."""
        end = self.start + self.index * math.log(self.fraction / probability)
        return math.exp(end) if self.positive else end
