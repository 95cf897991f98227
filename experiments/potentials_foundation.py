"""Potentials that exist already, corrected and with error bars: what the correction gains, and whether it is honest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from scipy import stats
from torch import Tensor

import bayesmol as bm
from bayesmol.applicability import Domain
from bayesmol.calibration.metrics import separation
from bayesmol.calibration.plots import BAD, INK, panels
from bayesmol.data import Labelled
from bayesmol.data.label_cache import Cached
from bayesmol.data.reference import TBLite
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.foundation import Foundation
from bayesmol.report import Study, proportion
from bayesmol.representation.radial import element_counts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Way = Literal["last-layer", "residual"]
LEVEL = 0.9


def foundation(
    study: Study,
    *,
    base: str,
    train: Labelled,
    calibration: Labelled,
    test: Labelled,
    way: Way | None = None,
    rank: int = 12,
    cache: Path | None = None,
    seed: int = 0,
) -> dict[str, Figure]:
    """Fill in the figures of a base alone, of its correction, and of its intervals; the plots by name.

    Parameters
    ----------
    base
        ``"chgnet"``, ``"chgnet:r2scan"``, or a method of tblite such as ``"GFN2-xTB"``.
    way
        How it is corrected; by default by its last layer where it has one.
    rank
        Directions of the features of a last layer.
    cache
        Folder for the labels of a tight-binding method.
    """
    origin = origins(base, cache)
    way = way or ("last-layer" if hasattr(origin, "with_last_layer") else "residual")
    with study.stage("base"):
        alone(study, origin, train, test)
    with study.stage("train"):
        model = corrected(origin, train, way, rank, seed)
    with study.stage("certify"):
        domain = Domain(level=max(0.02, 1 - 0.049 ** (1 / len(calibration))))  # the least for 95 % confidence
        certified = bm.certify(model, calibration, level=LEVEL, domain=domain)
    with study.stage("predict"):
        prediction = certified.predict(test.structures)
    study.judge(prediction, test, seed=seed)
    bands(study, prediction, test, len(calibration), seed)
    errors, deviations = narrower(study, prediction, test)
    gaps = (prediction.energy.mean - test.energies).abs() / test.structures.counts
    strange = model.strangeness(test.structures, prediction)
    for name, error, score in (("force", errors, deviations), ("energy", gaps, strange)):
        wrong = error > 3 * error.median()
        study.add(f"{name}_frames_beyond_3_medians", proportion(int(wrong.sum()), len(wrong)))
        if int(wrong.sum()) > 1:
            study.add(f"{name}_auroc", separation(score[wrong], score[~wrong]))
    study.add("train_cpu_seconds", study.cpu_seconds["train"], "s")
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(test), "ms/structure")
    study.notes += [prediction.forces.interval(LEVEL).guarantee, certified.domain.guarantee]
    return {"frames": frames_figure(deviations, errors)}


def origins(base: str, cache: Path | None = None) -> Any:
    """The foundation that a command names."""
    name, _, version = base.partition(":")
    if name == "chgnet":
        return Foundation.chgnet(version or "0.3.0")
    if name.startswith("GFN"):
        reference = TBLite(method=name)
        return Foundation.from_calculator(reference if cache is None else Cached(reference, cache))
    raise DataError(expected("--base", "chgnet, chgnet:VERSION, GFN2-xTB or GFN1-xTB", repr(base)))


def corrected(origin: Any, train: Labelled, way: Way, rank: int, seed: int) -> Any:
    """The posterior by one of the two ways."""
    if way == "residual":
        return origin.with_residual(train, seed=seed)
    if not hasattr(origin, "with_last_layer"):
        raise DataError(expected("--way", "residual for a base without features", repr(way)))
    return origin.with_last_layer(train, rank=rank)


def alone(study: Study, origin: Any, train: Labelled, test: Labelled) -> None:
    """Errors of the base itself, its energies with the references of the elements that fit the training set."""
    species = tuple(sorted(set(train.structures.species.tolist())))
    here, there = (origin.surface(part.structures) for part in (train, test))
    inverse = torch.linalg.pinv(element_counts(train.structures, species))
    offsets = inverse @ (train.energies - here.energies)
    gap = test.energies - there.energies - element_counts(test.structures, species) @ offsets
    counts = test.structures.counts
    study.add("base_energy_mae_per_atom", (gap / counts).abs().mean(), "eV/atom")
    study.add("base_force_mae", (test.forces - there.forces).abs().mean(), "eV/Å")


def bands(study: Study, prediction: Any, test: Labelled, calibrated: int, seed: int) -> None:
    """Coverage of energies, and of one random force component of each structure, with the exact 99 % band of both.

    Components of one structure err together; one of each are independent trials.
    """
    rank = math.ceil((calibrated + 1) * LEVEL - 1e-9)
    law = stats.betabinom(len(test), rank, calibrated + 1 - rank)
    study.add("band_90_lower", law.ppf(0.005) / len(test))
    study.add("band_90_upper", law.ppf(0.995) / len(test))
    hit = prediction.forces.interval(LEVEL).contains(test.forces).flatten()
    counts, source = test.structures.counts, generator(seed)
    chosen = (torch.rand(len(test), generator=source) * 3 * counts).long() + 3 * test.structures.pointer[:-1]
    study.add("force_component_conformal_90", proportion(int(hit[chosen].sum()), len(test)))
    counts = test.structures.counts.to(test.energies)
    gap = (prediction.energy.mean - test.energies).abs() / counts
    study.add("energy_mae_per_atom", gap.mean(), "eV/atom")


def narrower(study: Study, prediction: Any, test: Labelled) -> tuple[Tensor, Tensor]:
    """Mean width against that of a constant interval of the same coverage; force error and deviation of each frame."""
    interval, error = prediction.forces.interval(LEVEL), (prediction.forces.mean - test.forces).abs()
    reached = interval.contains(test.forces).double().mean()
    constant = 2 * torch.quantile(error.flatten(), float(reached))
    study.add("force_interval_width", interval.width.mean(), "eV/Å")
    study.add("width_to_constant", interval.width.mean() / constant)
    study.add("median_width_to_constant", interval.width.median() / constant)
    owner, counts = test.structures.structure_index, test.structures.counts
    means = [error.new_zeros(len(test)).index_add(0, owner, part.mean(1)) for part in (error, prediction.forces.stddev)]
    return means[0] / counts, means[1] / counts


def frames_figure(deviations: Tensor, errors: Tensor) -> Figure:
    """Mean absolute force error of each frame against its mean predicted deviation."""
    figure, axes = panels((3.4, 3.0), 1, 1)
    panel, limit = axes.flat[0], 3 * float(errors.median())
    panel.scatter(deviations, errors, s=8, color=INK, linewidths=0)
    panel.axhline(limit, color=BAD, linewidth=0.8, linestyle=":", label="3 × median error")
    panel.set(xlabel="predicted deviation of forces (eV/Å)", ylabel="mean error of forces (eV/Å)")
    panel.set(xscale="log", yscale="log")
    panel.legend(fontsize=8, frameon=False)
    return figure
