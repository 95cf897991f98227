"""Cross-validated conformal intervals: what they cost, that they are MAPIE's, and where the plain jackknife fails."""

import math
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
import torch
from harness import average
from threadpoolctl import threadpool_limits
from torch import Tensor

from bayesmol.calibration.cross import CrossConformal, fold_of_each_group
from bayesmol.calibration.jackknife import Jackknife
from bayesmol.calibration.regressors import Ridge
from bayesmol.inference.random import generator, numpy_generator
from bayesmol.posterior import Interval
from bayesmol.progress import progress
from bayesmol.report import Study, cpu_seconds

LEVEL = 0.9
FEATURES = 10


def measure(
    study: Study,
    *,
    rows: int = 100_000,
    points: int = 2000,
    folds: int = 10,
    shared_rows: int = 10_000,
    trials: int = 200,
    repeats: int = 3,
    threads: int = 1,
    full: bool = False,
    seed: int = 0,
) -> None:
    """Cost of CV+ at ``rows`` rows, equality with MAPIE and ratio to it, and the jackknife without a guarantee.

    Parameters
    ----------
    rows, points, folds
        Of the large run: training rows, test points, folds.
    shared_rows
        Of the run in which MAPIE predicts all points too.
    trials
        Data sets for the coverage of the jackknife.
    repeats
        Turns of each side; CPU seconds are medians.
    full
        Whether MAPIE predicts all points in the large run too, which takes gigabytes, and not a tenth of them.
    """
    torch.set_num_threads(threads)
    study.packages = (*study.packages, "scikit-learn")
    study.expectations = _targets(rows, points) | dict(study.expectations)
    with threadpool_limits(threads), study.stage("cross-validation"):
        large = friedman(rows, points, seed=seed)  # first, while no other run has left memory behind
        _large(study, large, folds, repeats, points if full else max(1, points // 10), seed)
        shared = friedman(shared_rows, points, seed=seed)
        _peers(study, shared, folds, repeats, seed)
    with threadpool_limits(threads), study.stage("jackknife"):
        jackknives(study, trials=trials, seed=seed)


def friedman(rows: int, points: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Friedman's function of ten inputs with noise that grows with the first: training inputs, labels, and new ones."""
    source = numpy_generator(seed)
    x = source.uniform(size=(rows + points, FEATURES))
    y = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    y += (0.5 + 2 * x[:, 0]) * source.normal(size=len(x))
    inputs, truth = torch.from_numpy(x), torch.from_numpy(y)
    return inputs[:rows], truth[:rows], inputs[rows:], truth[rows:]


def ours(data: tuple[Tensor, ...], folds: int, seed: int) -> Interval:
    """CV+ interval of the package, fits included."""
    inputs, truth, new, _ = data
    return CrossConformal(folds).fit(Ridge(), inputs, truth, seed=seed).interval(new, LEVEL)


def theirs(data: tuple[Tensor, ...], folds: int, seed: int, points: int) -> tuple[Tensor, Tensor, tuple[float, float]]:
    """CV+ interval of MAPIE on the same folds, its ends, and the CPU seconds of the fit and of the prediction."""
    from mapie.regression import CrossConformalRegressor
    from sklearn.linear_model import Ridge as Peer
    from sklearn.model_selection import PredefinedSplit

    inputs, truth, new, _ = (part.numpy() for part in data)
    split = PredefinedSplit(fold_of_each_group(torch.arange(len(truth)), folds, seed=seed).numpy())
    start = cpu_seconds()
    peer = CrossConformalRegressor(Peer(), confidence_level=LEVEL, cv=split).fit_conformalize(inputs, truth)
    fitted = cpu_seconds()
    _, ends = peer.predict_interval(new[:points])
    times = fitted - start, cpu_seconds() - fitted
    return torch.from_numpy(ends[:, 0, 0]), torch.from_numpy(ends[:, 1, 0]), times


def jackknives(study: Study, *, size: int = 100, points: int = 100, trials: int = 200, seed: int = 0) -> None:
    """Coverage of the jackknives for least squares with as many coefficients as rows, noise 1 and signal √10.

    The setting is that of Barber, Candès, Ramdas, Tibshirani, Ann. Stat. 49, 486 (2021), section 7.1.
    """
    source = generator(seed)
    covered: dict[str, list[float]] = {"plain": [], "plus": []}
    with progress("jackknife", trials) as advance:
        for _ in range(trials):
            inputs, truth, new, label = least_squares(size, points, source)
            for method, found in covered.items():
                rule = Jackknife(method).fit(Ridge(0.0, intercept=False), inputs, truth)
                found.append(rule.interval(new, LEVEL).covered(label))
            advance()
    for method, found in covered.items():
        name = "jackknife_coverage" if method == "plain" else f"jackknife_{method}_coverage"
        study.add(name, average(torch.tensor(found)))
    study.notes.append(f"jackknife_plus: {rule.guarantee(LEVEL)}")


def least_squares(size: int, points: int, source: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A linear function of as many normal inputs as rows, with normal noise."""
    inputs = torch.randn(size + points, size, generator=source, dtype=torch.float64)
    weights = torch.randn(size, generator=source, dtype=torch.float64)
    noise = torch.randn(size + points, generator=source, dtype=torch.float64)
    truth = inputs @ (weights * math.sqrt(10) / weights.norm()) + noise
    return inputs[:size], truth[:size], inputs[size:], truth[size:]


def extra_memory_mb(run: Callable[[], object]) -> float:
    """Largest resident memory during ``run`` above that before it, in MB; NaN where the system does not tell."""
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the largest so far
        before = _status_mb(status, "VmRSS")
        run()
        return _status_mb(status, "VmHWM") - before
    except (OSError, KeyError):
        run()
        return math.nan


def _status_mb(path: Path, name: str) -> float:
    fields = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(fields[name].split()[0]) * 1024 / 1e6


def _timed(run: Callable[[], Interval], repeats: int) -> tuple[Interval, float]:
    times = []
    for _ in range(repeats):
        start = cpu_seconds()
        found = run()
        times.append(cpu_seconds() - start)
    return found, median(times)


def _peers(study: Study, data: tuple[Tensor, ...], folds: int, repeats: int, seed: int) -> None:
    size, points = _label(len(data[1])), len(data[3])
    interval, mine = _timed(lambda: ours(data, folds, seed), repeats)
    turns = [theirs(data, folds, seed, points) for _ in range(repeats)]
    lower, upper, _ = turns[0]
    cost = median(sum(times) for *_, times in turns)
    gap = torch.maximum((interval.lower - lower).abs().max(), (interval.upper - upper).abs().max())
    study.add("cvplus_difference_to_mapie", float(gap))
    study.add(f"cvplus_cpu_seconds_{size}", mine, "s")
    study.add(f"mapie_cpu_seconds_{size}", cost, "s")
    study.add(f"ratio_to_mapie_{size}", mine / cost)


def _large(study: Study, data: tuple[Tensor, ...], folds: int, repeats: int, points: int, seed: int) -> None:
    size, every = _label(len(data[1])), len(data[3])
    memory = extra_memory_mb(lambda: ours(data, folds, seed))
    interval, mine = _timed(lambda: ours(data, folds, seed), repeats)
    study.add(f"cvplus_cpu_seconds_{size}", mine, "s")
    study.add(f"cvplus_extra_memory_mb_{size}", memory, "MB")
    study.add("cvplus_coverage", interval.covered(data[3]))
    *_, (fit, predict) = theirs(data, folds, seed, points)
    study.add(f"mapie_cpu_seconds_{size}", fit + predict * every / points, "s")
    study.add("ratio_to_mapie", mine / (fit + predict * every / points))
    scaled = "" if points == every else f"; its prediction of {points} points was scaled to {every}"
    study.notes.append(f"MAPIE {version('mapie')} on the same data, folds and threads{scaled}")
    study.notes.append(f"CV+: {interval.guarantee}")


def _targets(rows: int, points: int) -> dict[str, dict[str, float]]:
    """Targets of the figures that have one."""
    targets = {
        "cvplus_difference_to_mapie": {"upper": 1e-12},
        "jackknife_coverage": {"upper": 0.7},
        "jackknife_plus_coverage": {"lower": 2 * LEVEL - 1},
    }
    if (rows, points) == (100_000, 2000):
        targets |= {"cvplus_cpu_seconds_1e5": {"upper": 0.3}, "cvplus_extra_memory_mb_1e5": {"upper": 300}}
    return targets


def _label(count: int) -> str:
    """A count as in the names of figures: 1e5."""
    return f"{count:.0e}".replace("e+0", "e").replace("e+", "e")
