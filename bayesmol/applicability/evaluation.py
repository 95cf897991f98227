"""How good a domain is: separation, false alarms, precision and errors inside and outside, each with its interval."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.applicability.domain import CalibratedDomain, Verdict
from bayesmol.applicability.ground_truths import Truth, binned_calibration, binned_error, truths
from bayesmol.applicability.measures import Intervals, Measure
from bayesmol.applicability.rejection import RiskCoverage, average_precision, kept_influence, risk_coverage
from bayesmol.calibration.claim import Claim
from bayesmol.calibration.metrics import auroc
from bayesmol.calibration.ranks import ascending_order, midranks
from bayesmol.calibration.statistics import STATISTICS, Influenced, average, root_mean
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Gaussian
from bayesmol.posterior.interval import checked_level
from bayesmol.representation.atomic import AtomicFeatures

__all__ = ["DomainReport", "evaluate"]


@dataclass(frozen=True, eq=False)
class DomainReport:
    """What :func:`evaluate` found.

    Attributes
    ----------
    measures
        Name → number with interval.
    verdict
        Of the domain on each row.
    curve
        Mean absolute error of the rows kept, as the threshold rises.
    truths
        Ground truths by the errors, where the labels are known.
    guarantee
        That of the domain, and what the intervals rest on.
    """

    measures: dict[str, Measure]
    verdict: Verdict
    curve: RiskCoverage
    truths: tuple[Truth, ...]
    confidence: float
    guarantee: str

    def to_dict(self) -> dict[str, Any]:
        """Numbers by name, for JSON; those that are not finite are ``None``."""
        numbers = {name: vars(measure) for name, measure in self.measures.items()}
        clean = {
            name: {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in parts.items()}
            for name, parts in numbers.items()
        }
        head = {"rows": len(self.verdict.score), "confidence": self.confidence, "guarantee": self.guarantee}
        return {**head, "measures": clean}

    def __str__(self) -> str:
        from rich.console import Console
        from rich.table import Table

        table = Table(title=f"domain on {len(self.verdict.score)} rows", title_justify="left")
        table.add_column("figure", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column(f"{100 * self.confidence:g} % interval", no_wrap=True)
        table.add_column("by")
        for name, found in self.measures.items():
            table.add_row(name, f"{found.value:.3g}", f"{found.lower:.3g} to {found.upper:.3g}", found.method)
        text = io.StringIO()
        console = Console(file=text, width=110)
        console.print(table)
        console.print(self.guarantee, markup=False, highlight=False)
        return text.getvalue()


def evaluate(
    domain: CalibratedDomain,
    features: Tensor | AtomicFeatures,
    *,
    errors: Float[Tensor, " rows"],
    stddevs: Float[Tensor, " rows"] | None = None,
    targets: Float[Tensor, " labels"] | None = None,
    outside: Bool[Tensor, " rows"] | None = None,
    groups: Int[Tensor, " rows"] | None = None,
    level: float = 0.9,
    confidence: float = 0.95,
    bins: int = 10,
    seed: int | torch.Generator = 0,
) -> DomainReport:
    r"""Judge a calibrated domain on rows that neither model, score nor threshold has seen.

    With ``outside``: AUROC, the rate of false alarms among the others, and the power. With ``targets`` the three
    truths of :mod:`~bayesmol.applicability.ground_truths`: AUROC, and average precision (inside: positive) minus
    its value by chance. With ``stddevs``: coverage of the normal intervals of ``level`` and mean :math:`z^2`, inside
    and outside. The intervals of the truths in bins are about what many rows in as many bins would say; they are
    percentiles of a bootstrap, and wider than they would have to be. Always: root mean square error inside and
    outside, Spearman's correlation of score and :math:`|r|`, and the area below the risk-coverage curve with its way
    from random (0) to oracle (1).

    Parameters
    ----------
    errors, stddevs
        Label minus prediction, and predicted standard deviation, in one unit.
    targets
        Labels for the naive model of the truths, best those of training.
    outside
        Rows known to come from elsewhere.
    groups
        What rows depend on each other in (frames of one run, atoms of one structure); else each row is independent.
    confidence
        Of the intervals, one by one.
    seed
        Of the bootstrap, for the truths in bins.

    Raises
    ------
    ShapeError, DataError
        If shapes differ or numbers are not finite.
    """
    verdict = domain.assess(features)
    score, errors = verdict.score.double(), errors.double()
    for name, given in {"errors": errors, "stddevs": stddevs, "outside": outside, "groups": groups}.items():
        if given is not None and given.shape != score.shape:
            raise ShapeError(expected(name, f"shape {tuple(score.shape)}", tuple(given.shape)))
    if stddevs is not None and not bool(((stddevs > 0) & stddevs.isfinite()).all()):
        raise DataError(expected("stddevs", "finite numbers above zero", "others"))
    curve = risk_coverage(score, errors.abs())
    intervals = Intervals(groups, checked_level(confidence))
    found: dict[str, Measure] = {}
    if outside is not None:
        found |= _known(intervals, score, verdict.inside, outside)
    truth = () if targets is None else tuple(truths(score, errors, targets, stddevs, bins=bins))
    if targets is not None:
        found |= _by_point(intervals, truth[0])
        found |= _by_bins(intervals, score, errors, targets, stddevs, bins, seed)
    found |= _by_side(intervals, verdict.inside, errors, stddevs, checked_level(level)) | _order(intervals, curve)
    kind = "rows" if groups is None else "groups of rows"
    guarantee = f"{domain.guarantee}; intervals hold one by one for independent {kind} like these, by the method named"
    return DomainReport(found, verdict, curve, truth, confidence, guarantee)


def _known(intervals: Intervals, score: Tensor, inside: Tensor, outside: Tensor) -> dict[str, Measure]:
    return {
        "auroc_outside": intervals.separation(score, outside),
        "false_positive_rate": intervals.rate(~inside, ~outside),
        "power": intervals.rate(~inside, outside),
    }


def _by_point(intervals: Intervals, truth: Truth) -> dict[str, Measure]:
    """Separation and gain of precision by the truth that is known row by row."""
    positives, every = truth.inside.double(), torch.ones_like(truth.inside)

    def influence() -> Tensor:
        return kept_influence(truth.score, positives, positives) - (positives - positives.mean())

    found = Influenced(_gain(truth), influence)
    none = Measure(math.nan, -1.0, 1.0, "no rows inside")
    gain = intervals.influenced(found, every) if bool(truth.inside.any()) else none
    return {"auroc_point": intervals.separation(truth.score, ~truth.inside), "precision_gain_point": gain}


def _by_bins(
    intervals: Intervals,
    score: Tensor,
    errors: Tensor,
    targets: Tensor,
    stddevs: Tensor | None,
    bins: int,
    seed: int | torch.Generator,
) -> dict[str, Measure]:
    """The same by the truths in bins; a bin is one score and one verdict, so all is done again with drawn rows."""

    def statistics(rows: Int[Tensor, " drawn"]) -> list[float]:
        binned = [binned_error(score[rows], errors[rows], targets, bins=bins)]
        if stddevs is not None:
            binned.append(binned_calibration(score[rows], errors[rows], stddevs[rows], targets, bins=bins))
        return [number for truth in binned for number in (_separation(truth), _gain(truth))]

    names = ["error"] if stddevs is None else ["error", "calibration"]
    labels = [f"{kind}_{name}" for name in names for kind in ("auroc", "precision_gain")]
    return dict(zip(labels, intervals.resampled(statistics, len(score), seed=seed), strict=True))


def _separation(truth: Truth) -> float:
    mixed = bool(truth.inside.any()) and not bool(truth.inside.all())
    return float(auroc(truth.score, ~truth.inside)) if mixed else math.nan


def _gain(truth: Truth) -> float:
    if not bool(truth.inside.any()):
        return math.nan
    return average_precision(truth.score, truth.inside) - float(truth.inside.double().mean())


def _by_side(
    intervals: Intervals, inside: Tensor, errors: Tensor, stddevs: Tensor | None, level: float
) -> dict[str, Measure]:
    found = {}
    for name, side in (("inside", inside), ("outside", ~inside)):
        if not bool(side.any()):
            continue
        found[f"rmse_{name}"] = intervals.influenced(root_mean(errors[side].square()), side)
        if stddevs is not None:
            z = errors / stddevs.double()
            covered = z.abs() <= stats.norm.ppf((1 + level) / 2)
            found[f"coverage_{100 * level:g}_{name}"] = intervals.rate(covered, side)
            found[f"z_mean_square_{name}"] = intervals.influenced(average(z[side].square(), "scale"), side)
    return found


def _order(intervals: Intervals, curve: RiskCoverage) -> dict[str, Measure]:
    """Spearman's correlation, and area and fraction of the risk-coverage curve."""
    ranks = midranks(curve.scores, ascending_order(curve.scores))
    claim = Claim(Gaussian(torch.zeros_like(ranks), ranks.square(), unit=""))
    found = {"spearman": STATISTICS["rank_correlation"].function(claim.scores(curve.errors))}
    found["risk_coverage_area"] = Influenced(curve.area, lambda: curve.area_influence, "scale")
    found["risk_coverage_fraction"] = Influenced(curve.fraction, lambda: curve.fraction_influence)
    return {name: intervals.influenced(one, torch.ones_like(ranks, dtype=torch.bool)) for name, one in found.items()}
