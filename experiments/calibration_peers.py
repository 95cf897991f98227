"""The report against the metrics of other packages: same numbers, same threads, in turns; values where both have them.

A peer that is not installed is said to be missing; nothing stands in for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import Tensor

from bayesmol.calibration import Conformal, evaluate
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian
from bayesmol.progress import progress
from bayesmol.report import Study, cpu_seconds

BINS = 20
LEVEL = 0.9
Figures = dict[str, float]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Normal predictions and labels that are 10 % wider spread than predicted.

    The standard deviations are evenly spaced, so that bins with equally many entries are bins of equal width.
    """

    mean: Float[Tensor, " rows"]
    stddev: Float[Tensor, " rows"]
    truth: Float[Tensor, " rows"]

    @classmethod
    def simulated(cls, rows: int, seed: int) -> Pairs:
        """That many independent rows."""
        source = generator(seed)
        mean, normal = torch.randn(2, rows, generator=source, dtype=torch.float64)
        stddev = torch.linspace(0.5, 1.5, rows, dtype=torch.float64)[torch.randperm(rows, generator=source)]
        return cls(mean, stddev, mean + 1.1 * stddev * normal)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mean, standard deviation and label for NumPy."""
        return self.mean.numpy(), self.stddev.numpy(), self.truth.numpy()

    @property
    def halves(self) -> tuple[Pairs, Pairs]:
        """For calibration and for new labels."""
        half = len(self.mean) // 2
        return self[:half], self[half:]

    def __getitem__(self, rows: slice) -> Pairs:
        return Pairs(self.mean[rows], self.stddev[rows], self.truth[rows])

    @property
    def posterior(self) -> Gaussian:
        """The predictions."""
        return Gaussian(self.mean, self.stddev.square(), unit="")


def report(pairs: Pairs) -> Figures:
    """The report of this package, with intervals and the simulated reference of each statistic."""
    found = evaluate(pairs.posterior, pairs.truth).statistics
    names = ("mae", "rmse", "nll", "crps", "miscalibration_area", "calibration_error")
    return {name: found[name].value for name in names}


def conformal(pairs: Pairs) -> Figures:
    """Normalised split conformal intervals of this package."""
    calibration, new = pairs.halves
    interval = Conformal("normalised").fit(calibration.posterior, calibration.truth).interval(new.posterior, LEVEL)
    return {"lower": float(interval.lower.sum()), "upper": float(interval.upper.sum())}


def uncertainty_toolbox(pairs: Pairs) -> Figures:
    """All metrics of the Uncertainty Toolbox (Chung et al., arXiv:2109.10254)."""
    from uncertainty_toolbox.metrics import get_all_metrics

    found = get_all_metrics(*pairs.arrays, verbose=False)
    names = {"mae": "accuracy", "rmse": "accuracy", "nll": "scoring_rule", "crps": "scoring_rule"}
    figures = {name: float(found[group][name]) for name, group in names.items()}
    return figures | {"miscalibration_area": float(found["avg_calibration"]["miscal_area"])}


def netcal(pairs: Pairs) -> Figures:
    """Expected normalised calibration error of net:cal (Küppers et al.), one of the statistics of the report."""
    from netcal.metrics.regression import ENCE

    mean, stddev, truth = pairs.arrays
    return {"calibration_error": float(np.squeeze(ENCE(BINS).measure((mean, stddev), truth)))}


def crepes(pairs: Pairs) -> Figures:
    """Normalised conformal intervals of crepes (Boström, COPA 2022)."""
    from crepes import ConformalRegressor

    calibration, new = pairs.halves
    mean, stddev, truth = calibration.arrays
    regressor = ConformalRegressor().fit(truth - mean, sigmas=stddev)
    ends = regressor.predict_int(new.mean.numpy(), sigmas=new.stddev.numpy(), confidence=LEVEL)
    return {"lower": float(ends[:, 0].sum()), "upper": float(ends[:, 1].sum())}


SIDES: dict[str, Callable[[Pairs], Figures]] = {"report": report, "conformal": conformal}
PEERS: dict[str, tuple[Callable[[Pairs], Figures], str]] = {
    "uncertainty_toolbox": (uncertainty_toolbox, "report"),
    "netcal": (netcal, "report"),
    "crepes": (crepes, "conformal"),
}
SAME_WORK = ("uncertainty_toolbox", "crepes")  # netcal is called for one statistic of the report, for its value


def measure(study: Study, *, rows: int = 10_000, repeats: int = 3, threads: int = 1, seed: int = 0) -> None:
    """Fill a study with CPU seconds (medians of turns), their ratios, and the largest relative difference of values."""
    pairs = Pairs.simulated(rows, seed)
    sides = SIDES | {name: peer for name, (peer, _) in PEERS.items()}
    with study.stage("all sides"):
        times, figures, missing = in_turns(sides, pairs, repeats, threads)
    study.notes += [f"{name} is missing, nothing stands in for it: {why}" for name, why in missing.items()]
    for name, seconds in times.items():
        study.add(f"{name}_cpu_seconds", seconds, "s")
    for name in [name for name in PEERS if name in figures]:
        own = PEERS[name][1]
        if name in SAME_WORK:
            study.add(f"ratio_to_{name}", times[own] / times[name])
        for figure, value in figures[name].items():
            study.add(f"{name}_{figure}_difference", abs(figures[own][figure] - value) / abs(value))
    study.notes.append(
        f"{rows} labels; a ratio is the CPU time of this package by that of the peer, on {threads} threads"
    )
    study.notes.append("a difference is relative; the area of uncertainty-toolbox is a sum over a grid of 100 levels")


def in_turns(
    sides: dict[str, Callable[[Pairs], Figures]], pairs: Pairs, repeats: int, threads: int
) -> tuple[dict[str, float], dict[str, Figures], dict[str, str]]:
    """Median CPU seconds and figures of the sides that are installed, and why the others are missing."""
    times: dict[str, list[float]] = {}
    figures: dict[str, Figures] = {}
    missing: dict[str, str] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads), progress("comparing", repeats * len(sides)) as advance:
            for turn in range(repeats):
                for name, side in sides.items():
                    try:
                        if turn == 0:
                            side(pairs[:200])  # imports and compilation are no part of the time
                        start = cpu_seconds()
                        figures[name] = side(pairs)
                        times.setdefault(name, []).append(cpu_seconds() - start)
                    except ImportError as error:
                        missing[name] = str(error)
                    advance()
    finally:
        torch.set_num_threads(before)
    return {name: median(seconds) for name, seconds in times.items()}, figures, missing
