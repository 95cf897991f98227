"""Which rows of a batch are outside, so that few of those that are called so are inside."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.applicability.tolerance import checked_probability
from bayesmol.errors import ApplicabilityError, DataError, expected

__all__ = ["Selected", "conditional_p_values", "false_discovery_power", "select_outside"]


@dataclass(frozen=True)
class Selected:
    """Rows of a batch that are called outside together.

    Attributes
    ----------
    outside
        Whether each row is.
    threshold
        Largest p-value selected; 0 if none is.
    guarantee
        The sentence that holds.
    """

    outside: Bool[Tensor, " rows"]
    threshold: float
    guarantee: str


def select_outside(
    p_values: Float[Tensor, " rows"], level: float = 0.1, *, calibration: int, confidence: float | None = None
) -> Selected:
    r"""Rows outside by Benjamini and Hochberg: the expected fraction of false ones among them is at most ``level``.

    The k smallest p-values are selected for the largest k with :math:`p_{(k)} \le \mathrm{level}\, k/m`. Conformal
    p-values of one calibration set depend on each other positively (PRDS), so that this bounds the false discovery
    rate by level times the fraction of rows that are inside, on average over calibration sets and batches.

    Parameters
    ----------
    p_values
        Of the rows of one batch, from :meth:`~bayesmol.applicability.CalibratedDomain.assess`.
    calibration
        Number of calibration units n of the p-values.
    confidence
        If given, p-values are first enlarged by :func:`conditional_p_values`, and the bound holds for batches to come
        with this one calibration set, with this probability over its draw; rows of the batch must then be independent.

    Raises
    ------
    ApplicabilityError
        If nothing could be selected though all rows were outside: the smallest p-value is 1/(n + 1).

    References
    ----------
    Bates, Candès, Lei, Romano, Sesia, Ann. Stat. 51, 149 (2023); Benjamini, Hochberg, J. R. Stat.
    Soc. B 57, 289 (1995).
    """
    checked_probability(level=level)
    p_values = _checked(p_values, calibration)
    least = false_discovery_power(len(p_values), calibration, level, confidence)
    if confidence is not None:
        p_values = conditional_p_values(p_values, calibration, confidence)
    rows, (ordered, _) = len(p_values), p_values.sort()
    # The tolerance keeps ranks over n + 1, which are no binary numbers, from missing their own level.
    limits = level * torch.arange(1, rows + 1, device=ordered.device).double() / rows * (1 + 1e-12)
    passed = (ordered <= limits).nonzero()
    threshold = float(ordered[int(passed[-1])]) if len(passed) else 0.0
    over = "on average over calibration sets and batches"
    if confidence is not None:
        over = f"on average over batches of independent rows, with {100 * confidence:g} % confidence over calibration"
    sentence = (
        f"of the rows called outside, at most {100 * level:g} % are expected to be exchangeable with the calibration "
        f"rows, {over} (n = {calibration}; nothing is selected unless {least} of {rows} rows are outside)"
    )
    return Selected(p_values <= threshold if len(passed) else torch.zeros_like(p_values).bool(), threshold, sentence)


def false_discovery_power(rows: int, calibration: int, level: float, confidence: float | None = None) -> int:
    """Least number of rows of a batch that must be outside for any to be selected.

    Raises
    ------
    ApplicabilityError
        If all of them are too few; the message names the number of calibration rows that it takes.
    """
    checked_probability(level=level)
    least = math.ceil(rows * _smallest(calibration, confidence) / level - 1e-9)
    if least > rows:
        needed = bisect.bisect_left(range(10**9), -level, lo=1, key=lambda n: 1e-12 - _smallest(n, confidence))
        aim = f"at least {needed} calibration rows for level {level:g}"
        raise ApplicabilityError(expected("calibration", aim, calibration, "the smallest p-value exceeds the level"))
    return max(least, 1)


def conditional_p_values(
    p_values: Float[Tensor, " rows"], calibration: int, confidence: float = 0.95
) -> Float[Tensor, " rows"]:
    r"""Conformal p-values enlarged so that they hold given the calibration set, with ``confidence`` over its draw.

    A p-value :math:`j/(n + 1)` becomes

    .. math:: b_j = 1 - \left[(1 - \mathrm{confidence})
        \frac{i (i - 1) \cdots (i - k + 1)}{n (n - 1) \cdots (n - k + 1)}\right]^{1/k}, \quad i = n + 1 - j, \; k = n/2.

    With exactly that confidence the fraction of new scores beyond the j-th largest calibration score is at most
    :math:`b_j` for all j at the same time; then :math:`P(p \le a \mid \mathrm{calibration}) \le a` for every a, and the
    p-values of independent rows are independent.

    Raises
    ------
    DataError
        If a p-value is not a multiple of 1/(n + 1), such as a weighted one.

    References
    ----------
    Bates, Candès, Lei, Romano, Sesia, Ann. Stat. 51, 149 (2023), section 3, with the bounds of Simes.
    """
    checked_probability(confidence=confidence)
    p_values = _checked(p_values, calibration)
    ranks = p_values * (calibration + 1)
    if bool((ranks - ranks.round()).abs().max() > 1e-6 * (calibration + 1)) or bool(ranks.round().min() < 1):
        got = f"{float(p_values[(ranks - ranks.round()).abs().argmax()]):.6g}"
        raise DataError(expected("p_values", f"multiples of 1/{calibration + 1}, from calibration rows", got))
    bounds = torch.cat([_bounds(calibration, confidence, calibration), torch.ones(1, dtype=torch.float64)])
    return bounds.to(p_values.device)[ranks.round().long() - 1]


def _smallest(calibration: int, confidence: float | None) -> float:
    """Smallest p-value that there can be."""
    return 1 / (calibration + 1) if confidence is None else float(_bounds(calibration, confidence, 1)[0])


def _bounds(count: int, confidence: float, ranks: int) -> Float[Tensor, " ranks"]:
    """Simes bounds of the first ranks from above, over half of all ranks; 1 beyond."""
    used = max(1, count // 2)
    below = torch.arange(count, count - ranks, -1, dtype=torch.float64)  # n + 1 − j

    def log_falling(numbers: Tensor) -> Tensor:
        return torch.lgamma(numbers + 1) - torch.lgamma((numbers - used).clamp(min=0) + 1)

    whole = torch.tensor(float(count), dtype=torch.float64)
    log_share = (math.log1p(-confidence) + log_falling(below) - log_falling(whole)) / used
    return torch.where(below >= used, -torch.expm1(log_share), 1.0)


def _checked(p_values: Tensor, calibration: int) -> Tensor:
    if p_values.ndim != 1 or not len(p_values) or not bool(((p_values >= 0) & (p_values <= 1)).all()):
        raise DataError(expected("p_values", "numbers from 0 to 1, one a row, of at least one row", p_values.shape))
    if calibration < 1:
        raise DataError(expected("calibration", "a number of calibration rows, at least 1", calibration))
    return p_values.double()
