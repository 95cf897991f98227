"""Interatomic potentials with error bars: what they reach, what they cost, and whether their error bars are true."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from bundle import graphene
from harness import Device, Dtype, Json, Plots, Seed, average, expectations, labelled, placed, run, save_figures
from peers import LENGTH_SCALE, PEERS, Fit, in_turns
from torch import Tensor

import bayesmol as bm
from bayesmol.calibration import figures, plots, separation
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.report import Study, proportion

Model = Literal["ace", "gradient-gp"]
File = Annotated[str, typer.Option(help="A file in any format that the package reads, or the name of a bundled set.")]
Size = Annotated[int | None, typer.Option(help="Number of frames, counted from the first; default: all.")]
CALIBRATION = 250  # frames at most where no number is given

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def learn(
    context: typer.Context,
    train: File,
    test: File,
    model: Annotated[Model, typer.Option(help="BayesianACE, or GradientGP for one molecule.")] = "ace",
    train_size: Size = None,
    calibration_size: Annotated[
        int | None, typer.Option(help="Frames after the training frames; default: up to 250. 0: leave-one-out.")
    ] = None,
    test_size: Size = None,
    shuffle: Annotated[bool, typer.Option(help="Shuffle the training file first.")] = False,
    probe: Annotated[
        list[str] | None, typer.Option(help="Frames out of the domain; may be given several times.")
    ] = None,
    probe_tolerance: Annotated[
        float, typer.Option(help="Error of an energy from which a frame is wrong, in eV.")
    ] = 0.1,
    probe_factor: Annotated[float | None, typer.Option(help="The same in energy RMSEs of the test frames.")] = None,
    length_scale: Annotated[str, typer.Option(help="GradientGP: a number in 1/Å, or 'learned'.")] = str(LENGTH_SCALE),
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """Fit, certify, predict: accuracy, calibration, domain and cost."""
    frames = labelled(train, device, dtype)
    fitting, calibration = parts(frames.shuffle(seed=seed) if shuffle else frames, train_size, calibration_size)
    sizes = {"train_frames": len(fitting), "calibration_frames": 0 if calibration is None else len(calibration)}
    study = Study("potentials", "learn", context.params | sizes)
    study.expectations = expectations(train, test, model, len(fitting))
    with study.stage("train"):
        fitted = specification(model, length_scale).fit(fitting, seed=seed)
    with study.stage("certify"):
        certified = bm.certify(fitted, calibration)
    testing = labelled(test, device, dtype)[:test_size]
    with study.stage("predict"):
        prediction = certified.predict(testing.structures)
    with study.stage("evaluate"):
        accuracy(study, prediction, testing, seed)
        usual = fitted.strangeness(testing.structures, prediction)
        scores = {"test frames": (usual, None)}
        if probe:
            probes = Labelled.concatenate([labelled(name, device, dtype) for name in probe])
            if probes.energies is None or testing.energies is None:
                raise DataError(expected("--probe", "probe and test frames with energies", "none"))
            tolerance = probe_tolerance if probe_factor is None else probe_factor * study.figures["energy_rmse"].value
            scores["probe frames"] = probed(study, certified, fitted, probes, tolerance, usual)
    study.notes += [prediction.forces.interval(0.9).guarantee, certified.domain.guarantee]
    study.add("train_cpu_seconds", study.cpu_seconds["train"], "s")
    study.add("predict_cpu_milliseconds", 1000 * study.cpu_seconds["predict"] / len(testing), "ms/structure")
    if pictures is not None:
        quantities = plots.quantities(prediction, testing)
        drawn = {"parity": plots.parity(*quantities), "reliability": plots.reliability(*quantities)}
        drawn |= {"width": plots.width(*quantities), "domain": plots.domain_scores(scores, certified.domain.threshold)}
        study.notes += save_figures(drawn, pictures)
    study.finish(json)


@app.command()
def noisy_labels(
    context: typer.Context,
    train: Annotated[str, typer.Option(help="Energies with standard errors; also the published csv.")] = "qmc/graphene",
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
) -> None:
    """Monte-Carlo energies with their standard errors, and a model that takes the noise for constant."""
    frames = placed(monte_carlo(train), device, dtype)
    study = Study("potentials", "noisy-labels", context.params)
    study.expectations = expectations(train, train, "ace", len(frames))
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
    study.finish(json)


@app.command()
def peers(
    context: typer.Context,
    train: File = "rmd17/ethanol/train",
    test: File = "rmd17/ethanol/test",
    train_size: Size = 100,
    test_size: Size = None,
    repeats: Annotated[int, typer.Option(help="Turns of each side; CPU seconds are medians.")] = 3,
    threads: Annotated[int, typer.Option(help="Threads of each side.")] = 1,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Our potentials, sGDML and a GPyTorch process in turns: same frames, same threads."""
    study = Study("potentials", "peers", context.params, packages=("torch", "numpy", *PEERS))
    sides = {"ace": _ours("ace"), "gradient_gp": _ours("gradient-gp"), **PEERS}
    fitting, testing = labelled(train)[:train_size], labelled(test)[:test_size]
    with study.stage("all sides"):
        outcomes, missing = in_turns(sides, fitting, testing.structures, repeats=repeats, threads=threads, seed=seed)
    study.notes += [f"{name} is missing, nothing stands in for it: {why}" for name, why in missing.items()]
    for name, outcome in outcomes.items():
        study.add(f"energy_mae_{name}", average((outcome.energies - testing.energies).abs(), "eV"))
        owner = testing.structures.structure_index
        errors = torch.zeros(len(testing), dtype=torch.float64)
        errors.index_add_(0, owner, (outcome.forces - testing.forces).abs().mean(1))
        study.add(f"force_mae_{name}", average(errors / testing.structures.counts, "eV/Å"))
        study.add(f"train_cpu_seconds_{name}", outcome.train_cpu_seconds, "s")
        milliseconds = 1000 * outcome.predict_cpu_seconds / len(testing)
        study.add(f"predict_cpu_milliseconds_{name}", milliseconds, "ms/structure")
        if outcome.deviations is not None:
            inside = (outcome.energies - testing.energies).abs() <= 1.6449 * outcome.deviations
            study.add(f"energy_coverage_90_{name}", proportion(int(inside.sum()), len(inside)))
    for peer in [name for name in PEERS if name in outcomes]:
        for name in ("ace", "gradient_gp"):
            ratio = outcomes[name].train_cpu_seconds / outcomes[peer].train_cpu_seconds
            study.add(f"ratio_to_{peer}" + ("" if name == "gradient_gp" else f"_{name}"), ratio)
    study.finish(json)


