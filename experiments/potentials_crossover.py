"""Kernel or network? Learning curves of models on the same subsets, where they cross, and what to choose."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from potentials_models import NETWORKS, fit, specification
from torch import Tensor

from bayesmol.calibration.plots import panels
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.learning_curves import LearningCurve, choose, crossover
from bayesmol.progress import progress
from bayesmol.report import Study

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "0.3")


def cross(
    study: Study,
    train: Labelled,
    test: Labelled,
    sizes: Sequence[int],
    *,
    models: Sequence[str] = ("ace", "gradient-gp"),
    seeds: int = 4,
    budget: int | None = None,
    seed: int = 0,
    **options: Any,
) -> Figure:
    """Power laws of the force errors of some models, their crossings with intervals, and the choice for a budget.

    Parameters
    ----------
    sizes
        Labels; the smaller subsets of a seed are parts of the larger ones.
    models
        By name as for the other studies; ``options`` go to :func:`potentials_models.specification`.
    budget
        Labels to choose for; the last of the sizes if omitted.
    """
    if len(models) < 2 or len(sizes) < 2 or not 2 <= sizes[0] <= sizes[-1] <= len(train):
        got = f"{len(models)} models, sizes {list(sizes)}"
        raise DataError(expected("models, sizes", f"two or more, of 2 to {len(train)} frames", got))
    curves = {}
    for model in models:
        with study.stage(model):
            curves[model] = learning_curve(model, train, test, sizes, seeds=seeds, seed=seed, **options)
        _report(study, model, curves[model])
    for first, second in combinations(models, 2):
        found = crossover(curves[first], curves[second])
        name = f"crossover_{first}_{second}"
        study.add(name, found.size)
        study.add(f"{name}_lower", float(found.interval.lower))
        study.add(f"{name}_upper", float(found.interval.upper))
        study.add(f"{name}_probability", found.probability)
        later = (first, second)[found.later]
        hole = "" if found.excluded is None else f"; none between {found.excluded[0]:.3g} and {found.excluded[1]:.3g}"
        study.notes.append(f"{first}, {second}: {found}{hole}; beyond it {later} is better; {found.interval.guarantee}")
    chosen = choose(curves, budget or sizes[-1], seed=seed)
    for model, probability in chosen.probabilities.items():
        study.add(f"probability_best_{model}", probability)
    study.notes.append(f"for {budget or sizes[-1]} labels: {chosen.name}, {chosen.guarantee}")
    return learning_curves(curves)


def learning_curve(
    model: str, train: Labelled, test: Labelled, sizes: Sequence[int], *, seeds: int, seed: int, **options: Any
) -> LearningCurve:
    """Mean absolute force errors on ``test`` after fits to the first of the shuffled frames, a row for each seed."""
    spec, errors = specification(model, **options), []
    with progress(f"learning curve of {model}", seeds * len(sizes)) as advance:
        for number in range(seed, seed + seeds):
            order = torch.randperm(len(train), generator=generator(number))
            row = []
            for size in sizes:
                row.append(_error(spec, train[order[:size]], test, number))
                advance()
            errors.append(row)
    return LearningCurve(torch.tensor(sizes, dtype=torch.float64), torch.tensor(errors, dtype=torch.float64))


def _error(spec: Any, frames: Labelled, test: Labelled, seed: int) -> float:
    """A network stops by a tenth of its frames, which count as labels."""
    validation = None
    if getattr(spec, "architecture", None) in NETWORKS:
        frames, validation = frames.split(len(frames) - max(1, len(frames) // 10), max(1, len(frames) // 10))
    found = fit(spec, frames, validation, seed=seed).predict(test.structures)
    return float((found.forces.mean - test.forces).abs().mean())


def _report(study: Study, model: str, curve: LearningCurve) -> None:
    count = len(curve.errors)
    for size, errors in zip(curve.sizes.tolist(), curve.errors.T, strict=True):
        study.add(f"force_mae_{model}_{size:g}", float(errors.mean()), "eV/Å", error=_standard_error(errors))
    study.add(f"exponent_{model}", float(-curve.lines[:, 1].mean()), error=_standard_error(curve.lines[:, 1]))
    if len(curve.sizes) > 2 and count > 1:
        study.add(f"curvature_p_value_{model}", curve.curvature_p_value)


def _standard_error(values: Tensor) -> float:
    return float(values.std() / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def learning_curves(curves: dict[str, LearningCurve]) -> Figure:
    """Errors of every seed, and the mean power laws with 90 % bands, to four times the largest size."""
    figure, axes = panels((4.2, 3.4), 1, 1)
    panel = np.ravel(axes)[0]
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        for errors in curve.errors:
            panel.plot(curve.sizes, 1000 * errors, ".", ms=4, color=colour, alpha=0.6)
        places = torch.logspace(np.log10(float(curve.sizes[0])), np.log10(4 * float(curve.sizes[-1])), 40)
        bands = [curve.predicted(float(place)) for place in places]
        lower, upper = (1000 * np.array([float(getattr(band, end)) for band in bands]) for end in ("lower", "upper"))
        panel.plot(places, np.sqrt(lower * upper), color=colour, label=name)
        if np.isfinite(upper).all():
            panel.fill_between(places, lower, upper, color=colour, alpha=0.2, lw=0)
    panel.set(xscale="log", yscale="log", xlabel="labels", ylabel="force error / meV/Å")
    panel.legend(frameon=False)
    return figure
