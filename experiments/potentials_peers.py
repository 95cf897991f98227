"""Our potentials beside others: Monte-Carlo labels with a constant noise, sGDML, and a GPyTorch process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bundle import graphene
from harness import average, labelled
from peers import PEERS, Fit, in_turns
from potentials_models import specification
from torch import Tensor

import bayesmol as bm
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.report import Study, proportion


def noisy_labels(study: Study, frames: Labelled, *, seed: int) -> None:
    """Figures with the standard errors of the labels, and of a model that takes the noise for constant."""
    scores = {}
    for name, given in {"": frames, "_constant_noise": replace(frames, energy_errors=None)}.items():
        with study.stage(f"train{name}"):
            held_out = bm.potentials.BayesianACE().fit(given, seed=seed).leave_one_out().energy.with_rule(None)
        residuals = frames.energies - held_out.mean
        scores[name] = -held_out.log_prob(frames.energies)
        study.add(f"chi_square_per_dof{name}", average((residuals / held_out.stddev).square()))
        study.add(f"energy_nll{name}", average(scores[name], "nat"))
        study.add(f"energy_mae{name}", average(residuals.abs(), "eV"))
        hits = int(held_out.interval(0.9).contains(frames.energies).sum())
        study.add(f"energy_coverage_90{name}", proportion(hits, len(frames)))
    study.add("energy_nll_gain", average(scores["_constant_noise"] - scores[""], "nat"))


def monte_carlo(name: str) -> Labelled:
    """Energies with standard errors, from the published csv or from any data set that has them."""
    if not name.endswith(".csv"):
        frames = labelled(name)
    else:
        columns = graphene(Path(name))
        columns.pop("energy_unit")  # eV
        found = {key: torch.from_numpy(value) for key, value in columns.items()}
        pointer = torch.nn.functional.pad(found["counts"].cumsum(0), (1, 0))
        structures = Structures(found["positions"], found["species"].long(), pointer, found["cell"], found["pbc"])
        frames = Labelled(structures, found["energies"], energy_errors=found["energy_errors"])
    if frames.energy_errors is None:
        raise DataError(expected("--train", "energies with standard errors", f"none in {name}"))
    return frames


def peers(study: Study, fitting: Labelled, testing: Labelled, *, repeats: int, threads: int, seed: int) -> None:
    """Errors, times and coverage of all sides in turns, and the ratios of training times."""
    sides = {"ace": _ours("ace"), "gradient_gp": _ours("gradient-gp"), **PEERS}
    with study.stage("all sides"):
        outcomes, missing = in_turns(sides, fitting, testing.structures, repeats=repeats, threads=threads, seed=seed)
    study.notes += [f"{name} is missing, nothing stands in for it: {why}" for name, why in missing.items()]
    for name, outcome in outcomes.items():
        _reported(study, name, outcome, testing)
    for peer in [name for name in PEERS if name in outcomes]:
        for name in ("ace", "gradient_gp"):
            ratio = outcomes[name].train_cpu_seconds / outcomes[peer].train_cpu_seconds
            study.add(f"ratio_to_{peer}" + ("" if name == "gradient_gp" else f"_{name}"), ratio)


def _reported(study: Study, name: str, outcome: Any, testing: Labelled) -> None:
    """Figures of one side."""
    study.add(f"energy_mae_{name}", average((outcome.energies - testing.energies).abs(), "eV"))
    errors = torch.zeros(len(testing), dtype=torch.float64)
    errors.index_add_(0, testing.structures.structure_index, (outcome.forces - testing.forces).abs().mean(1))
    study.add(f"force_mae_{name}", average(errors / testing.structures.counts, "eV/Å"))
    study.add(f"train_cpu_seconds_{name}", outcome.train_cpu_seconds, "s")
    milliseconds = 1000 * outcome.predict_cpu_seconds / len(testing)
    study.add(f"predict_cpu_milliseconds_{name}", milliseconds, "ms/structure")
    if outcome.deviations is not None:
        inside = (outcome.energies - testing.energies).abs() <= 1.6449 * outcome.deviations
        study.add(f"energy_coverage_90_{name}", proportion(int(inside.sum()), len(inside)))


def _ours(model: str) -> Fit:
    """A potential of the package in the form of a peer."""

    def fit(training: Labelled, seed: int) -> Any:
        fitted = specification(model).fit(training, seed=seed)

        def predict(structures: Structures) -> tuple[Tensor, Tensor, Tensor]:
            prediction = fitted.predict(structures)
            return prediction.energy.mean, prediction.forces.mean, prediction.energy.stddev

        return predict

    return fit
