"""Report: every statistic of a claim with its interval, and with what it would be if the claim were exactly true."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int, Shaped
from scipy import stats
from torch import Tensor

from bayesmol.calibration.claim import Claim, Scores
from bayesmol.calibration.inputs import predictive
from bayesmol.calibration.local import Local, local, parts
from bayesmol.calibration.observed import Observed, paired, predictive_of_labels
from bayesmol.calibration.statistics import STATISTICS, confidence_interval, design_effect
from bayesmol.calibration.vector_scores import VECTOR_STATISTICS
from bayesmol.calibration.verdict import Verdict, verdict
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Posterior
from bayesmol.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Report", "Statistic", "evaluate"]

REPLICATES, BUDGET = 100, 800_000  # simulated sets of labels: at most so many, and so many entries in all
LEAST = 5
MEANINGS = {name: kind.meaning for name, kind in (STATISTICS | VECTOR_STATISTICS).items()}


@dataclass(frozen=True)
class Statistic:
    """A number, how well the data determine it, and what it would be if the claim were true.

    Attributes
    ----------
    interval
        95 % interval of what it would be of infinitely many labels, structures being independent; of the distances
        (area, distance and calibration error) it holds with more.
    reference
        Values that 95 % of sets of labels would give that are drawn from the claim itself. Where rows of a structure
        depend on each other more than the claim says, the band is wider by the root of the design effect.
    unit
        Of all of these; empty for pure numbers.
    """

    name: str
    value: float
    interval: tuple[float, float]
    reference: tuple[float, float]
    unit: str

    @property
    def expected(self) -> bool:
        """Whether the value is as of a true claim."""
        return self.reference[0] <= self.value <= self.reference[1]

    @property
    def columns(self) -> tuple[str, str, str, str, str]:
        """Name, value with its unit, interval, reference, and a mark if the value is not as of a true claim."""
        low, high = (f"{end:.4g}" for end in self.interval)
        least, most = (f"{end:.4g}" for end in self.reference)
        value = f"{self.value:.4g} {self.unit}".rstrip()
        return self.name, value, f"{low} … {high}", f"{least} … {most}", "" if self.expected else "✗"


@dataclass(frozen=True, eq=False)
class Report:
    """What the comparison of a claim with labels gives; prints as a table.

    Attributes
    ----------
    scores
        Scores of the labels.
    observed
        Labels and what is known of them.
    statistics
        By name.
    local
        Calibration along each condition.
    seed
        Of the simulated reference.
    """

    scores: Scores
    observed: Observed
    statistics: dict[str, Statistic]
    local: dict[str, Local]
    seed: int

    def __getitem__(self, name: str) -> Statistic:
        if name not in self.statistics:
            raise DataError(expected("name", f"one of {', '.join(self.statistics)}", repr(name)))
        return self.statistics[name]

    def verdict(self, level: float = 0.05) -> Verdict:
        """What speaks against the claim, with false alarms in a fraction ``level`` of true claims."""
        return verdict(self.scores.normal, self.observed.owner, tuple(self.local.values()), level=level, seed=self.seed)

    @cached_property
    def unit(self) -> str:
        """Unit of the quantity."""
        return self.scores.claim.posterior.unit

    def to_dict(self) -> dict[str, Any]:
        """Values, intervals and references by name, local calibration and the verdict, for JSON."""
        found: dict[str, Any] = {
            "entries": len(self.observed.owner),
            "structures": self.observed.structures,
            "unit": self.unit,
            "statistics": {
                name: {"value": s.value, "interval": s.interval, "reference": s.reference, "unit": s.unit}
                for name, s in self.statistics.items()
            },
            "local": {name: _plain(part) for name, part in self.local.items()},
        }
        judged = self.verdict()
        found["verdict"] = {"consistent": judged.consistent, "p_value": judged.p_value, "text": str(judged)}
        found["verdict"] |= {"factor": judged.factor, "factor_interval": judged.factor_interval}
        return found

    def plot(self) -> Figure:
        """Reliability, probability transforms, errors against deviations, discarding, calibration along conditions."""
        from bayesmol.calibration.report_plots import overview

        return overview(self)

    def __str__(self) -> str:
        entries, structures = len(self.observed.owner), self.observed.structures
        head = f"{entries} entries of {structures} structures" if structures < entries else f"{entries} entries"
        columns = ("statistic", "value", "95 % interval", "if true", "", "")
        rows = [(*one.columns, MEANINGS[name]) for name, one in self.statistics.items()]
        widths = [max(len(row[k]) for row in (columns, *rows)) for k in range(len(columns))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (columns, *rows)
        ]
        for name, part in self.local.items():
            valid, low, high = part.fraction_valid
            lines.append(
                f"along {name}: the scale is right in {100 * valid:.0f} % [{100 * low:.0f}, {100 * high:.0f}] of "
                f"{len(part.scale)} parts (95 % if true); 90 % intervals cover {float(part.coverage.min()):.3f} or more"
            )
        return "\n".join(line.rstrip() for line in (head, *lines, f"verdict: {self.verdict()}"))


def evaluate(
    prediction: Any,
    truth: Tensor | Labelled | Posterior,
    inputs: Any = None,
    *,
    unit: str = "",
    groups: Int[Tensor, " rows"] | None = None,
    errors: Float[Tensor, " rows *shape"] | None = None,
    condition_on: Sequence[str] | None = None,
    conditions: Mapping[str, Shaped[Tensor, " rows"]] | None = None,
    seed: int = 0,
) -> Report:
    """Compare what a prediction claims with labels.

    Parameters
    ----------
    prediction, inputs, unit
        A posterior, or whatever :func:`~bayesmol.calibration.predictive` makes one of: a pair of mean and standard
        deviation, draws, quantiles, a distribution of another library, or a model with inputs.
    truth
        Labels in the unit of the posterior; or a :class:`~bayesmol.data.Labelled`, or a posterior of the labels (see
        :func:`~bayesmol.calibration.paired`). Labels with standard errors are compared with the claim widened by them.
    groups
        Structure of each row; rows of one structure may depend on each other.
    errors
        Standard errors of the labels.
    condition_on
        Along what the calibration is judged locally: names among ``"stddev"``, ``"mean"`` and, of a ``Labelled``,
        ``"species"`` and ``"atoms"``; of quantiles ``"median"``. By default the first of these.
    conditions
        What else to judge it along: name → one value a row, whole numbers being categories.
    seed
        Of the reference, which is simulated: labels are drawn from the claim. At least 5 sets are drawn, 100 where
        there are few entries.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a label is not finite, a standard deviation is zero, a condition is unknown, or there are
        fewer than eight structures.
    """
    posterior = predictive(prediction, inputs, unit=unit, seed=seed)
    posterior, observed = paired(posterior, truth, groups=groups, errors=errors)
    if observed.structures < 8:
        raise DataError(expected("truth", "labels of at least 8 structures", observed.structures))
    claim = Claim(predictive_of_labels(posterior.with_rule(None), observed.errors))
    scores = claim.scores(observed.values, seed=seed)
    along = _along(condition_on, conditions or {}, scores, observed)
    return Report(scores, observed, _statistics(scores, observed, seed), along, seed)


def _statistics(scores: Scores, observed: Observed, seed: int) -> dict[str, Statistic]:
    vectors = scores.values.ndim == 2 and scores.values.shape[1] == 3
    kinds = STATISTICS | (VECTOR_STATISTICS if vectors else {})
    kinds = {name: kind for name, kind in kinds.items() if kind.applies(scores)}
    found = {name: kind.function(scores) for name, kind in kinds.items()}
    source = generator(seed, scores.values.device)
    size = min(REPLICATES, max(LEAST, BUDGET // len(observed.owner)))
    with progress("simulating the reference", size) as advance:
        rows = []
        for _ in range(size):
            simulated = scores.claim.simulated(observed.groups, source)
            rows.append([kind.function(simulated).value for kind in kinds.values()])
            advance(1)
    table = {}
    for (name, kind), column in zip(kinds.items(), torch.tensor(rows, dtype=torch.float64).T, strict=True):
        one, owner = found[name], observed.owner
        reference = _band(column, design_effect(one, owner))
        interval = confidence_interval(one, owner, reference[1])
        unit = scores.claim.posterior.unit if kind.has_unit else ""
        table[name] = Statistic(name, one.value, interval, reference, unit)
    return table


def _along(
    names: Sequence[str] | None, conditions: Mapping[str, Tensor], scores: Scores, observed: Observed
) -> dict[str, Local]:
    """Local calibration along each condition."""
    claim = scores.claim
    known = {"stddev": claim.stddev, "mean": claim.mean} if claim.has_moments else {"median": claim.median}
    known |= {name: observed.spread(values) for name, values in observed.conditions.items()}
    names = [next(iter(known))] if names is None else names
    if isinstance(names, str) or not set(names) <= set(known):
        remedy = "a Labelled as truth knows more; hand in others as conditions"
        raise DataError(expected("condition_on", f"names among {', '.join(known)}", names, remedy))
    chosen = {name: known[name] for name in names}
    for name, values in conditions.items():
        if values.shape != observed.groups.shape:
            shape = tuple(observed.groups.shape)
            raise ShapeError(expected(f"conditions[{name!r}]", f"shape {shape}", tuple(values.shape)))
        chosen[name] = observed.spread(values.to(observed.groups.device))
    hits = scores.inside(0.9)
    return {
        name: local(parts(name, values, observed.structures), scores.normal, observed.owner, hits)
        for name, values in chosen.items()
    }


def _plain(part: Local) -> dict[str, Any]:
    valid, low, high = part.fraction_valid
    columns = {"entries": part.sizes, "scale": part.scale, "scale_lower": part.scale_interval[0]}
    columns |= {"scale_upper": part.scale_interval[1], "bias": part.bias, "coverage_90": part.coverage}
    found = {name: column.tolist() for name, column in columns.items()}
    return {"parts": list(part.parts.labels), **found, "fraction_valid": [valid, low, high]}


def _band(values: Float[Tensor, " replicates"], widening: float) -> tuple[float, float]:
    """Interval that holds one more value with probability 0.95: by ranks of many, by Student's t of few."""
    middle, count = float(values.mean()), len(values)
    if count >= 100:
        low, high = float(values.quantile(0.025)), float(values.quantile(0.975))
    else:
        half = float(stats.t.ppf(0.975, count - 1)) * float(values.std()) * math.sqrt(1 + 1 / count)
        low, high = middle - half, middle + half
    return middle + widening * (low - middle), middle + widening * (high - middle)
