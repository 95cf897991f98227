"""One model on one split of a task: fitted, predicted, recalibrated, and judged beside a constant predictor."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from calibration_models import Model
from calibration_tasks import Task
from jaxtyping import Int
from torch import Tensor

from bayesmol.calibration import Conformal, crps, miscalibration_area, nll, root_mean_square_error
from bayesmol.calibration.recalibration import Recalibration
from bayesmol.errors import DataError
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Interval, Posterior
from bayesmol.report import cpu_seconds

RECALIBRATIONS = ("scale", "affine", "isotonic", "cdf")
METHODS = ("raw", *RECALIBRATIONS, "conformal")
LEVEL = 0.9


def result(task: Task, seed: int, model: Model) -> dict[str, Any]:
    """Figures of each method for one model, fitted and judged on one split of a task."""
    start = cpu_seconds()
    train, calibration, test = split(task.groups, seed)
    fitted = model.fit(task.inputs[train], task.targets[train], seed=seed, unit=task.unit)
    seconds = cpu_seconds() - start
    held_out, raw = fitted.predict(task.inputs[calibration]), fitted.predict(task.inputs[test])
    labels, groups, truth = task.targets[calibration], task.groups[calibration], task.targets[test]
    constant = constant_predictor(task.targets[train], len(truth), task.unit)
    found, missing = {"raw": judged(raw, truth, constant)}, {}
    for method in RECALIBRATIONS:
        try:
            recalibrator = Recalibration(method).fit(held_out, labels, groups=groups)
            found[method] = judged(recalibrator(raw), truth, constant)
        except DataError as error:  # too few labels for it, or a distribution that it cannot mend
            missing[method] = str(error)
    rule = Conformal("normalised", unit="structure", floor="auto").fit(held_out, labels, groups=groups)
    found["conformal"] = _interval_figures(rule.interval(raw, LEVEL), truth, constant)
    return {"methods": found, "missing": missing, "fit_cpu_seconds": round(seconds, 3)}


def split(groups: Int[Tensor, " rows"], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows for training, calibration and test, about 2 : 1 : 1; a group is in one of them."""
    count = int(groups.max()) + 1
    order = torch.randperm(count, generator=generator(seed))
    sizes = groups.bincount(minlength=count)[order]
    middles = (sizes.cumsum(0) - sizes / 2) / sizes.sum()
    part = torch.empty(count, dtype=torch.long)
    part[order] = torch.bucketize(middles, torch.tensor([0.5, 0.75]))
    return tuple((part[groups] == k).nonzero()[:, 0] for k in range(3))


def constant_predictor(targets: Tensor, rows: int, unit: str) -> Gaussian:
    """Normal distribution with the mean and the variance of the training targets, for each row."""
    return Gaussian(targets.mean().expand(rows).clone(), targets.var().expand(rows).clone(), unit=unit)


def judged(posterior: Posterior, truth: Tensor, constant: Gaussian) -> dict[str, float | None]:
    """Figures of a posterior, in units of those of the constant predictor; ``None`` for what it does not define."""
    figures: dict[str, Callable[[], Tensor]] = {
        "crps": lambda: crps(posterior, truth) / crps(constant, truth),
        "nll": lambda: nll(posterior, truth) - nll(constant, truth),
        "rmse": lambda: root_mean_square_error(posterior, truth) / root_mean_square_error(constant, truth),
        "z_mean_square": lambda: ((truth - posterior.mean).square() / posterior.variance).mean(),
        "miscalibration_area": lambda: miscalibration_area(posterior, truth),
    }
    found = {name: _finite(figure) for name, figure in figures.items()}
    return found | _interval_figures(posterior.interval(LEVEL), truth, constant)


def _interval_figures(interval: Interval, truth: Tensor, constant: Gaussian) -> dict[str, float | None]:
    width = float(interval.width.mean() / constant.interval(LEVEL).width.mean())
    return {"coverage_90": interval.covered(truth), "width_90": width if math.isfinite(width) else None}


def _finite(figure: Callable[[], Tensor]) -> float | None:
    try:
        value = float(figure())
    except DataError:  # a distribution without a density or without moments
        return None
    return value if math.isfinite(value) else None
