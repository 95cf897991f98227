"""Random audits: what a few checked steps say about all that were accepted, though the checks change the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.special import betaln

from bayesmol.errors import DataError, expected

__all__ = ["Audits", "largest_count"]


@dataclass(frozen=True)
class Audits:
    """Accepted steps, of which each was checked with a known probability by a coin of its own.

    Attributes
    ----------
    probability
        Of a check.
    accepted, checked, exceeded
        Steps accepted; of these those that were checked; of these those whose error was above the tolerance.
    confidence
        Of :attr:`share`.
    """

    probability: float
    accepted: int
    checked: int
    exceeded: int
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("probability", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise DataError(expected(name, "a probability strictly between 0 and 1", getattr(self, name)))
        if not 0 <= self.exceeded <= self.checked <= self.accepted:
            got = f"{self.exceeded}, {self.checked}, {self.accepted}"
            raise DataError(expected("exceeded, checked, accepted", "counts, each at most the next", got))

    @property
    def estimate(self) -> float:
        """Unbiased estimate of the share of accepted steps above the tolerance, by inverse probability."""
        return self.exceeded / self.probability / max(self.accepted, 1)

    @property
    def share(self) -> float:
        """Upper bound of the share of accepted steps above the tolerance; 1 while the audits cannot say more."""
        most = largest_count(self.exceeded, self.probability, self.confidence)
        return min(1.0, most / max(self.accepted, 1))

    @property
    def guarantee(self) -> str:
        """The sentence that holds."""
        return (
            f"of {self.accepted} accepted steps, those taken back among them, at most {100 * self.share:.3g} % had an "
            f"error above the tolerance, with {100 * self.confidence:g} % confidence at all times together "
            f"({self.checked} drawn with probability {self.probability:g} and checked, {self.exceeded} above); it "
            "speaks of these steps, not of later ones"
        )


def largest_count(exceeded: int, probability: float, confidence: float = 0.95) -> int:
    r"""Largest number N of accepted steps above the tolerance that ``exceeded`` found ones do not contradict.

    Each such step is checked by an independent coin, whatever the checks before have done to the model. The likelihood
    ratio of a Beta mixture of coins against the coin that was tossed is a martingale along these steps,

    .. math:: M_N = \frac{B(K + a, N - K + b)}{B(a, b)\, q^K (1 - q)^{N - K}}, \quad
       P\Big(\sup_N M_N \ge \frac{1}{\delta}\Big) \le \delta,

    so the N with :math:`M_N < 1/\delta` hold the true one at all times together. a = 1/2 and b = 2/q, which makes N
    larger by a fifth to two fifths than the exact binomial bound at a fixed time.

    References
    ----------
    Robbins, Ann. Math. Stat. 41, 1397 (1970), for mixtures; the choice of a and b is ours.
    """
    a, b = 0.5, 2 / probability

    def excluded(count: int) -> bool:
        missed = count - exceeded
        ratio = betaln(exceeded + a, missed + b) - betaln(a, b)
        ratio -= exceeded * math.log(probability) + missed * math.log1p(-probability)
        return ratio >= -math.log1p(-confidence)

    # Above its minimum the ratio grows: the bound is bracketed by doubling and found by bisection.
    low = exceeded + int(exceeded * (1 - probability) / probability)
    step = 1
    while not excluded(low + step):
        step *= 2
    high = low + step
    low = low + step // 2 if step > 1 else low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if excluded(middle) else (middle, high)
    return low
