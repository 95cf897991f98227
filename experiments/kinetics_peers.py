"""The same trajectories by bayesmol and by deeptime: whose intervals of timescales hold, and what they cost."""

from __future__ import annotations

import importlib.util
import time

import kinetics_coverage
import numpy as np
from harness import relative_width

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.errors import DependencyError
from bayesmol.progress import progress
from bayesmol.report import Study, proportion

__all__ = ["peers"]

Ends = tuple[np.ndarray, np.ndarray]


def peers(study: Study, *, name: str, repeats: int, frames: int, lag: int, count: int, draws: int, seed: int) -> None:
    """Fill in coverage, width and CPU seconds of 95 % intervals of the timescales of Markov state models.

    deeptime runs as its documentation says: effective counts, then draws of reversible matrices. The width is over
    3.92 times the standard deviation of the estimates of that package.

    Raises
    ------
    DependencyError
        If deeptime is not installed.
    """
    if importlib.util.find_spec("deeptime") is None:
        raise DependencyError.extra("deeptime", "deeptime")
    case = kinetics_coverage.CASES[name]
    landscape, chain = kinetics_coverage.simulated(case)
    cells = kinetics_coverage.states(case, chain.points).parts[0]
    truth = kinetics_coverage.eigenvalues(chain.transition_matrix(cells, lag))[:count]
    runs = landscape.simulate(frames, trajectories=repeats, step=case.step, steps=case.steps, seed=seed)
    found: dict[str, list[Ends]] = {"ours": [], "deeptime": []}
    clocks = dict.fromkeys(found, 0.0)
    with study.stage(name), progress("data sets", repeats) as advance:
        for k, run in enumerate(runs):
            data = kinetics_coverage.states(case, run)
            for package, method in {"ours": _ours, "deeptime": _deeptime}.items():
                start = time.process_time()
                found[package].append(method(data, lag, count, draws, seed + k))
                clocks[package] += (time.process_time() - start) / repeats
            advance()
    _summarise(study, found, clocks, (-lag / truth.log()).numpy())


def _ours(data: Trajectories, lag: int, count: int, draws: int, seed: int) -> Ends:
    interval = MarkovStateModel(lag=lag, draws=draws).fit(data, seed=seed).timescales(count).interval(0.95)
    return interval.lower.numpy(), interval.upper.numpy()


def _deeptime(data: Trajectories, lag: int, count: int, draws: int, seed: int) -> Ends:
    from deeptime.markov import TransitionCountEstimator
    from deeptime.markov.msm import BayesianMSM

    np.random.seed(seed)
    counts = TransitionCountEstimator(lag, "effective").fit_fetch(data.parts[0].numpy()).submodel_largest()
    found = BayesianMSM(n_samples=draws).fit_fetch(counts)
    statistics = found.gather_stats("timescales", k=count)
    return np.asarray(statistics.L), np.asarray(statistics.R)


def _summarise(study: Study, found: dict[str, list[Ends]], clocks: dict[str, float], truth: np.ndarray) -> None:
    for package, results in found.items():
        end = "" if package == "ours" else f"_{package}"
        lower, upper = (np.stack(part) for part in zip(*results, strict=True))
        inside = (lower <= truth) & (truth <= upper)
        study.add(f"coverage_95{end}", proportion(int(inside.sum()), inside.size))
        for k in range(len(truth)):
            study.add(f"coverage_95{end}_t{k + 1}", proportion(int(inside[:, k].sum()), len(inside)))
        study.add(f"relative_width{end}", relative_width((lower + upper) / 2, lower, upper))
        study.add(f"msm_cpu_seconds{end}", clocks[package], "s")
    study.add("ratio_to_deeptime", clocks["deeptime"] / clocks["ours"])
    study.notes.append("timescales: " + ", ".join(f"{value:.4g}" for value in truth) + " frames")
