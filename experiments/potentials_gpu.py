"""All measurements that want a GPU, in one command; the same code runs in small on a CPU as a rehearsal."""

import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness import placed
from potentials_models import NETWORKS, fit, specification
from torch import Tensor

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.persistence import packed, unpacked
from bayesmol.report import Study

NO_DEVICE = 3  # exit code where torch finds no CUDA device
FAILED = 1
TARGETS = {
    **{f"agreement_{model}": {"upper": 1e-5} for model in ("ace", "gradient-gp", *NETWORKS)},
    "equivariant_force_mae": {"upper": 0.004, "reference": "NequIP 2.8, MACE 2.1 meV/Å"},
    "equivariant_energy_mae": {"upper": 0.0008, "reference": "NequIP 0.4, MACE 0.4 meV"},
    "equivariant_train_minutes": {"upper": 25.0},
    "gp_speedup": {"lower": 10.0},
    "failed_parts": {"upper": 0.0},
}


@dataclass(frozen=True)
class Sizes:
    """Numbers of frames of the parts.

    Attributes
    ----------
    agreement
        Training frames of the models that are compared between devices.
    train, validation, test
        Of the equivariant network.
    gp
        Training frames of the Gaussian process: 22 rows each, an energy and 21 internal forces of ethanol.
    many
        Training frames of the streamed fit: 27 force rows each.
    inducing
        Structures that the sparse process looks through.
    epochs
        Of the networks that are compared.
    ace
        Linear potential; that of a rehearsal is small.
    """

    agreement: int = 50
    train: int = 950
    validation: int = 50
    test: int = 1000
    gp: int = 182
    many: int = 1852
    inducing: int = 200
    epochs: int = 20
    ace: bm.potentials.BayesianACE = field(default_factory=bm.potentials.BayesianACE)


FULL = Sizes()
TINY = bm.potentials.BayesianACE(
    cutoffs=(4.0,),
    degrees=(2, 2, 1),
    channels=(4, 3, 2),
    mixing=bm.potentials.MixingSchedule(steps=2, checks=1),
    dual_rows=0,
)
SMALL = Sizes(agreement=10, train=8, validation=4, test=20, gp=5, many=20, inducing=10, epochs=1, ace=TINY)


@dataclass(frozen=True)
class Rows:
    """What all parts need: rMD17 ethanol in the order in which it ships, the device, sizes and seed."""

    frames: Labelled
    device: str
    sizes: Sizes
    seed: int
    posterior: str | None = None
    minutes: float | None = None
    checkpoint: Path | None = None


def gpu(study: Study, rows: Rows, parts: Sequence[str]) -> int:
    """Run the parts one by one; one that fails leaves its traceback in the notes. Returns how many failed."""
    study.expectations = TARGETS
    study.settings["environment"] = environment(rows.device)
    failed = 0
    for name in parts:
        try:
            with study.stage(name, f"{name} …"), _wall(study, f"{name}_wall_seconds", rows.device):
                PARTS[name](study, rows)
        except Exception:  # an unattended run on a rented machine goes on with what is left
            failed += 1
            study.notes.append(f"{name} failed:\n{traceback.format_exc(limit=-4)}")
        if rows.device != "cpu":
            study.add(f"{name}_peak_gpu_mb", torch.cuda.max_memory_allocated(rows.device) / 1e6, "MB")
            torch.cuda.reset_peak_memory_stats(rows.device)
    study.add("failed_parts", failed)
    return failed


def environment(device: str) -> dict[str, Any]:
    """Machine and versions, as text."""
    found = {"torch": str(torch.__version__), "cpus": os.cpu_count(), "threads": torch.get_num_threads()}
    if device == "cpu":
        return found | {"device": "cpu: a rehearsal, no figure of it is one of a GPU"}
    card = torch.cuda.get_device_properties(device)
    return found | {"device": card.name, "memory_mb": card.total_memory / 1e6, "cuda": torch.version.cuda}


def agreement(study: Study, rows: Rows, model: str) -> None:
    """The same fitted potential on both devices: largest difference of means and deviations over their size."""
    train, validation, test = rows.frames.split(rows.sizes.agreement, 10, 20)
    if model == "ace":
        chosen = rows.sizes.ace
    else:
        chosen = specification(model, epochs=rows.sizes.epochs if model in NETWORKS else None)
    here = fit(chosen, train, validation, seed=rows.seed)
    first = quantities(here, test)
    second = quantities(moved(here, rows.device), placed(test, rows.device, "float64"))
    study.add(f"agreement_{model}", max(relative(first[name], second[name]) for name in first))


def quantities(model: Any, test: Labelled) -> dict[str, Tensor]:
    """Means and deviations of energies and forces, energies from their mean."""
    prediction = model.predict(test.structures)
    energy = prediction.energy.mean
    found = {"energy": energy - energy.mean(), "energy_deviation": prediction.energy.stddev}
    found |= {"forces": prediction.forces.mean, "force_deviation": prediction.forces.stddev}
    return {name: value.double().cpu() for name, value in found.items()}


