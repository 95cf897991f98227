"""One choice from a pool here, on one worker and on two workers of a Dask cluster on this machine."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import joblib
import torch

import bayesmol as bm
from bayesmol.potentials import GradientGP
from bayesmol.report import Study

__all__ = ["LABELS", "compare"]

LABELS = 100  # so that a structure is worth milliseconds


def compare(study: Study, *, pool: int, workers: tuple[int, ...] = (1, 2), seed: int = 0) -> None:
    """Fill in wall seconds of the choice, and what each number of workers gains over one."""
    data = bm.data.load("rmd17/ethanol")
    model = GradientGP().fit(data[:LABELS], seed=seed)
    candidates = data[torch.arange(pool) % (len(data) - LABELS) + LABELS].structures

    places: dict[str, Callable[[], AbstractContextManager[Any]]] = {"here": ExitStack} | {
        f"{n}_workers": _cluster(n) for n in workers
    }
    seconds, chosen = {}, {}
    for name, place in places.items():
        with place():
            start = time.perf_counter()
            found = bm.acquisition.select(model, candidates, size=10, batch="top", function="force_variance", seed=seed)
            seconds[name], chosen[name] = time.perf_counter() - start, found.indices
        study.add(f"seconds_{name}", seconds[name], "s")
    study.add("same_choice", float(all(torch.equal(chosen["here"], other) for other in chosen.values())))
    for n in workers[1:]:
        study.add(f"gain_of_{n}_workers", seconds[f"{workers[0]}_workers"] / seconds[f"{n}_workers"])


def _cluster(workers: int) -> Callable[[], AbstractContextManager[Any]]:
    """Opens a cluster whose workers have imported what they need, and tells joblib."""

    def opened() -> ExitStack:
        import distributed

        stack = ExitStack()
        options = {"n_workers": workers, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
        cluster = stack.enter_context(distributed.LocalCluster(**options))
        client = stack.enter_context(distributed.Client(cluster))
        client.run(importlib.import_module, "bayesmol.acquisition")
        stack.enter_context(joblib.parallel_config("dask"))
        return stack

    return opened
