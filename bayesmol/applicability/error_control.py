"""Error control: the largest score up to which predictions may be accepted, with a certificate for their errors."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.applicability.exceedance import Rows, least_rows
from bayesmol.errors import DataError, FormatError, expected

__all__ = ["ControlledDomain", "ErrorControl"]

STARTS = 6


@dataclass(frozen=True)
class ErrorControl:
    r"""Which predictions may be accepted, so that their errors are rarely above a tolerance: learn, then test.

    The largest t is sought with

    .. math:: R(t) = P(\mathrm{error} > \mathrm{tolerance} \mid \mathrm{score} \le t) \le \mathrm{risk}.

    Each t of a grid is tested against :math:`R(t) > \mathrm{risk}`. Of N rows accepted, K exceed; given N, K is
    binomial, and the p-value :math:`P(\mathrm{Bin}(N, \mathrm{risk}) \le K)` is exact. The thresholds are tested from
    the strictest to the loosest. A few of them are starts and have a part of the error probability
    :math:`1 - \mathrm{confidence}`; a threshold that passes hands its part on to the next (the fallback procedure),
    so that no more than that is spent in all.

    The grid is made of scores of the calibration rows, of fixed ranks, each tested on the rows below it, which are
    independent given the score. This is exact if R, as t rises, crosses the risk once, as it does for a score that
    orders the errors. It is exact without any condition for ``thresholds`` that were chosen without these rows.

    Attributes
    ----------
    tolerance
        Largest error that is tolerated, in ``unit``.
    risk
        Largest fraction of the accepted with a larger error …
    confidence
        … with this probability over the draw of the calibration rows.
    quantity, unit
        What the error is of; for the sentence of the guarantee only.

    References
    ----------
    Angelopoulos, Bates, Candès, Jordan, Lei, Learn then test, arXiv:2110.01052; Clopper, Pearson, Biometrika 26, 404
    (1934); Wiens, Dmitrienko, J. Biopharm. Stat. 15, 929 (2005) for the fallback procedure.
    """

    tolerance: float = 0.1
    risk: float = 0.05
    confidence: float = 0.95
    quantity: str = "|ΔF|"
    unit: str = "eV/Å"

    def __post_init__(self) -> None:
        for name in ("risk", "confidence"):
            if not 0 < getattr(self, name) < 1:
                raise DataError(expected(name, "a probability strictly between 0 and 1", getattr(self, name)))
        if not (math.isfinite(self.tolerance) and self.tolerance > 0):
            raise DataError(expected("tolerance", f"a positive error in {self.unit}", self.tolerance))

    def fit(
        self,
        scores: Float[Tensor, " rows"],
        errors: Float[Tensor, " rows"],
        *,
        groups: Int[Tensor, " rows"] | None = None,
        thresholds: Float[Tensor, " thresholds"] | None = None,
    ) -> ControlledDomain:
        r"""Domain with its certified threshold, from independent rows that neither model nor score has seen.

        With ``groups`` the rows of a group depend on each other, as the atoms of a structure do. R is then the rate of
        a random row of a random group; it exceeds the risk if :math:`\mathrm E\, Y_g \ge 0` with
        :math:`Y_g = N_g^{-1} \sum_{a \in g} 1\{s_a \le t\} (1\{\mathrm{error}_a > \mathrm{tolerance}\} - r)`, and the
        p-value is the inverse of the gain of bets against that, :math:`\langle \prod_g (1 - \lambda Y_g)
        \rangle_\lambda`, whose expectation is then at most one (Waudby-Smith and Ramdas).

        Parameters
        ----------
        scores
            Higher is stranger; predicted standard deviations are a good choice. Infinity is never accepted.
        errors
            Sizes of the errors of the predictions, in the unit of the tolerance.
        groups
            Group of each row, for rows that are not independent.
        thresholds
            Ascending grid, chosen without these rows, such as quantiles of the scores of an unlabelled pool.

        References
        ----------
        Waudby-Smith, Ramdas, J. R. Stat. Soc. B 86, 1 (2024), for tests of a bounded mean by betting.
        """
        rows = Rows.of(scores, errors, self.tolerance, groups)
        spend = 1 - self.confidence
        first = least_rows(self.risk, spend / _starts(rows.independent, self.risk, spend)) + 1
        grid = rows.grid(first) if thresholds is None else _ascending(thresholds)
        tests = [rows.accepted(float(t)) for t in grid]
        p_values = [test.p_value(self.risk) for test in tests]
        place, spent = _fallback(p_values, _shares(len(grid), rows.independent, self), spend)
        common: dict[str, Any] = {"rows": len(rows.score), "groups": rows.independent, "given": thresholds is not None}
        if place is None:
            needed = min((t.needed(self.risk, spend, rows.independent) for t in tests), default=None, key=_or_infinite)
            least = least_rows(self.risk, spend)
            needed = least if needed is None and rows.independent < least else needed
            return ControlledDomain(self, -math.inf, math.nan, 0.0, 0, 0, needed, **common)
        test, threshold = tests[place], float(grid[place])
        bound = min(self.risk, test.bound(spent))
        share = test.weight / rows.independent
        return ControlledDomain(self, threshold, bound, share, test.count, test.exceeding, None, **common)


@dataclass(frozen=True)
class ControlledDomain:
    """Accepts a row if its score is at most :attr:`threshold`.

    Attributes
    ----------
    threshold
        Largest score that is accepted; −∞ if nothing could be certified.
    risk_bound
        Upper confidence bound of the rate of errors above the tolerance among the accepted; NaN if none are.
    accepted_fraction
        Of the calibration rows.
    accepted, exceeding
        Calibration rows that the certificate rests on, and those of them with an error above the tolerance.
    needed
        About how many labelled rows (groups, where there are groups) would do, if nothing could be certified; ``None``
        if more rows like these would not help.
    rows, groups
        Calibration rows, and how many independent ones they stand for.
    given
        Whether the thresholds were given.
    """

    specification: ErrorControl
    threshold: float
    risk_bound: float
    accepted_fraction: float
    accepted: int
    exceeding: int
    needed: int | None
    rows: int
    groups: int
    given: bool

    def accept(self, scores: Float[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        """Whether the prediction of each row is accepted; raises :class:`DataError` if a score is NaN."""
        if bool(scores.isnan().any()):
            raise DataError(expected("scores", "numbers", "NaN", "look for NaN in the features"))
        return scores.double() <= self.threshold

    @property
    def guarantee(self) -> str:
        """The sentence that holds, or what it would take."""
        kind = self.specification
        subject = f"{kind.quantity} > {kind.tolerance:g} {kind.unit}".rstrip()
        whose = " of a random row of a random group" if self.groups < self.rows else ""
        aim = f"P({subject}{whose} | accepted) ≤ {100 * kind.risk:g} % with {100 * kind.confidence:g} % confidence"
        size = f"n = {self.rows}" + (f" in {self.groups} independent groups" if whose else "")
        if self.threshold == -math.inf:
            more = "more rows like these would not help: raise tolerance or risk, or improve model or score"
            unit = "groups" if whose else "labelled rows"
            remedy = more if self.needed is None else f"about {self.needed} {unit} would do"
            return f"nothing is accepted: not certified that {aim} ({size}); {remedy}"
        size += f", {self.accepted} accepted, {self.exceeding} of them exceed"
        new = "groups" if whose else "rows"
        said = f"{aim} ({size}), for {new} drawn independently like the calibration {new}"
        once = "thresholds are scores of these rows: " + ("nearly exact" if whose else "exact")
        return said if self.given else f"{said}; {once} if the rate crosses {100 * kind.risk:g} % once"

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays (none) that :meth:`from_state` reads back."""
        header = asdict(self)
        nothing = self.threshold == -math.inf
        return header | ({"threshold": None, "risk_bound": None} if nothing else {}), {}

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> ControlledDomain:
        """Domain from :meth:`state`; raises :class:`FormatError` if a part is missing."""
        names = set(cls.__dataclass_fields__)
        if not names <= set(header):
            raise FormatError(expected("state", sorted(names), sorted(header), "fit and save again"))
        parts = {name: header[name] for name in names} | {"specification": ErrorControl(**header["specification"])}
        nothing = {"threshold": -math.inf, "risk_bound": math.nan}
        return cls(**parts | (nothing if header["threshold"] is None else {}))


