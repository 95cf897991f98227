"""Conformal intervals and regions: do they cover what they say, and at which width."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from calibration_tasks import COLUMNS
from harness import average
from jaxtyping import Float
from scipy import stats
from torch import Tensor

import bayesmol as bm
from bayesmol.calibration import Conformal, coverage_band
from bayesmol.calibration.conformal import mapie_estimator
from bayesmol.calibration.rules import Sample
from bayesmol.calibration.vectors import ConformalRegion
from bayesmol.data import Labelled
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Interval, Posterior
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

LEVEL = 0.9
TREES = 100
DECILES = 10

# Chosen on the splits of the seeds 100 to 104, by the worst decile at a width of at most 1.07; reported are others.
CHOSEN = "out_of_bag_bins"
SPLIT = {
    "absolute": Conformal("absolute"),
    "normalised": Conformal(),
    "floor": Conformal(floor="auto"),
    "bins": Conformal(floor="auto", bins=20),
}
LEFT_OUT = {
    "out_of_bag": Conformal(source="leave-one-out", floor="auto"),
    CHOSEN: Conformal(source="leave-one-out", floor="auto", bins=20),
}

Measures = tuple[float, float, float]  # coverage, mean width, coverage of the worst decile
Split = tuple[Any, Any, Any, Any]  # inputs and targets to learn from; inputs and targets of the test


def all_atoms(
    study: Study,
    train: Labelled,
    calibration: Labelled,
    test: Labelled,
    *,
    resplits: int = 50,
    seed: int | torch.Generator = 0,
) -> None:
    """Structures of which all atoms lie in their regions: calibrated as structures, and with pooled atoms.

    Averages over random splits of the calibration and test frames into sets of these sizes, because that is what the
    level is an average over; ``_one_split`` is that of the sets as given, with its exact 99 % band as the target.
    """
    source = generator(seed)
    with study.stage("train"):
        model = bm.potentials.BayesianACE().fit(train, seed=source)
    frames, size = Labelled.concatenate([calibration, test]), len(calibration)
    with study.stage("predict"):
        posterior = model.predict(frames.structures, covariance=True).forces
    orders = [torch.arange(len(frames))] + [torch.randperm(len(frames), generator=source) for _ in range(resplits)]
    with study.stage("split"), progress("splits", len(orders)) as advance:
        found = []
        for order in orders:
            found.append(_atoms(posterior, frames, order[:size].sort().values, order[size:].sort().values))
            advance()
    for name in found[0]:
        mean = sum(one[name] for one in found[1:]) / resplits
        covered = proportion(round(mean * len(frames)), len(frames)) if "coverage" in name else mean
        study.add(name, covered)
    low, high = coverage_band(size, len(test), LEVEL)
    study.expectations = {**study.expectations, "all_atoms_coverage_one_split": {"lower": low, "upper": high}}
    study.add("all_atoms_coverage_one_split", found[0]["all_atoms_coverage"])


def _atoms(posterior: Posterior, frames: Labelled, old: Tensor, new: Tensor) -> dict[str, float]:
    """Coverage of random atoms and of whole structures, and volumes, with the structures ``old`` as calibration."""
    owner = frames.structures.structure_index
    known, ahead = (posterior[torch.isin(owner, rows).nonzero()[:, 0]] for rows in (old, new))
    calibration, test = frames[old], frames[new]
    groups, found = test.structures.structure_index, {}
    for shape in ("ball", "ellipsoid"):
        rules = {
            "": ConformalRegion(shape, simultaneous=True).fit(known, calibration),
            "_per_atom": ConformalRegion(shape).fit(known, calibration),
            "_pooled": ConformalRegion(shape).fit(known, calibration.forces),  # each atom as if one of its own
        }
        for name, rule in rules.items():
            region = rule.region(ahead, LEVEL)
            hits = torch.zeros(len(test), dtype=torch.float64)
            hits.index_add_(0, groups, region.contains(test.forces).double())
            suffix = name if shape == "ball" else f"_{shape}{name}"
            found[f"all_atoms_coverage{suffix}"] = float((hits == test.structures.counts).double().mean())
            found[f"atom_coverage{suffix}"] = float((hits / test.structures.counts).mean())
            if name == "_per_atom":
                box = _box_volume(known, calibration, ahead)
                found[f"volume_{shape}_over_box"] = float((region.volume / box).double().mean())
    return found


def superconductors(study: Study, tables: Path, *, seeds: Iterable[int] = range(5)) -> None:
    """Critical temperatures by a random forest: coverage of the decile with the worst, and mean width in std(y).

    ``*_perfect``: what intervals show whose coverage is the level at every point, because the worst of ten is chosen.
    """
    rows = _columns("superconductor", tables)
    found = _over_seeds(study, rows, seeds, "superconductors")
    for rule, measures in found.items():
        for name, column in zip(("table_coverage", "relative_width", "worst_decile_coverage"), measures.T, strict=True):
            study.add(f"{name}_{rule}", average(column))
            if rule == CHOSEN:
                study.add(name, average(column))
    test = len(rows[1]) - 3 * len(rows[1]) // 4
    study.add("worst_decile_coverage_perfect", worst_of_perfect(test))


def widths(study: Study, tables: Path, *, names: Iterable[str] = ("steel",), seeds: Iterable[int] = range(5)) -> None:
    """Largest mean width over the seeds, in mean widths of intervals of absolute scores; it should never exceed 3."""
    for name in names:
        found = _over_seeds(study, _columns(name, tables), seeds, name)
        for rule in ("normalised", "floor", "mapie_normalised", "mapie_residual"):
            ratio = float((found[rule][:, 1] / found["absolute"][:, 1]).max())
            study.add(f"width_ratio_{name}_{rule}", ratio)


def worst_of_perfect(points: int, parts: int = DECILES, level: float = LEVEL) -> float:
    """Expectation of the least coverage of ``parts`` parts of the points, each point covered with probability level."""
    sizes = np.array([len(part) for part in np.array_split(np.arange(points), parts)])
    values = np.unique(np.concatenate([np.arange(size + 1) / size for size in np.unique(sizes)]))
    hits = np.ceil(values[1:, None] * sizes - 1e-9)
    return float((np.diff(values) * stats.binom(sizes, level).sf(hits - 1).prod(1)).sum())


def worst_decile(inside: Any, stddev: Any) -> float:
    """Least coverage of the tenths of the points in the order of their predicted standard deviation."""
    order = np.argsort(stddev, kind="stable")
    return float(min(part.mean() for part in np.array_split(np.asarray(inside)[order], DECILES)))


def _over_seeds(study: Study, rows: tuple[Any, Any], seeds: Iterable[int], name: str) -> dict[str, Tensor]:
    """Measures of each rule, one row a seed."""
    seeds = list(seeds)
    with study.stage(name), progress(name, len(seeds)) as advance:
        found = []
        for seed in seeds:
            found.append(outcomes(*rows, seed))
            advance()
    return {rule: torch.tensor([one[rule] for one in found], dtype=torch.float64) for rule in found[0]}


def outcomes(inputs: Any, targets: Any, seed: int) -> dict[str, Measures]:
    """Measures of all rules on one random split: half to train, a quarter to calibrate, a quarter to test."""
    order, count = np.random.default_rng(seed).permutation(len(targets)), len(targets)
    train, calibration, test = np.split(order, [count // 2, 3 * count // 4])
    x, y, scale = inputs[test], torch.from_numpy(targets[test]), float(targets.std())

    def measured(posterior: Gaussian, interval: Interval) -> Measures:
        inside = interval.contains(y).numpy()
        return inside.mean(), float(interval.width.mean()) / scale, worst_decile(inside, posterior.stddev.numpy())

    forest = _forest(inputs[train], targets[train], seed)
    known, ahead = _spread(forest, inputs[calibration]), _spread(forest, x)
    labels = torch.from_numpy(targets[calibration])
    found = {name: measured(ahead, rule.fit(known, labels).interval(ahead, LEVEL)) for name, rule in SPLIT.items()}
    for name, interval in _mapie(forest, inputs[calibration], targets[calibration], x):
        found[name] = measured(ahead, interval)
    # Out of bag, the calibration rows can be learned from too.
    both = np.concatenate([train, calibration])
    forest = _forest(inputs[both], targets[both], seed)
    known, ahead = _out_of_bag(forest, inputs[both]), _spread(forest, x)
    labels = torch.from_numpy(targets[both])
    return found | {n: measured(ahead, r.fit(known, labels).interval(ahead, LEVEL)) for n, r in LEFT_OUT.items()}


def _columns(name: str, tables: Path) -> tuple[Any, Any]:
    inputs, targets, _, _ = COLUMNS[name](tables)
    return np.asarray(inputs, dtype=np.float64), np.asarray(targets, dtype=np.float64)


def _forest(inputs: Any, targets: Any, seed: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(TREES, random_state=seed).fit(inputs, targets)


def _spread(forest: Any, inputs: Any) -> Gaussian:
    """Mean and variance over the trees."""
    values = torch.from_numpy(np.stack([tree.predict(inputs) for tree in forest.estimators_]))
    return Gaussian(values.mean(0), values.var(0, correction=0), unit="")


def _out_of_bag(forest: Any, inputs: Any) -> Gaussian:
    """Mean and variance over the trees that have not seen the row."""
    total = torch.zeros(3, len(inputs), dtype=torch.float64)
    for tree, seen in zip(forest.estimators_, forest.estimators_samples_, strict=True):
        unseen = np.setdiff1d(np.arange(len(inputs)), seen)
        values = torch.from_numpy(tree.predict(inputs[unseen]))
        total[:, unseen] += torch.stack([torch.ones_like(values), values, values.square()])
    count, first, second = total
    mean = first / count
    return Gaussian(mean, (second / count - mean.square()).clamp_min(0.0), unit="")


def _mapie(forest: Any, inputs: Any, targets: Any, test: Any) -> Iterator[tuple[str, Interval]]:
    """Split conformal intervals of MAPIE around the same forest."""
    from mapie.conformity_scores import AbsoluteConformityScore, ResidualNormalisedScore, StdConformityScore
    from mapie.regression import SplitConformalRegressor

    model = mapie_estimator(partial(_spread, forest))
    scores = {"absolute": AbsoluteConformityScore(), "normalised": StdConformityScore()}
    scores["residual"] = ResidualNormalisedScore(random_state=0)
    for name, score in scores.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of its own internals
            peer = SplitConformalRegressor(model, confidence_level=LEVEL, conformity_score=score, prefit=True)
            _, ends = peer.conformalize(inputs, targets).predict_interval(test)
        lower, upper = torch.from_numpy(np.sort(ends[:, :, 0], axis=1)).T
        yield f"mapie_{name}", Interval(lower, upper, LEVEL, "", "MAPIE")


def _box_volume(known: Posterior, calibration: Labelled, ahead: Posterior) -> Float[Tensor, " atoms"]:
    """Volumes of cubes, the largest standardised component as the score, for a random atom of a new structure."""
    scale = known.variance.mean(1).sqrt()
    scores = (calibration.forces - known.mean).abs().amax(1) / scale
    radius = Sample.of(scores, calibration.structures.structure_index, "component").radius(LEVEL)
    return (2 * radius * ahead.variance.mean(1).sqrt()) ** 3
