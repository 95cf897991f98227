"""Benchmark of models with uncertainties on frozen tasks: raw, recalibrated and conformal, with paired intervals.

A result is one task, seed and model. Results are kept in a file of JSON lines that is complete or absent at any moment,
so a study that was killed goes on where it was. A result is used again for the same data, settings and version only.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from calibration_comparison import Cell, Comparison, Values, compared, null_rate, over_tasks, pooled, ranks
from calibration_forests import ForestJackknife, ForestSpread, QuantileForest
from calibration_inference import Nuts, Variational
from calibration_models import ExactGP, Model, Ridge, SparseGP
from calibration_networks import DeepEnsemble, Dropout, LastLayerLaplace, Swag
from calibration_scoring import LEVEL, METHODS, result
from calibration_tasks import Task, available
from rich.console import Console
from rich.table import Table

from bayesmol import __version__
from bayesmol.errors import DataError, expected
from bayesmol.progress import progress
from bayesmol.report import Study, write_text

Record = dict[str, Any]

MODELS: dict[str, Model] = {
    "ridge": Ridge(),
    "exact_gp": ExactGP(),
    "sparse_gp": SparseGP(),
    "forest_spread": ForestSpread(),
    "forest_jackknife": ForestJackknife(),
    "quantile_forest": QuantileForest(),
    "deep_ensemble": DeepEnsemble(),
    "dropout": Dropout(),
    "laplace": LastLayerLaplace(),
    "swag": Swag(),
    "variational": Variational(),
    "nuts": Nuts(),
}
BASELINE = "ridge"
METRICS = {
    "crps": "CRPS / constant",
    "nll": "NLL − constant (nat)",
    "rmse": "RMSE / constant",
    "z_mean_square": "⟨z²⟩",
    "miscalibration_area": "miscal. area",
    "coverage_90": "coverage 90 %",
    "width_90": "width / constant",
}
COMPARED = ("crps", "nll", "miscalibration_area", "coverage_gap")  # less is better


def benchmark(
    study: Study,
    *,
    tables: Path | None = None,
    cache: Path | None = None,
    tasks: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    seeds: int = 5,
) -> list[Record]:
    """Fill a study with the figures of the benchmark; returns the results.

    Parameters
    ----------
    tables
        Folder with the wheels whose tables are tasks; without it these tasks are skipped, and a note says so.
    cache
        File of results that are used again and added to.
    tasks, models
        Names; by default all.
    seeds
        Number of splits, each of which also is the seed of the models.
    """
    strange = set(models or []) - set(MODELS)
    if strange:
        raise DataError(expected("--models", f"among {', '.join(MODELS)}", ", ".join(sorted(strange))))
    found, notes = available(tasks, tables)
    if not found:
        raise DataError(expected("--tasks", "at least one that can be loaded", "; ".join(notes)))
    with study.stage("study"):
        records, failures = results(found, {name: MODELS[name] for name in models or MODELS}, range(seeds), cache)
    study.notes += notes + failures + absences(records)
    study.notes += [f"{task.name}: {len(task.targets)} rows; {task.licence}; {task.citation}" for task in found]
    summarise(study, records)
    return records


def results(
    tasks: Sequence[Task], models: dict[str, Model], seeds: Iterable[int], cache: Path | None = None
) -> tuple[list[Record], list[str]]:
    """Results of all tasks, seeds and models, and a sentence on each model that failed (tried again next time)."""
    known = _read(cache)
    runs = list(product(tasks, seeds, models))
    records, failures = [], []
    with progress("benchmark", len(runs)) as advance:
        for task, seed, name in runs:
            key = _key(task, seed, name, models[name])
            if _name(key) not in known:
                try:
                    known[_name(key)] = key | result(task, seed, models[name])
                except Exception as error:  # whatever the library of a model raises, it is said and the others go on
                    failures.append(f"{name} failed on {task.name}, seed {seed}: {error}")
                else:
                    _write(cache, known)
            records += [known[_name(key)]] if _name(key) in known else []
            advance()
    return records, failures


def absences(records: Sequence[Record]) -> list[str]:
    """A sentence on each method that a task does not admit for some model."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        for method, reason in record["missing"].items():
            found.setdefault((method, record["task"], reason), []).append(record["model"])
    return [
        f"no {method} recalibration on {task} for {', '.join(dict.fromkeys(models))} ({len(models)} results): {reason}"
        for (method, task, reason), models in found.items()
    ]