def _starts(independent: int, risk: float, spend: float) -> int:
    return min(STARTS, max(1, independent // (3 * least_rows(risk, spend))))


def _shares(size: int, independent: int, kind: ErrorControl) -> np.ndarray:
    """Part of the error probability of each threshold: equal for evenly spaced starts, zero for the others."""
    shares, spend = np.zeros(size), 1 - kind.confidence
    if size:
        starts = min(size, _starts(independent, kind.risk, spend))
        shares[np.arange(starts) * size // starts] = 1 / starts
    return shares


def _fallback(p_values: list[float], shares: np.ndarray, spend: float) -> tuple[int | None, float]:
    """Last hypothesis that is rejected, and the error probability that it was tested with."""
    carried = 0.0
    found: tuple[int | None, float] = (None, 0.0)
    for place, (p_value, share) in enumerate(zip(p_values, shares, strict=True)):
        carried += share * spend
        if share + carried > 0 and p_value <= carried:
            found = (place, carried)
        else:
            carried = 0.0
    return found


def _ascending(thresholds: Tensor) -> np.ndarray:
    grid = thresholds.double().cpu()
    if grid.ndim != 1 or len(grid) == 0 or bool(grid.isnan().any()) or bool((grid.diff() <= 0).any()):
        raise DataError(expected("thresholds", "ascending numbers", thresholds, "sort them and leave out ties"))
    return grid.numpy()


def _or_infinite(needed: int | None) -> float:
    return math.inf if needed is None else needed
