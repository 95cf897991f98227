"""CPU seconds of kinetic posteriors, and of deeptime's estimators on the same data."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bayesmol.data.exact import prinz
from bayesmol.data.exact_chains import LinearProcess
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.counts import block_counts
from bayesmol.dynamics.delta_method import delta_method
from bayesmol.dynamics.linear import TICA
from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.dynamics.reversible import largest_connected_set
from bayesmol.dynamics.reversible_gibbs import ReversibleGibbs
from bayesmol.report import Study

__all__ = ["speed"]

FRAMES = 200_000
LAG = 5


def speed(study: Study, *, seed: int) -> None:
    """Fill in the seconds of 1000 draws with timescales, and their ratio to deeptime's.

    ``msm``: draws of reversible matrices given counts that are taken for independent, as deeptime's are;
    ``bootstrap``: draws that hold for correlated frames, from the trajectory; ``delta``: no draws.
    """
    run = prinz().simulate(FRAMES, step=1e-3, steps=5, seed=seed).parts[0][:, 0]
    for states in (100, 500):
        cells = Trajectories.of(torch.bucketize(run, torch.linspace(-1.15, 1.15, states - 1).double()))
        counts = _counts(cells)
        tasks = {
            "msm": lambda counts=counts: ReversibleGibbs(draws=1000).fit(counts, seed=seed).timescales(3),
            "bootstrap": lambda cells=cells: MarkovStateModel(lag=LAG).fit(cells, seed=seed).timescales(3),
            "delta": lambda counts=counts: delta_method(counts, 3, lag=LAG).timescales,
        }
        for name, task in tasks.items():
            with study.stage(f"{name} {states}"):
                study.add(f"{name}_cpu_seconds_{states}", _spent(task), "s")
        if states == 100 and (theirs := _deeptime(cells)) is not None:
            study.add("deeptime_cpu_seconds_100", theirs, "s")
            study.add("ratio_to_deeptime", theirs / study.figures["msm_cpu_seconds_100"].value)
    with study.stage("tica"):
        rho = torch.linspace(0.99, 0.2, 50).tolist()
        data = LinearProcess.autoregressive(*rho).simulate(1_000_000, seed=seed)
        spent = _spent(lambda: TICA(lag=10).fit(data, seed=seed).timescales(3))
    study.add("tica_cpu_seconds_1e6", spent, "s")


def _counts(cells: Trajectories) -> Tensor:
    """Transitions between connected states, each pair of frames as much as the lag allows it to be news."""
    counts = block_counts(cells, LAG).total() / LAG
    kept = largest_connected_set(counts)
    return counts[kept][:, kept]


def _spent(function: Callable[[], Any]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start


def _deeptime(cells: Trajectories) -> float | None:
    """Of 1000 samples of a reversible Markov state model with their timescales; ``None`` without deeptime."""
    try:
        from deeptime.markov import TransitionCountEstimator
        from deeptime.markov.msm import BayesianMSM
    except ImportError:
        return None
    counts = TransitionCountEstimator(LAG, "effective").fit_fetch(cells.parts[0].numpy()).submodel_largest()
    return _spent(lambda: BayesianMSM(n_samples=1000).fit_fetch(counts).gather_stats("timescales", k=3))
