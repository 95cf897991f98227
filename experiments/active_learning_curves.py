"""How many labels does acquisition save? Learning curves of chosen labels, paired with random ones of the same pool."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from active_learning_pools import TASKS, Pools, pools
from jaxtyping import Int
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator
from scipy import stats
from torch import Tensor

import bayesmol as bm
from bayesmol.acquisition import select
from bayesmol.calibration.plots import GOOD, OTHER, panels
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.parallel import parallel
from bayesmol.potentials import BayesianACE
from bayesmol.potentials.ace_learning import MixingSchedule
from bayesmol.report import Study, write_text

# Options of select for each rule; None is chance. One setting for both tasks: of log-determinants, reductions of
# variance, clusters with and without weights, and halves of random labels the best on other pools (seeds from 1000).
RULES: dict[str, dict[str, Any] | None] = {"random": None, "chosen": {"function": None, "batch": "lcmd"}}
# Channels at random, not learned: a fit costs a second, and both rules meet the same functions.
LEARNER = BayesianACE(
    cutoffs=(5.0,), channels=(8, 8, 4), degrees=(3, 3, 2), mixing=MixingSchedule(steps=0), dual_rows=800
)


@dataclass(frozen=True)
class Budget:
    """Labels at the start, in each batch, and at the end; the pools they come from."""

    start: int = 16
    batch: int = 16
    end: int = 128
    pools: Pools = field(default_factory=Pools)

    def __post_init__(self) -> None:
        if not 2 <= self.start < self.end <= self.pools.pool or (self.end - self.start) % self.batch:
            raise DataError(expected("budget", "start + batches = end, within the pool", self))


def curves(study: Study, *, folder: Path, seeds: Sequence[int] = range(5), budget: Budget | None = None) -> Figure:
    """Fill in the labels saved in both tasks, with intervals over seeds, and plot the learning curves.

    ``labels_saved_TASK`` is one minus the labels chosen over those by chance for the larger of the two last force
    errors (:func:`saved`); the labels of the first fit, which both share, count for both. What is done is kept in
    ``folder``, and a run that was killed goes on there.
    """
    budget = budget or Budget()
    with study.stage("curves"):
        found = {task: _paired(task, seeds, budget, folder) for task in TASKS}
    sizes = list(range(budget.start, budget.end + 1, budget.batch))
    for task, arms in found.items():
        pairs = list(zip(arms["chosen"], arms["random"], strict=True))
        _report(study, f"labels_saved_{task}", [saved(sizes, *pair) for pair in pairs])
        ratios = [np.log(chosen[-1] / by_chance[-1]) for chosen, by_chance in pairs]
        study.add(f"error_ratio_{task}", float(np.exp(np.mean(ratios))))
        for name, runs in arms.items():
            study.add(
                f"force_mae_{task}_{name}", float(np.mean(runs, 0)[-1]), "eV/Å", error=_error(np.array(runs)[:, -1])
            )
    study.notes.append(
        f"{len(list(seeds))} seeds, {budget.start} to {budget.end} labels in batches of {budget.batch} from "
        f"{budget.pools.pool} structures; chosen: LCMD on features; fixed channels, scales refitted each round"
    )
    return learning_curves(sizes, found)


def _paired(task: str, seeds: Sequence[int], budget: Budget, folder: Path) -> dict[str, list[list[float]]]:
    """Force errors after each batch, for each rule and seed."""
    work = [(seed, name) for seed in seeds for name in RULES]
    runs = parallel(partial(_kept, task, budget, folder), work, description=f"learning curves, {task}")
    return {name: [run for (_, of), run in zip(work, runs, strict=True) if of == name] for name in RULES}


def _kept(task: str, budget: Budget, folder: Path, run: tuple[int, str]) -> list[float]:
    """One learning curve, from a file if it was computed with these settings before."""
    seed, name = run
    settings = {
        "task": task,
        "budget": asdict(budget),
        "learner": asdict(LEARNER),
        "rule": RULES[name],
        "version": bm.__version__,
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    path = folder / "curves" / digest / f"{task}-{seed}-{name}.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    pool, test = pools(budget.pools, task, seed, folder / "labels")
    errors = curve(pool, test, RULES[name], budget, seed=seed)
    write_text(path, json.dumps(errors))
    return errors


def curve(pool: Labelled, test: Labelled, options: dict[str, Any] | None, budget: Budget, *, seed: int) -> list[float]:
    """Mean absolute force error in eV/Å on ``test`` after the first fit and after each batch."""
    source = generator(seed)
    labelled = torch.randperm(len(pool), generator=source)[: budget.start]
    errors = []
    while True:
        model = LEARNER.fit(pool[labelled], seed=seed)
        errors.append(float((model.predict(test.structures).forces.mean - test.forces).abs().mean()))
        if len(labelled) >= budget.end:
            return errors
        labelled = torch.cat([labelled, _batch(model, pool.structures, labelled, budget.batch, options, source)])


def _batch(
    model: Any,
    pool: Structures,
    labelled: Int[Tensor, " labelled"],
    size: int,
    options: dict[str, Any] | None,
    source: torch.Generator,
) -> Int[Tensor, " size"]:
    """Positions in the pool of the structures to label next, none of them labelled already."""
    rest = torch.ones(len(pool), dtype=torch.bool)
    rest[labelled] = False
    candidates = rest.nonzero().squeeze(1)
    if options is None:
        return candidates[torch.randperm(len(candidates), generator=source)[:size]]
    training = pool[labelled] if options.get("batch") in ("lcmd", "k-centre") else None
    drawn = int(torch.randint(2**31, (), generator=source))
    return candidates[select(model, pool[candidates], size, training=training, seed=drawn, **options).indices]


def saved(sizes: Sequence[int], chosen: Sequence[float], by_chance: Sequence[float]) -> float:
    """Fraction fewer labels, :math:`1 - n_c / n_r`, for the larger of the two last errors.

    A curve, linear between batches in the logarithms of labels and error, is there once it stays at or below: the
    error of a potential with random labels may rise for a while, and a lucky first fit is no success of either rule.
    """
    level = max(chosen[-1], by_chance[-1])
    needed = [_reached(np.log(sizes), np.log(errors), np.log(level)) for errors in (chosen, by_chance)]
    return float(1 - np.exp(needed[0] - needed[1]))


def _reached(places: np.ndarray, values: np.ndarray, level: float) -> float:
    """Place from which on values stay at or below the level, at which the last of them are."""
    above = np.flatnonzero(values > level)
    if not len(above):
        return float(places[0])
    last = above[-1]
    share = (values[last] - level) / (values[last] - values[last + 1])
    return float(places[last] + share * (places[last + 1] - places[last]))


def _report(study: Study, name: str, values: list[float]) -> None:
    """Mean over seeds with its standard error, and the ends of its 95 % Student interval."""
    mean, error = float(np.mean(values)), _error(values)
    half = float(stats.t.ppf(0.975, len(values) - 1) * error) if len(values) > 1 else np.inf
    study.add(name, mean, error=error)
    study.add(f"{name}_lower", mean - half)
    study.add(f"{name}_upper", mean + half)


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def learning_curves(sizes: Sequence[int], found: dict[str, dict[str, list[list[float]]]]) -> Figure:
    """Force error against labels for each task: means over seeds, with bands of one standard deviation."""
    figure, axes = panels((7.2, 3.3), 1, len(found))
    colours = {"chosen": GOOD, "random": OTHER}
    for panel, (task, arms) in zip(np.ravel(axes), found.items(), strict=True):
        for name, runs in arms.items():
            logs = 3 + np.log10(np.array(runs))
            middle, spread = logs.mean(0), logs.std(0, ddof=1) if len(runs) > 1 else 0 * logs[0]
            panel.plot(sizes, 10**middle, "o-", ms=3, color=colours[name], label=name)
            panel.fill_between(
                sizes, 10 ** (middle - spread), 10 ** (middle + spread), color=colours[name], alpha=0.2, lw=0
            )
        panel.set(xscale="log", yscale="log", xlabel="labels", title=task)
        panel.set_xticks([size for size in sizes if size & (size - 1) == 0] or sizes)
        panel.xaxis.set_minor_locator(NullLocator())
        panel.tick_params(which="both", labelsize=8)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2, 0.6)))
    np.ravel(axes)[0].set_ylabel("force error / meV/Å")
    np.ravel(axes)[0].legend(frameon=False)
    return figure
