"""Scores of strangeness on four tables of materials: is a left-out group of rows stranger than held-out rows?

The tables are read from one wheel as they are:

    pip download --no-deps madml==2.6.7 -d TABLES

Superconductors have groups; the rows of the other three are parted into four clusters (k-means of the standardised
features), as MADML does with clusters of its own. A group with enough rows is left out; of the other rows 60 % fit the
score and a random forest, 20 % calibrate threshold and standard deviations, and 20 % stand for the domain.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from calibration_tasks import MADML, alloy, madml_columns
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.applicability.domain import Domain
from bayesmol.applicability.ground_truths import truths
from bayesmol.applicability.local_distance import LocalDistance
from bayesmol.applicability.rejection import average_precision
from bayesmol.applicability.scores import SPECIFICATIONS
from bayesmol.calibration.metrics import auroc
from bayesmol.errors import ApplicabilityError, DataError, expected
from bayesmol.inference.random import generator, numpy_generator
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

DEFAULT = "local"
LEVEL = 0.1  # of false alarms
CLUSTERS = 4
TREES = 100
LEAST_OUTSIDE, LEAST_INSIDE = 20, 50  # rows of a fold


def _given(row: dict[str, str]) -> str:
    return row["group"]


def _host(row: dict[str, str]) -> str:
    return re.findall(r"\[(\w+)\]", row["mat"])[0]


TABLES = {
    "superconductor": ("super_cond", "Tc", _given),
    "diffusion": ("diffusion", "E_regression", _given),
    "steel": ("steel_strength", "yield_strength", _given),
    "embrittlement": ("fluence", "Measured_DT41J_[C]", _given),
}
# The same rows in groups that chemistry gives: not in the means, to see what clusters make easy.
CHEMICAL = {
    "diffusion_by_host": ("diffusion", "E_regression", _host),
    "embrittlement_by_alloy": ("fluence", "Measured_DT41J_[C]", alloy),
}
CHOICE = (
    "the default score and its constants (nearest row, sum of absolute differences, 10 neighbours, floor 0.3) were "
    "chosen on seven other tables of the same wheel (stability, conductivity, dielectric, gap, elastic, magnetic, "
    "piezoelectric; 20 features each, chosen by rank correlation with the target), not on these four"
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Dissimilarity:
    """MADML's dissimilarity: one minus the Epanechnikov density over its maximum on training rows."""

    def fit(self, features: Float[Tensor, "rows features"]) -> Callable[[Tensor], Tensor]:
        """Score from training features, standardised; the bandwidth is that of mean-shift clustering."""
        from sklearn.cluster import estimate_bandwidth
        from sklearn.neighbors import KernelDensity
        from sklearn.preprocessing import StandardScaler

        scaler = StandardScaler().fit(features.numpy())
        scaled = scaler.transform(features.numpy())
        density = KernelDensity(kernel="epanechnikov", bandwidth=float(estimate_bandwidth(scaled))).fit(scaled)
        largest = density.score_samples(scaled).max()

        def score(new: Tensor) -> Tensor:
            logs = torch.from_numpy(density.score_samples(scaler.transform(new.numpy())))
            return (1 - (logs - largest).exp()).clamp_min(0.0)

        return score


@dataclass(frozen=True, eq=False)
class MaterialTable:
    """Features, targets, and the group of each row where the table has groups."""

    name: str
    inputs: Float[Tensor, "rows features"]
    targets: Float[Tensor, " rows"]
    groups: tuple[str, ...]

    def parts(self, seed: int) -> tuple[str, ...]:
        """Group of each row: its own, or its cluster."""
        if len(set(self.groups)) > 1:
            return self.groups
        from sklearn.cluster import KMeans
        from sklearn.preprocessing import StandardScaler

        scaled = StandardScaler().fit_transform(self.inputs.numpy())
        return tuple(map(str, KMeans(CLUSTERS, n_init=10, random_state=seed).fit_predict(scaled)))


