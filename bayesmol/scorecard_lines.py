"""Lines of a scorecard: numbers with intervals, what is wanted, and the verdict of the one against the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.applicability.measures import clopper_pearson
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.posterior import Estimate
from bayesmol.posterior.estimate import blocking
from bayesmol.units import convert

__all__ = ["CONFIDENCE", "Line", "Score", "Thresholds", "Verdict", "over_structures", "verdict", "worst"]

Verdict = Literal["met", "not met", "cannot tell", "not possible"]
CONFIDENCE = 0.95
_FINER = {"eV": "meV", "eV/Å": "meV/Å", "eV/atom": "meV/atom"}


@dataclass(frozen=True)
class Score:
    """A number with its 95 % interval; infinite where the data cannot give one."""

    value: float
    lower: float = -math.inf
    upper: float = math.inf
    unit: str = ""

    @classmethod
    def of(cls, estimate: Estimate, *, least: float = -math.inf) -> Score:
        """An estimate with its normal interval, cut at the least value that is possible."""
        ends = estimate.interval(CONFIDENCE)
        return cls(float(estimate.value), max(least, float(ends.lower)), float(ends.upper), estimate.unit)

    @property
    def percent(self) -> str:
        """A share in percent."""
        value, lower, upper = (f"{100 * x:.3g}" for x in (self.value, self.lower, self.upper))
        return f"{value} [{lower}, {upper}] %"

    @property
    def standard_error(self) -> float:
        """Half the interval in standard deviations of a normal one."""
        return (self.upper - self.lower) / (2 * float(stats.norm.ppf((1 + CONFIDENCE) / 2)))

    def __str__(self) -> str:
        fine = self.unit in _FINER and abs(self.value) < 0.1
        values = [1000 * x if fine else x for x in (self.value, self.lower, self.upper)]
        value, lower, upper = (f"{x:.4g}" if abs(x) >= 1000 else f"{x:.3g}" for x in values)
        return f"{value} [{lower}, {upper}] {_FINER[self.unit] if fine else self.unit}".rstrip()


@dataclass(frozen=True)
class Thresholds:
    """What is wanted of a potential.

    Attributes
    ----------
    energy
        Mean absolute error of the energy of a molecule, in eV: 0.25 kcal/mol, the middle of the 0.2 to 0.3 kcal/mol
        that are asked of a force field for a functional group.
    energy_per_atom
        The same for crystals, in eV/atom.
    microseconds
        Time of an atom and a step of the mean: 86.4 µs are a nanosecond of a thousand atoms, a million steps, in a day.
    exponent
        Of the growth of time with the number of atoms.
    atoms
        Numbers of atoms between which it is wanted.
    error_ratio
        Force error on the other molecule over that on the test frames; a convention of this card. The energy error
        about its mean must also be within the threshold there, because a bad potential is as bad everywhere.
    coverage
        Ends between which the fraction of force components inside the intervals has to be, for a level of 0.9; at
        other levels the same distances from the level.
    """

    energy: float = convert(0.25, "kcal/mol", "eV")
    energy_per_atom: float = 0.010
    microseconds: float = 86.4
    exponent: float = 1.1
    atoms: tuple[int, int] = (100, 10_000)
    error_ratio: float = 2.0
    coverage: tuple[float, float] = (0.86, 0.94)


@dataclass(frozen=True)
class Line:
    """One criterion.

    Attributes
    ----------
    scores
        By name, as in the JSON file.
    absent
        Name → why there is no such number.
    """

    criterion: str
    verdict: Verdict
    sentence: str
    scores: dict[str, Score] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @classmethod
    def impossible(cls, criterion: str, reason: Any) -> Line:
        """The line of a potential that cannot do it: a reason and no number."""
        return cls(criterion, "not possible", str(reason), absent={criterion: str(reason)})

    def content(self) -> dict[str, Any]:
        """The line as JSON data; infinite ends are ``None``."""
        scores = {
            name: {key: _finite(getattr(score, key)) for key in ("value", "lower", "upper")} | {"unit": score.unit}
            for name, score in self.scores.items()
        }
        return {"verdict": self.verdict, "sentence": self.sentence, "scores": scores, "absent": self.absent}


def verdict(score: Score, *, lower: float = -math.inf, upper: float = math.inf) -> Verdict:
    """Met if the whole interval of the number is within the ends, not met if all of it is outside."""
    if math.isnan(score.value):
        return "cannot tell"
    if lower <= score.lower and score.upper <= upper:
        return "met"
    return "not met" if score.upper < lower or score.lower > upper else "cannot tell"


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Verdict of several conditions together: met if all are, not met if one is not."""
    return next((said for said in ("not met", "cannot tell") if said in verdicts), "met")


def over_structures(
    sums: Float[Tensor, " structures"], sizes: Float[Tensor, " structures"], unit: str = "", *, share: bool = False
) -> Score:
    r"""Mean over all entries, from the sum over each structure and the number of its entries, with a 95 % interval.

    .. math:: R = \frac{\sum_s y_s}{\sum_s n_s}, \qquad u_s = \frac{y_s - R\, n_s}{\bar n}

    Entries of one structure may depend on each other in any way. The standard error is the larger of that of
    independent :math:`u_s` and that from blocks of consecutive structures (frames of a trajectory are correlated), with
    Student's t for as many numbers as are worth the same independent ones. A ``share`` is between 0 and 1; one of
    exactly 0 or 1 has the exact binomial interval over structures. Of 95 % intervals, 95 to 97 % cover with independent
    structures; with a correlation of 0.5 (0.8) between neighbours of 400, 92 % (90 %) do: blocks lag behind.

    Raises
    ------
    DataError
        If there are no structures.

    References
    ----------
    Cochran, Sampling Techniques, Wiley (1977), section 2.11; blocks: :func:`bayesmol.posterior.estimate.blocking`.
    """
    if not len(sums):
        raise DataError(expected("sums", "at least one structure", "none"))
    sums, sizes, count = sums.double().cpu(), sizes.double().cpu(), len(sums)
    value = float(sums.sum() / sizes.sum())
    if not math.isfinite(value):
        return Score(value, -math.inf, math.inf, unit)
    if share and value in (0.0, 1.0):
        return Score(value, *clopper_pearson(int(value) * count, count, CONFIDENCE), unit)
    half = _half_width((sums - value * sizes) / sizes.mean())
    ends = (max(0.0, value - half), min(1.0, value + half)) if share else (value - half, value + half)
    return Score(value, *ends, unit)


def _half_width(influence: Float[Tensor, " structures"]) -> float:
    count = len(influence)
    if count < 4:
        return math.inf
    alone = float(influence.std()) / math.sqrt(count)
    try:
        blocked = blocking(influence, unit="")
    except ConvergenceError:  # the frames are one long correlation
        return math.inf
    error, worth = float(blocked.standard_error), float(blocked.effective_sample_size)
    if error <= alone:
        error, worth = alone, count
    return math.inf if worth <= 2 else float(stats.t.ppf((1 + CONFIDENCE) / 2, worth - 1)) * error


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
