"""Memory of a process in which a calculator answers step by step."""

from __future__ import annotations

import gc
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from jaxtyping import Float
from scipy import stats

import bayesmol as bm
from bayesmol.potentials import GradientGP
from bayesmol.progress import progress
from bayesmol.report import Study

__all__ = ["calculated", "memory", "new_objects", "resident_mb", "slope", "soak"]

WARM = 0.25  # of the looks, in which libraries still allocate their buffers


def soak(study: Study, *, steps: int, looks: int, minutes: float, seed: int) -> None:
    """Fill in resident memory, its slope with a standard error, and objects that stay."""
    atoms = calculated(seed)
    study.add("new_objects", new_objects(atoms, 100, seed=seed))
    with study.stage("dynamics"):
        done, found = memory(atoms, steps, looks, seconds=60 * minutes, seed=seed)
    late = int(WARM * len(done))
    found_slope, error = slope(done[late:], found[late:])
    study.add("steps", int(done[-1]))
    study.add("cpu_milliseconds_per_step", 1000 * study.cpu_seconds["dynamics"] / done[-1], "ms")
    study.add("memory_after_warming_mb", found[late], "MB")
    study.add("memory_at_the_end_mb", found[-1], "MB")
    study.add("memory_slope_mb_per_million_steps", 1e6 * found_slope, "MB", error=1e6 * error)


def calculated(seed: int = 0, labels: int = 30) -> Atoms:
    """Ethanol with the calculator of a certified potential, which predicts, calibrates and judges at each step."""
    data = bm.data.load("rmd17/ethanol")
    model = bm.certify(GradientGP().fit(data[:labels], seed=seed), data[50:250])
    (atoms,) = data[0].structures.to_ase()
    atoms.calc = bm.potentials.Calculator(model)
    return atoms


def memory(
    atoms: Atoms, steps: int, looks: int, *, seconds: float = math.inf, seed: int = 0
) -> tuple[Float[np.ndarray, " looks"], Float[np.ndarray, " looks"]]:
    """Steps done and resident memory in MB at each look; it ends early when the CPU seconds are used up."""
    dynamics, start = _dynamics(atoms, seed), time.process_time()
    done, found = [], []
    with progress("dynamics", steps) as advance:
        for look in range(1, looks + 1):
            part = steps * look // looks - (done[-1] if done else 0)
            dynamics.run(part)
            gc.collect()
            done.append(steps * look // looks)
            found.append(resident_mb())
            advance(part, note=f"{found[-1]:.1f} MB")
            if time.process_time() - start > seconds:
                break
    return np.array(done, dtype=float), np.array(found)


def new_objects(atoms: Atoms, steps: int, *, seed: int = 0) -> int:
    """Containers that are there after so many steps and were not before, by their count; arrays show in the memory."""
    dynamics = _dynamics(atoms, seed)
    dynamics.run(steps)
    before = _objects()
    dynamics.run(steps)
    return _objects() - before


def slope(steps: Float[np.ndarray, " looks"], values: Float[np.ndarray, " looks"]) -> tuple[float, float]:
    """Slope of a line through the values with its standard error, as if they scattered independently."""
    found: Any = stats.linregress(steps, values)
    return float(found.slope), float(found.stderr)


def resident_mb() -> float:
    """Memory that this process holds now, in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _dynamics(atoms: Atoms, seed: int) -> Langevin:
    source = np.random.default_rng(seed)
    return Langevin(atoms, 0.5 * units.fs, temperature_K=100, friction=0.02 / units.fs, rng=source, fixcm=False)


def _objects() -> int:
    gc.collect()
    return len(gc.get_objects())
