"""Fit, certify, predict: accuracy, calibration, domain and cost of one potential."""

from pathlib import Path
from typing import Any

import torch
from harness import labelled
from potentials_models import fit
from torch import Tensor

import bayesmol as bm
from bayesmol.calibration import figures, plots, separation
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.report import Study, proportion

CALIBRATION = 250  # frames at most where no number is given


def learn(
    study: Study,
    model: Any,
    frames: tuple[Labelled, Labelled | None, Labelled | None],
    testing: Labelled,
    probes: Labelled | None,
    *,
    tolerance: float,
    factor: float | None,
    seed: int,
    minutes: float | None = None,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Figures of a specification fitted, certified and tested; returns plots by name.

    Parameters
    ----------
    frames
        For training, validation and calibration.
    tolerance, factor
        Error of an energy from which a probe is wrong, in eV; or in RMSEs of the test frames.
    """
    training, validation, calibration = frames
    with study.stage("train"):
        fitted = fit(model, training, validation, seed=seed, minutes=minutes, checkpoint=checkpoint)
    uncertified = calibration is None and isinstance(fitted, bm.potentials.NetworkPotential)
    with study.stage("certify"):
        certified = fitted if uncertified else bm.certify(fitted, calibration)
    with study.stage("predict"):
        prediction = certified.predict(testing.structures)
    with study.stage("evaluate"):
        accuracy(study, prediction, testing, seed)
        usual = fitted.strangeness(testing.structures, prediction)
        scores = {"test frames": (usual, None)}
        if probes is not None and not uncertified:
            if probes.energies is None or testing.energies is None:
                raise DataError(expected("--probe", "probe and test frames with energies", "none"))
            limit = tolerance if factor is None else factor * study.figures["energy_rmse"].value
            scores["probe frames"] = probed(study, certified, fitted, probes, limit, usual)
    said = "not certified: a network has no left-out predictions, and no calibration frames were kept"
    study.notes += [prediction.forces.interval(0.9).guarantee, said if uncertified else certified.domain.guarantee]
    study.add("train_cpu_seconds", study.cpu_seconds["train"], "s")
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(testing), "ms/structure")
    quantities = plots.quantities(prediction, testing)
    drawn = {"parity": plots.parity(*quantities), "reliability": plots.reliability(*quantities)}
    drawn["width"] = plots.width(*quantities)
    if not uncertified:
        drawn["domain"] = plots.domain_scores(scores, certified.domain.threshold)
    return drawn


def parts(
    frames: Labelled, train_size: int | None, calibration_size: int | None, validation_size: int = 0
) -> tuple[Labelled, Labelled | None, Labelled | None]:
    """Training frames, the validation frames after them and the calibration frames after these.

    ``None`` stands for no validation, and for leave-one-structure-out in place of calibration.
    """
    fitting = len(frames) - validation_size if train_size is None else train_size
    used = fitting + validation_size
    rest = min(CALIBRATION, len(frames) - used) if calibration_size is None else calibration_size
    sizes = [size for size in (fitting, validation_size, rest) if size > 0]
    found = list(frames.split(*sizes))
    training = found.pop(0)
    validation = found.pop(0) if validation_size > 0 else None
    return training, validation, found.pop(0) if rest > 0 else None


def together(names: list[str], device: str, dtype: str) -> Labelled | None:
    """All frames of several data sets; ``None`` if there are none."""
    return Labelled.concatenate([labelled(name, device, dtype) for name in names]) if names else None


def accuracy(study: Study, prediction: Prediction, testing: Labelled, seed: int) -> None:
    """Figures of energies, forces and the domain; energies per atom; stresses where there are labels."""
    study.judge(prediction, testing, seed=seed)
    if testing.energies is not None:
        counts = testing.structures.counts.to(testing.energies)
        energy = Gaussian(prediction.energy.mean / counts, prediction.energy.variance / counts**2, unit="eV/atom")
        index = torch.arange(len(testing), device=counts.device)
        per_atom = figures(energy, testing.energies / counts, groups=index, seed=seed)
        for name in ("mae", "rmse"):
            study.add(f"energy_{name}_per_atom", per_atom[name])
    if prediction.stress is not None and bool(testing.has_stresses.any()):
        rows = testing.has_stresses.nonzero().squeeze(1)
        for name, figure in figures(prediction.stress[rows], testing.stresses[rows], groups=rows, seed=seed).items():
            study.add(f"stress_{name}", figure)


def probed(
    study: Study, certified: Any, fitted: Any, probes: Labelled, tolerance: float, usual: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores of the probe frames and which are wrong; figures of how the domain tells these from the test frames."""
    scores = fitted.strangeness(probes.structures)
    wrong = (certified.predict(probes.structures).energy.mean - probes.energies).abs() > tolerance
    outside = ~certified.domain.assess(scores).inside
    study.add("probe_wrong", proportion(int(wrong.sum()), len(wrong)))
    study.notes.append(f"a probe frame is wrong if its energy is off by more than {tolerance:.4g} eV")
    if bool(wrong.any()):
        study.add("auroc", separation(scores[wrong], usual))
        study.add("probe_flagged", proportion(int((outside & wrong).sum()), int(wrong.sum())))
    else:
        study.notes.append("no probe frame is wrong, so there is no auroc")
    return scores, wrong
