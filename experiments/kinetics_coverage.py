"""Do intervals of timescales hold the true ones? Diffusions on landscapes whose spectra are known, many times over.

The truth of an estimator at a lag is what it would give from endless data: the spectrum of the simulated chain as seen
by its states or functions at this lag. How far that is from the timescales of the chain itself is a figure of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from harness import relative_width
from torch import Tensor

from bayesmol.data.exact import Landscape, double_well, prinz, quadruple_well, triple_well
from bayesmol.data.exact_spectra import ExactChain, euler_chain
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.koopman import FittedKoopman
from bayesmol.dynamics.linear import TICA
from bayesmol.dynamics.markov_state_model import FittedMarkovStateModel, MarkovStateModel
from bayesmol.errors import ConvergenceError
from bayesmol.parallel import parallel
from bayesmol.report import Study, proportion
from bayesmol.representation.basis import Monomials

__all__ = ["CASES", "Case", "coverage"]

LEVEL = 0.95
RESOLVED = 0.05  # eigenvalues at the lag below which a process is over within the lag


@dataclass(frozen=True)
class Case:
    """A landscape, how it is simulated, and into how many cells each axis is cut."""

    landscape: Callable[[], Landscape]
    step: float
    steps: int
    cells: tuple[int, ...]
    ends: tuple[float, ...]  # of the cells, along each axis from minus to plus
    resolution: float = 3.0


CASES = {
    "prinz": Case(prinz, 1e-3, 5, (30,), (1.2,)),
    "double_well": Case(double_well, 1e-3, 50, (20,), (1.6,)),
    "triple_well": Case(triple_well, 1e-3, 50, (20,), (1.9,)),
    "quadruple_well": Case(quadruple_well, 2e-2, 3, (6, 6), (1.8, 1.9), 2.0),
}
ESTIMATORS = ("markov", "tica")

Fitted = FittedMarkovStateModel | FittedKoopman


def coverage(
    study: Study, *, repeats: int, frames: int, lags: Sequence[int], only: Sequence[str] = (), draws: int, seed: int = 0
) -> None:
    """Fill in coverage and relative widths of intervals of up to three timescales, for each landscape and lag."""
    names = [name for name in CASES if name in (only or CASES)]
    found: dict[str, Any] = {}
    for name in names:
        with study.stage(name):
            landscape, case = _simulated(name)[0], CASES[name]
            runs = landscape.simulate(frames, trajectories=repeats, step=case.step, steps=case.steps, seed=seed)
            work = partial(_repeat, name, tuple(lags), draws)
            items = [(seed + k, run) for k, run in enumerate(runs)]
            for trials in parallel(work, items, description=f"coverage, {name}"):
                for (kind, lag), trial in trials.items():
                    found.setdefault(f"{name}_{kind}_lag{lag}", []).append(trial)
    _summarise(study, found)


_TRUTHS: dict[tuple[str, str, int], Tensor] = {}  # of this process: they depend on the functions, not on the data


def _repeat(name: str, lags: tuple[int, ...], draws: int, item: tuple[int, Tensor]) -> dict[tuple[str, int], Any]:
    """Both estimators at all lags on one run; ``None`` where an estimator refuses."""
    seed, run = item
    found: dict[tuple[str, int], Any] = {}
    for kind, lag in itertools.product(ESTIMATORS, lags):
        try:
            fitted, values = _fit(kind, CASES[name], run, lag, draws, seed)
        except ConvergenceError:
            found[kind, lag] = None
        else:
            if (name, kind, lag) not in _TRUTHS:
                _TRUTHS[name, kind, lag] = _truth(fitted, CASES[name], _simulated(name)[1], lag)
            found[kind, lag] = _trial(fitted, values, _TRUTHS[name, kind, lag], lag)
    return found


@cache
def _simulated(name: str) -> tuple[Landscape, ExactChain]:
    return simulated(CASES[name])


def _fit(kind: str, case: Case, run: Tensor, lag: int, draws: int, seed: int) -> tuple[Fitted, Tensor]:
    """Estimator and its eigenvalues without the first."""
    if kind == "markov":
        fitted = MarkovStateModel(lag=lag, draws=draws).fit(states(case, run), seed=seed)
        return fitted, eigenvalues(fitted.transition_matrix)
    fitted = TICA(lag=lag, basis=Monomials(5 if run.shape[1] == 1 else 3), draws=draws).fit(run, seed=seed)
    return fitted, fitted.estimate.values[1:]


def _truth(fitted: Fitted, case: Case, chain: ExactChain, lag: int) -> Tensor:
    """Eigenvalues of the simulated chain through the states or functions of an estimator."""
    if isinstance(fitted, FittedMarkovStateModel):
        return eigenvalues(chain.transition_matrix(states(case, chain.points).parts[0], lag))
    functions = fitted.basis(chain.points)
    constant = functions.new_ones(len(functions), 0 if fitted.basis.constant else 1)
    return eigenvalues(chain.koopman_matrix(torch.cat([constant, functions], 1), lag))


def _trial(fitted: Fitted, values: Tensor, truth: Tensor, lag: int) -> tuple[np.ndarray, ...]:
    """Truth, estimate, lower and upper end for the processes that last beyond the lag."""
    count = min(int((truth > RESOLVED).sum()), 3, len(values))
    interval = fitted.timescales(count).interval(LEVEL)
    times = [(-lag / part[:count].abs().log()).numpy() for part in (truth, values)]
    return times[0], times[1], interval.lower.numpy(), interval.upper.numpy()


def eigenvalues(operator: Tensor) -> Tensor:
    """Real eigenvalues from the largest on, without the one of the constant function."""
    return torch.linalg.eigvals(operator).real.sort(descending=True).values[1:]


def simulated(case: Case) -> tuple[Landscape, ExactChain]:
    """The landscape, and the chain of frames that its simulation is."""
    landscape, steps = case.landscape(), {"step": case.step, "steps": case.steps}
    return landscape, euler_chain(landscape, **steps, breaks=borders(case), resolution=case.resolution)


def borders(case: Case) -> list[np.ndarray]:
    pairs = zip(case.cells, case.ends, strict=True)
    return [np.linspace(-end, end, count + 1)[1:-1] for count, end in pairs]


def states(case: Case, x: Tensor) -> Trajectories:
    """Cell of each point; those beyond the ends belong to the last cells."""
    cell = torch.zeros(len(x), dtype=torch.long)
    for axis, inner in enumerate(borders(case)):
        cell = cell * case.cells[axis] + torch.bucketize(x[:, axis].contiguous(), torch.from_numpy(inner))
    return Trajectories.of(cell)


def _summarise(study: Study, found: dict[str, Any]) -> None:
    hits = trials = 0
    widths = []
    for name, results in found.items():
        given = [one for one in results if one is not None]
        if len(given) < len(results):
            study.add(f"refused_fraction_{name}", proportion(len(results) - len(given), len(results)))
        if not given:
            continue
        truth, value, lower, upper = (np.stack(part) for part in zip(*given, strict=True))
        inside = (lower <= truth) & (truth <= upper)
        for k in range(truth.shape[1]):
            study.add(f"coverage_95_{name}_t{k + 1}", proportion(int(inside[:, k].sum()), len(inside)))
            if len(given) > 1:
                ratio = relative_width(value[:, k], lower[:, k], upper[:, k], level=LEVEL)
                study.add(f"relative_width_{name}_t{k + 1}", ratio, error=ratio / np.sqrt(2 * len(given)))
                widths.append(ratio)
        hits, trials = hits + int(inside.sum()), trials + inside.size
    if trials:
        study.add("coverage_95", proportion(hits, trials))
        study.add("relative_width", float(np.mean(widths)))
    study.notes.append(
        "truth: the spectrum of the simulated chain through the states or functions of the estimator at its lag; "
        f"only processes whose eigenvalue there is above {RESOLVED:g}"
    )
