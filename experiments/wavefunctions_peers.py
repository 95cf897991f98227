"""DeepQMC and bayesmol on one system: variance of the local energy and energy, at three times the wall time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from wavefunctions_energy import energy

from bayesmol.errors import DataError, expected
from bayesmol.report import Study

__all__ = ["command", "peers", "read"]

LONGER = 3.0  # times our wall time
BATCH = 256
# DeepQMC 1.3.0 (jax 0.8.3) after about 350 s on two cores: what it printed, with its own error bar.
MEASURED: Mapping[str, tuple[str, float]] = {"He": ("-2.9037(5)", 4.3e-3), "LiH": ("-8.064(4)", 0.18)}
_READ = """
import glob, json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
found = {}
for path in sorted(glob.glob(sys.argv[1] + "/**/events.out.tfevents.*", recursive=True)):
    events = EventAccumulator(path, size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    for tag in events.Tags()["scalars"]:
        found.setdefault(tag, []).extend([one.wall_time, one.value] for one in events.Scalars(tag))
    for tag in events.Tags()["tensors"]:
        rows = [(one.wall_time, tensor_util.make_ndarray(one.tensor_proto)) for one in events.Tensors(tag)]
        rows = [(time, value) for time, value in rows if value.size == 1 and value.dtype.kind in "fi"]
        found.setdefault(tag, []).extend([time, float(value)] for time, value in rows)
print(json.dumps(found))
"""


def peers(study: Study, system: str, *, minutes: float, deepqmc: Path | None, seed: int = 0) -> None:
    """Fill in our figures, those of DeepQMC where it is installed, and the ratio of the variances."""
    judged = energy(study, system, minutes=minutes, seed=seed)
    study.title = f"{system}, {minutes:g} minutes; DeepQMC {LONGER * minutes:g} minutes"
    variance = float(judged.energy.variance.value)
    if system in MEASURED:
        known, its = MEASURED[system]
        study.notes.append(
            f"measured before, not in this run: DeepQMC 1.3.0 in 350 s on two cores {known} Ha, variance {its:g} Ha²"
        )
    if deepqmc is None:
        study.notes.append("DeepQMC: missing; give --deepqmc, the command of its own environment")
        return
    with study.stage("deepqmc"):
        theirs = _run(deepqmc, system, LONGER * minutes, seed)
    for name, value in theirs.items():
        study.add(f"deepqmc_{name}", value)
    study.add("ratio_to_deepqmc", theirs["variance"] / variance)


def command(program: Path, system: str, folder: Path, seed: int) -> list[str]:
    """What is run; the logging option is needed with hydra-core 1.3.8."""
    return [
        str(program),
        "hydra/job_logging=default",
        f"hydra.run.dir={folder}",
        "hamil=qc",
        f"hamil/mol={system}",
        "ansatz=default",
        f"task.electron_batch_size={BATCH}",
        "task.steps=1000000",
        "task.pretrain_steps=0",
        f"task.seed={seed}",
    ]


def read(events: Mapping[str, Any], start: float) -> dict[str, float]:
    """Figures from the events of a training: the last tenth of its steps, and the seconds before the first.

    Raises
    ------
    DataError
        If no mean and no standard deviation of the local energy are in them.
    """
    means = _tag(events, "mean")
    deviations = [value for _, value in _tag(events, "std")]
    late = max(1, len(means) // 10)
    return {
        "energy_hartree": sum(value for _, value in means[-late:]) / late,
        "variance": sorted(value**2 for value in deviations[-late:])[late // 2],
        "iterations": float(len(means)),
        "seconds_to_first_iteration": means[0][0] - start,
    }


def _tag(events: Mapping[str, Any], kind: str) -> Any:
    found = [name for name in events if name.removesuffix("/0/0") == f"local_energy/{kind}"]
    if not found or not events[found[0]]:
        raise DataError(expected("--deepqmc", f"a run that logs local_energy/{kind}", sorted(events)))
    return events[found[0]]


def _run(program: Path, system: str, minutes: float, seed: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        started = time.time()
        words = command(program, system, Path(folder) / "run", seed)
        with open(Path(folder) / "log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(words, stdout=log, stderr=log)
            try:
                process.wait(60 * minutes)
            except subprocess.TimeoutExpired:
                process.terminate()
                process.wait()
        reader = [str(program.with_name("python")), "-c", _READ, folder]
        found = subprocess.run(reader, capture_output=True, text=True, check=False)
        if found.returncode:
            raise DataError(expected("--deepqmc", "a run with tensorboard events", found.stderr.strip()[-300:]))
    return read(json.loads(found.stdout), started)