def summarise(study: Study, records: Sequence[Record]) -> None:
    """Means over tasks with standard errors, ranks, paired differences, and what may be called better."""
    for (model, method), values in cells(records).items():
        for metric in METRICS:
            if values[metric]:
                study.add(f"{model}_{method}_{metric}", over_tasks(values[metric]))
    for (model, method), rank in mean_ranks(records).items():
        study.add(f"{model}_{method}_rank", over_tasks(rank))
    found = comparisons(records)
    for comparison in found:
        study.add(comparison.name, comparison.value, error=comparison.standard_error)
        study.add(f"{comparison.name}_lower", comparison.lower)
        study.add(f"{comparison.name}_upper", comparison.upper)
    study.notes += [str(comparison) for comparison in found if comparison.better]
    study.notes.append(
        "a paired difference is a mean over tasks of means over seeds, its 95 % interval that of Student over tasks; "
        f"each of the {len(found)} intervals holds for itself, without a correction for their number"
    )
    if found and max(comparison.tasks for comparison in found) > 1:
        study.add("better_rate_of_exchanged_methods", null_rate([c.gaps for c in found if c.tasks > 1], seed=0))


def cells(records: Sequence[Record]) -> dict[Cell, dict[str, Values]]:
    """Values by task and seed of each figure, for each model and method; only results that have it."""
    found: dict[Cell, dict[str, Values]] = {}
    for record in records:
        for method, figures in record["methods"].items():
            own = found.setdefault((record["model"], method), {name: {} for name in (*METRICS, "coverage_gap")})
            for metric in METRICS:
                if figures.get(metric) is not None:
                    own[metric][record["task"], record["seed"]] = figures[metric]
            own["coverage_gap"][record["task"], record["seed"]] = abs(figures["coverage_90"] - LEVEL)
    models = list(dict.fromkeys([*MODELS, *(model for model, _ in found)]))
    return {cell: found[cell] for cell in product(models, METHODS) if cell in found}


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Each method against none, for all models together and for each, and each raw model against the baseline."""
    table, found = cells(records), []
    models = list(dict.fromkeys(model for model, _ in table))
    for metric in COMPARED:
        for method in METHODS[1:]:
            pairs = [compared(table, metric, (model, method), (model, "raw")) for model in models]
            pairs = [pair for pair in pairs if pair is not None]
            found += [pooled(pairs, ("all", method), ("all", "raw")), *pairs] if pairs else []
        others = [model for model in models if model != BASELINE and BASELINE in models]
        pairs = [compared(table, metric, (model, "raw"), (BASELINE, "raw")) for model in others]
        found += [pair for pair in pairs if pair is not None]
    return found


def mean_ranks(records: Sequence[Record]) -> dict[Cell, Values]:
    """Rank by CRPS among all models and methods, by task and seed."""
    return ranks({key: values["crps"] for key, values in cells(records).items() if values["crps"]})


def table(records: Sequence[Record]) -> Table:
    """One row a model and method: mean ± standard error of each figure, and the mean rank by CRPS."""
    found = Table(title="mean over tasks (of means over seeds) ± standard error over tasks", title_justify="left")
    for title in ("model", "method", "tasks", *METRICS.values(), "rank"):
        found.add_column(title, justify="left" if title in ("model", "method") else "right", no_wrap=True)
    placed, before = mean_ranks(records), ""
    for (model, method), values in cells(records).items():
        if model != before:
            found.add_section()
        tasks = len({task for task, _ in values["coverage_90"]})
        columns = [values[metric] for metric in METRICS] + [placed.get((model, method), {})]
        found.add_row("" if model == before else model, method, str(tasks), *map(_printed, columns))
        before = model
    return found


def finish(study: Study, records: Sequence[Record], path: Path | None = None) -> None:
    """Print table, times and notes, and write the JSON file where asked for (``-``: the standard output).

    All figures, hundreds, are in the file; :meth:`bayesmol.report.Study.finish` would print them.
    """
    everything, study.figures = study.figures, {}
    console = study.console or Console(stderr=path == Path("-"))
    console.print(table(records))
    study.finish()
    study.figures = everything
    if path is not None:
        text = json.dumps(study.content(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        sys.stdout.write(text) if path == Path("-") else write_text(path, text)


def _printed(values: Values) -> str:
    if not values:
        return "–"
    value, error = (float(getattr(over_tasks(values), part)) for part in ("value", "standard_error"))
    return f"{value:.3g} ± {error:.1g}" if math.isfinite(error) else f"{value:.3g}"


def _key(task: Task, seed: int, name: str, model: Model) -> Record:
    data = {"task": task.name, "fingerprint": task.fingerprint, "seed": seed}
    return data | {"model": name, "settings": repr(model), "version": __version__}


def _name(record: Record) -> str:
    return json.dumps([record[part] for part in ("task", "fingerprint", "seed", "model", "settings", "version")])


def _read(cache: Path | None) -> dict[str, Record]:
    if cache is None or not cache.exists():
        return {}
    records = [json.loads(line) for line in cache.read_text(encoding="utf-8").splitlines()]
    return {_name(record): record for record in records}


def _write(cache: Path | None, known: dict[str, Record]) -> None:
    if cache is not None:
        write_text(cache, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in known.values()))