@dataclass(frozen=True, eq=False)
class Fold:
    """One group left out: rows of each role, and errors and standard deviations of a forest on the judged ones."""

    group: str
    train: Float[Tensor, "train features"]
    calibration: Float[Tensor, "calibration features"]
    judged: Float[Tensor, "judged features"]
    outside: Bool[Tensor, " judged"]
    labels: Float[Tensor, " train"]
    errors: Float[Tensor, " judged"]
    stddevs: Float[Tensor, " judged"]


def specifications() -> dict[str, Any]:
    """All scores that are compared, each with its default settings."""
    return {DEFAULT: LocalDistance()} | dict(SPECIFICATIONS) | {"madml": Dissimilarity()}


def compare(
    study: Study,
    *,
    tables: Path | None,
    names: Sequence[str] | None = None,
    scores: Sequence[str] | None = None,
    seeds: int = 3,
) -> list[Record]:
    """Fill a study with the separation, precision and false alarms of each score on each table.

    Parameters
    ----------
    tables
        Folder with the wheel; without it there is only a note.
    names, scores
        Tables and scores; by default all. Those of :data:`CHEMICAL` are in no mean over tables.
    """
    known = specifications()
    every = TABLES | CHEMICAL
    for option, given, all_of in (("names", names, every), ("scores", scores, known)):
        if strange := set(given or []) - set(all_of):
            raise DataError(expected(option, f"among {', '.join(all_of)}", ", ".join(sorted(strange))))
    try:
        found = [load(name, tables) for name in names or every]
    except FileNotFoundError as error:
        study.notes.append(f"no table: {error}")
        return []
    chosen, records = {name: known[name] for name in scores or known}, []
    with study.stage("tables"), progress("tables", len(found) * seeds) as advance:
        for table in found:
            for seed in range(seeds):
                for fold in folds(table, seed):
                    records += [judged(fold, name, score, table.name, seed) for name, score in chosen.items()]
                advance()
    summarise(study, records)
    return records


def load(name: str, tables: Path | None) -> MaterialTable:
    """A table of :data:`TABLES` or :data:`CHEMICAL`.

    Raises
    ------
    FileNotFoundError
        If the wheel is not in the folder.
    """
    file, target, group = (TABLES | CHEMICAL)[name]
    inputs, targets, groups, _ = madml_columns(tables, file, target, group)
    parts = (torch.tensor(part, dtype=torch.float64) for part in (inputs, targets))
    return MaterialTable(name, *parts, tuple(groups))


def folds(table: MaterialTable, seed: int) -> Iterator[Fold]:
    """One fold for each group of enough rows."""
    parts = table.parts(seed)
    for group in sorted(set(parts)):
        left = torch.tensor([part == group for part in parts])
        if int(left.sum()) >= LEAST_OUTSIDE and int((~left).sum()) >= LEAST_INSIDE:
            yield _fold(table, group, left, seed)


def judged(fold: Fold, name: str, score: Any, table: str, seed: int) -> Record:
    """Figures of one score on one fold."""
    fitted = score.fit(fold.train)
    clock = time.process_time()
    values = fitted(fold.judged).double()
    micro = 1e6 * (time.process_time() - clock) / len(values)
    record = {"table": table, "group": fold.group, "seed": seed, "score": name, "microseconds": micro}
    record["auroc"] = float(auroc(values, fold.outside))
    for truth in truths(values, fold.errors, fold.labels, fold.stddevs):
        share = float(truth.inside.double().mean())  # where no row is inside, the gain is zero by MADML's convention
        record[f"gain_{truth.name}"] = average_precision(truth.score, truth.inside) - share if share else 0.0
    record["flagged"], record["tested"], record["power"] = _alarms(fold, fitted)
    return record


