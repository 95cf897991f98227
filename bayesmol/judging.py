"""What ``bayesmol evaluate`` does: judge predictions from files, and draw what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesmol.calibration import Report, evaluate
from bayesmol.calibration.plots import quantities
from bayesmol.data import Labelled
from bayesmol.data.predicted import Predicted, read_predictions
from bayesmol.errors import DataError, expected
from bayesmol.files import made, replacing
from bayesmol.posterior import Prediction
from bayesmol.report import Study

__all__ = ["draw", "judge"]


def judge(study: Study, path: Path, *, unit: str = "", figures: Path | None = None) -> Study:
    """Report on the predictions in a file, one for each quantity.

    Figures are named as everywhere, ``energy_`` and ``force_`` in front where there are structures; the reports with
    intervals and references go into the settings of the JSON file under ``reports``.

    Raises
    ------
    DataError
        If the file is a model, or cannot be read as predictions.
    """
    if path.suffix == ".bm":
        raise DataError(
            expected("TEST", "labelled frames to test the model on", "none", "name a file or a bundled set")
        )
    found = read_predictions(path, unit=unit)
    study.settings["reports"] = {}
    for part in found:
        with study.stage(f"evaluate {part.name}".rstrip()):
            report = reported(part, seed=study.settings["seed"])
        _keep(study, part.name, report)
        if figures is not None:
            _save(study, report, figures / f"{part.name or 'predictions'}.png")
    return study


def reported(part: Predicted, *, seed: int) -> Report:
    """Report on one quantity, along its standard deviation, its mean and all further columns."""
    options: dict[str, Any] = {
        "groups": part.groups,
        "errors": part.errors,
        "conditions": part.conditions,
        "seed": seed,
    }
    return evaluate(part.posterior, part.truth, condition_on=("stddev", "mean"), **options)


def draw(study: Study, prediction: Prediction, labelled: Labelled, folder: Path) -> None:
    """Write the report of each quantity of a prediction as a plot."""
    for quantity in quantities(prediction, labelled):
        name = quantity.name.split()[0]
        part = Predicted(name, quantity.posterior, quantity.truth, quantity.groups)
        _save(study, reported(part, seed=study.settings["seed"]), folder / f"{name}.png")


def _keep(study: Study, name: str, report: Report) -> None:
    """Figures of the report under the names that all studies use, and the report itself as text and as data."""
    prefix = f"{name}_" if name else ""
    for statistic in report.statistics.values():
        low, high = statistic.interval
        study.add(prefix + statistic.name, statistic.value, statistic.unit, error=(high - low) / 3.92)
    study.settings["reports"][name or "predictions"] = report.to_dict()
    study.notes.append(f"{name or 'predictions'}: {report}")


def _save(study: Study, report: Report, path: Path) -> None:
    made(path.parent)
    with replacing(path) as temporary:
        report.plot().savefig(temporary, dpi=200, format="png")
    study.notes.append(f"plot: {path}")