def specification(model: str, length_scale: str = str(LENGTH_SCALE)) -> Any:
    """The specification that a command names, at its default setting."""
    if model == "ace":
        return bm.potentials.BayesianACE()
    try:
        scale = "learned" if length_scale == "learned" else float(length_scale)
    except ValueError as error:
        raise DataError(expected("--length-scale", "a number in 1/Å or 'learned'", repr(length_scale))) from error
    return bm.potentials.GradientGP(length_scale=scale)


def parts(frames: Labelled, train_size: int | None, calibration_size: int | None) -> tuple[Labelled, Labelled | None]:
    """Training frames and the calibration frames after them; ``None`` stands for leave-one-structure-out."""
    fitting = len(frames) if train_size is None else train_size
    rest = min(CALIBRATION, len(frames) - fitting) if calibration_size is None else calibration_size
    if rest <= 0:
        return frames.split(fitting)[0], None
    return frames.split(fitting, rest)


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


def _ours(model: str) -> Fit:
    """A potential of the package in the form of a peer."""

    def fit(training: Labelled, seed: int) -> Any:
        fitted = specification(model).fit(training, seed=seed)

        def predict(structures: Structures) -> tuple[Tensor, Tensor, Tensor]:
            prediction = fitted.predict(structures)
            return prediction.energy.mean, prediction.forces.mean, prediction.energy.stddev

        return predict

    return fit


if __name__ == "__main__":
    run(app)
