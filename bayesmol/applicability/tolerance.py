"""Exact tolerance limits: which calibration score is the threshold, and what rate of false alarms it has."""

from __future__ import annotations

import bisect
import math
from functools import lru_cache

from scipy.special import betainc, betaincinv

from bayesmol.errors import ApplicabilityError, DataError, expected

__all__ = ["checked_probability", "rows_needed", "tolerance_confidence", "tolerance_rank"]


def tolerance_rank(count: int, level: float, confidence: float) -> int:
    r"""Rank k from above of the calibration score that is the threshold: an exact tolerance limit.

    New scores exceed the k-th largest of n with a probability that is :math:`\mathrm{Beta}(k, n + 1 - k)` over the
    draw of the calibration rows (ties make it smaller); k is the largest whose quantile at ``confidence`` is at most
    ``level``.

    Raises
    ------
    ApplicabilityError
        If there is none: :math:`n < \ln(1 - \mathrm{confidence}) / \ln(1 - \mathrm{level})`.

    References
    ----------
    Wilks, Ann. Math. Stat. 12, 91 (1941); Bates et al., Ann. Stat. 51, 149 (2023).
    """
    checked_probability(level=level, confidence=confidence)
    rank = _rank(count, level, confidence)
    if rank == 0:
        needed = rows_needed(level, confidence)
        aim = f"at least {needed} rows for level {level:g} at confidence {confidence:g}"
        raise ApplicabilityError(expected("features", aim, count, "calibrate on more rows or raise the level"))
    return rank


def rows_needed(level: float, confidence: float) -> int:
    """Least number of calibration rows with which a threshold of this level and confidence is possible."""
    checked_probability(level=level, confidence=confidence)
    return math.ceil(math.log1p(-confidence) / math.log1p(-level) - 1e-9)


def tolerance_confidence(count: int, rank: int, level: float) -> float:
    """Probability over the calibration draw that the ``rank``-th largest of ``count`` scores keeps to the level."""
    if not 1 <= rank <= count:
        raise DataError(expected("rank", f"1 to {count}", rank))
    return float(betainc(rank, count + 1 - rank, level))


def checked_probability(**probabilities: float) -> None:
    """Raise unless each is a number strictly between 0 and 1."""
    for name, value in probabilities.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
            raise DataError(expected(name, "a probability strictly between 0 and 1", value))


@lru_cache(maxsize=256)
def _rank(count: int, level: float, confidence: float) -> int:
    """Largest rank that keeps to the level, 0 if there is none; every verdict asks for it again."""
    return bisect.bisect_right(
        range(1, count + 1), level, key=lambda k: float(betaincinv(k, count + 1 - k, confidence))
    )