def relative(first: Tensor, second: Tensor) -> float:
    """Largest difference over the largest value."""
    return float((first - second).abs().max() / first.abs().max())


def moved(model: Any, device: str) -> Any:
    """The same fitted potential on another device, as if saved here and loaded there."""
    header, arrays = packed(model)
    return unpacked(header, {name: array.to(device) for name, array in arrays.items()})


def equivariant(study: Study, rows: Rows) -> None:
    """The equivariant network on 1000 frames of ethanol: errors, calibration and minutes."""
    sizes = rows.sizes
    train = bm.data.load("rmd17/ethanol/train").split(sizes.train, sizes.validation)
    test = placed(bm.data.load("rmd17/ethanol/test")[: sizes.test], rows.device, "float64")
    train, validation = (placed(part, rows.device, "float64") for part in train)
    rehearsal = sizes is SMALL
    network = specification("equivariant", posterior=rows.posterior, epochs=sizes.epochs if rehearsal else None)
    minutes = None if rehearsal or rows.minutes is None else 0.9 * rows.minutes
    start = time.perf_counter()
    fitted = fit(network, train, validation, seed=rows.seed, minutes=minutes, checkpoint=rows.checkpoint)
    study.add("equivariant_train_minutes", (time.perf_counter() - start) / 60, "min")
    study.judge(fitted.predict(test.structures), test, seed=rows.seed, prefix="equivariant_")


def gaussian_process(study: Study, rows: Rows) -> None:
    """Fit and predict with the exact Gaussian process, on two cores and on the device, in turns."""
    train, test = rows.frames[: rows.sizes.gp], rows.frames[1250 : 1250 + min(200, rows.sizes.test)]
    study.add("gp_rows", 22 * len(train))
    threads, taken = torch.get_num_threads(), {}
    torch.set_num_threads(min(2, os.cpu_count() or 1))
    try:
        # the first turn warms the device up and is not counted; a rehearsal has one
        for place in ("cpu",) if rows.device == "cpu" else (rows.device, "cpu", rows.device):
            taken[place] = _gp_seconds(placed(train, place, "float64"), placed(test, place, "float64"), rows.seed)
    finally:
        torch.set_num_threads(threads)
    for name in ("fit", "solve", "predict"):
        study.add(f"gp_{name}_seconds_cpu", taken["cpu"][name], "s")
        study.add(f"gp_{name}_seconds_device", taken[rows.device][name], "s")
        study.add(f"gp_{name}_speedup", taken["cpu"][name] / taken[rows.device][name])
    both = [taken[place]["fit"] + taken[place]["predict"] for place in ("cpu", rows.device)]
    study.add("gp_speedup", both[0] / both[1])
    study.notes.append("gp_speedup: fit with learned scales and prediction, wall time; solve: the scales known")


def many_rows(study: Study, rows: Rows, model: str) -> None:
    """A fit of 50 000 force rows, streamed or through inducing structures, tested on the frames that are left."""
    data = placed(rows.frames, rows.device, "float64")
    train, test = data[: rows.sizes.many], data[-min(148, rows.sizes.test) :]
    chosen = rows.sizes.ace if model == "ace" else bm.potentials.InducingGP(inducing=rows.sizes.inducing)
    start = time.perf_counter()
    fitted = chosen.fit(train, seed=rows.seed)
    _wait(rows.device)
    study.add(f"many_{model}_fit_minutes", (time.perf_counter() - start) / 60, "min")
    study.add("many_force_rows", 3 * len(train.structures.positions))
    study.judge(fitted.predict(test.structures), test, seed=rows.seed, prefix=f"many_{model}_")


PARTS: dict[str, Callable[[Study, Rows], None]] = {
    **{f"agreement-{model}": partial(agreement, model=model) for model in ("ace", "gradient-gp", *NETWORKS)},
    "gaussian-process": gaussian_process,
    **{f"many-rows-{model}": partial(many_rows, model=model) for model in ("ace", "inducing")},
    "equivariant": equivariant,
}


def chosen_parts(names: Sequence[str] | None) -> list[str]:
    """The named parts, or all.

    Raises
    ------
    DataError
        If there is no such part.
    """
    if unknown := set(names or ()) - PARTS.keys():
        raise DataError(expected("--part", f"some of {', '.join(PARTS)}", ", ".join(sorted(unknown))))
    return list(names or PARTS)


def _gp_seconds(train: Labelled, test: Labelled, seed: int) -> dict[str, float]:
    device = str(train.structures.positions.device)
    marks = [time.perf_counter()]

    def mark() -> None:
        _wait(device)
        marks.append(time.perf_counter())

    fitted = specification("gradient-gp").fit(train, seed=seed)
    mark()
    solved = replace(fitted).solved()  # a new one, which has nothing in its cache
    mark()
    solved.predict(test.structures)
    mark()
    return {name: b - a for name, a, b in zip(("fit", "solve", "predict"), marks, marks[1:], strict=False)}


@contextmanager
def _wall(study: Study, name: str, device: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        _wait(device)
        study.add(name, time.perf_counter() - start, "s")


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