def summarise(study: Study, records: Sequence[Record]) -> None:
    """Means over folds, then seeds, then tables; standard errors are those over seeds."""
    for score in dict.fromkeys(record["score"] for record in records):
        own = [record for record in records if record["score"] == score]
        for key in ("auroc", "gain_point", "gain_error", "gain_calibration", "power"):
            _add_means(study, key, score, own)
        if tested := sum(record["tested"] for record in own):
            study.add(f"false_positive_rate_{score}", proportion(sum(r["flagged"] for r in own), tested))
        study.add(f"microseconds_{score}", max(record["microseconds"] for record in own), "µs")
    first = [record for record in records if record["score"] == records[0]["score"]]
    few = sum(record["tested"] == 0 for record in first)
    study.notes += [
        CHOICE,
        f"thresholds at level {LEVEL:g} with 95 % confidence; {few} of {len(first)} folds have too few rows for one",
        f"source: {MADML}; gains are average precision minus prevalence; standard errors are over seeds only",
    ]


def _add_means(study: Study, key: str, score: str, records: Sequence[Record]) -> None:
    """One figure a table, and the mean over the tables of :data:`TABLES`."""
    names = list(dict.fromkeys(record["table"] for record in records))
    means = {name: _over_seeds([record for record in records if record["table"] == name], key) for name in names}
    for name, (mean, error) in means.items():
        study.add(f"{key}_{score}_{name}", mean, error=error)
    used = [means[name] for name in names if name in TABLES]
    if used:
        errors = [error for _, error in used if error is not None]
        total = math.hypot(*errors) / len(used) if len(errors) == len(used) else None
        ending = "" if score == DEFAULT else f"_{score}"
        study.add(f"mean_{key}{ending}", sum(mean for mean, _ in used) / len(used), error=total)


def _fold(table: MaterialTable, group: str, left: Tensor, seed: int) -> Fold:
    rest = (~left).nonzero()[:, 0]
    rest = rest[torch.randperm(len(rest), generator=generator(seed))]
    train, calibration, test = rest.tensor_split([len(rest) * 3 // 5, len(rest) * 4 // 5])
    judged = torch.cat([test, left.nonzero()[:, 0]])
    predicted, spread = _forest(table, train, torch.cat([calibration, judged]), seed)
    residual = table.targets[torch.cat([calibration, judged])] - predicted
    count = len(calibration)
    scale = (residual[:count] / spread[:count]).square().mean().sqrt()
    return Fold(
        group,
        *(table.inputs[rows] for rows in (train, calibration, judged)),
        left[judged],
        table.targets[train],
        residual[count:],
        scale * spread[count:],
    )


def _forest(table: MaterialTable, train: Tensor, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the trees of a random forest."""
    from sklearn.ensemble import RandomForestRegressor

    state = int(numpy_generator(seed).integers(2**31))
    forest = RandomForestRegressor(TREES, random_state=state).fit(
        table.inputs[train].numpy(), table.targets[train].numpy()
    )
    inputs = table.inputs[rows].numpy()
    trees = torch.stack([torch.from_numpy(tree.predict(inputs)) for tree in forest.estimators_])
    floor = 1e-3 * table.targets[train].std()
    return trees.mean(0), trees.std(0).clamp_min(floor)


def _alarms(fold: Fold, fitted: Callable[[Tensor], Tensor]) -> tuple[int, int, float]:
    """False alarms among the rows of the domain, their number, and the fraction flagged of the left-out group."""
    try:
        domain = Domain(fitted, level=LEVEL).calibrate(fold.calibration)
    except ApplicabilityError:
        return 0, 0, math.nan
    flagged = ~domain.assess(fold.judged).inside
    usual = ~fold.outside
    return int((flagged & usual).sum()), int(usual.sum()), float(flagged[fold.outside].double().mean())


def _over_seeds(records: Sequence[Record], key: str) -> tuple[float, float | None]:
    """Mean over seeds of the mean over folds, and its standard error where there are several seeds."""
    means: dict[int, list[float]] = {}
    for record in records:
        means.setdefault(record["seed"], [])
        means[record["seed"]] += [] if math.isnan(record[key]) else [record[key]]
    values = torch.tensor([sum(found) / len(found) for found in means.values() if found], dtype=torch.float64)
    if len(values) == 0:
        return math.nan, None
    return float(values.mean()), float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
