"""Flow-based Boltzmann densities: from an energy to weighted draws, and whether their error bars hold."""

from pathlib import Path
from typing import Annotated, Literal

import boltzmann_alanine
import boltzmann_alanine_plots
import boltzmann_coverage
import boltzmann_frames
import boltzmann_particles
import boltzmann_speed
import boltzmann_temperature
import boltzmann_toys
import boltzmann_train
import boltzmann_transferable
import typer
from harness import Device, Json, Plots, Seed, run, save_figures

from bayesmol.errors import DataError, expected
from bayesmol.report import Study

PACKAGES = ("torch", "nflows", "numpy", "arviz", "scipy")
Targets = Literal["double-well", "mueller-brown", "many-well", "dw4", "lj13", "alanine-dipeptide"]
Steerable = Literal["plane", "alanine-dipeptide"]
Minutes = Annotated[float | None, typer.Option(help="CPU minutes of training; default: those of the target.")]
Draws = Annotated[int | None, typer.Option(help="Draws that are judged; default: those of the target.")]
Data = Annotated[
    Path | None,
    typer.Option(help="Frames to learn from: npz with positions_nm or positions (Å), what ASE reads; npy for lj13."),
]
Reference = Annotated[Path | None, typer.Option(help="Frames to compare with, in the same formats.")]

MINUTES = {"double-well": 1, "mueller-brown": 1, "many-well": 3, "dw4": 10, "lj13": 20, "alanine-dipeptide": 25}
DRAWS = {"many-well": 100_000, "dw4": 20_000, "lj13": 2000, "alanine-dipeptide": 100_000}
EXPECTATIONS = {
    "double-well": {"ess_fraction": {"lower": 0.99, "reference": "peers in 30 CPU s: 0.918 to 0.988"}},
    "mueller-brown": {"ess_fraction": {"lower": 0.99, "reference": "boltzmann-generators 0.2.1: 0.96"}},
    "many-well": {"ess_fraction": {"lower": 0.8}},
    "dw4": {"ess_fraction": {"lower": 0.9}},
    "lj13": {"ess_fraction": {"lower": 0.15}, "energy_w2": {"upper": 0.6}},
    "alanine-dipeptide": {
        "ess_fraction": {"lower": 0.3, "reference": "on GPUs: FAB 0.948, TA-BG 0.958, CMT 0.977"},
        "torsion_kl": {"upper": 0.02},
    },
}

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def train(
    context: typer.Context,
    target: Annotated[Targets, typer.Option(help="What is sampled.")],
    data: Data = None,
    reference: Reference = None,
    minutes: Minutes = None,
    draws: Draws = None,
    seed: Seed = 0,
    device: Device = "cpu",
    figures: Plots = None,
    json: Json = None,
) -> None:
    """Train a generator, from its energy alone or with frames, and judge it by exact answers or a reference."""
    study = Study("boltzmann", f"train {target}", context.params, packages=PACKAGES)
    study.expectations = EXPECTATIONS[target] | {"free_energy_error_kt": {"lower": -0.01, "upper": 0.01}}
    minutes = MINUTES[target] if minutes is None else minutes
    draws = DRAWS.get(target, 1_000_000) if draws is None else draws
    if target in boltzmann_train.TOYS:
        boltzmann_train.toy(study, target, minutes=minutes, draws=draws, seed=seed)
    elif target == "dw4":
        boltzmann_train.particles(study, minutes=minutes, draws=draws, seed=seed)
    elif target == "lj13":
        if data is None:
            raise DataError(expected("--data", "the npy file of reference frames", None))
        boltzmann_particles.lj13(study, data, minutes=minutes, seed=seed, draws=draws)
    else:
        found = boltzmann_alanine.train(
            study, data=data, reference=reference, minutes=minutes, draws=draws, seed=seed, device=device
        )
        study.notes += save_figures(boltzmann_alanine_plots.plots(*found), figures) if figures else []
    study.finish(json)


@app.command()
def coverage(
    context: typer.Context,
    repeats: Annotated[int, typer.Option(help="Repetitions of each case.")] = 200,
    reports: Annotated[int, typer.Option(help="Independent trust reports on each proposal, shared in turn.")] = 20,
    draws: Annotated[int, typer.Option(help="Draws of each repetition and of each report.")] = 2000,
    only: Annotated[list[str] | None, typer.Option(help="Names of densities; default: all.")] = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Do 95 % intervals cover the exact answer when the report is green, and is every missing mode red?"""
    study = Study("boltzmann", "coverage", context.params, packages=PACKAGES)
    study.expectations = {"coverage_95": {"lower": 0.93, "upper": 0.97}, "false_green_fraction": {"upper": 0.0}}
    boltzmann_coverage.coverage(study, repeats=repeats, reports=reports, draws=draws, only=only or (), seed=seed)
    study.finish(json)


@app.command()
def frames(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="npz to write.")],
    data: Annotated[Path, typer.Option(help="npz with xyz_nm_NAME and Z_NAME of several molecules, to start from.")],
    draws: Annotated[int, typer.Option(help="Frames of each molecule.")] = 2000,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Equilibrium frames of small molecules by GFN2-xTB at 300 K, and their geometries of least energy."""
    study = Study("boltzmann", "frames", context.params, packages=(*PACKAGES, "tblite"))
    boltzmann_frames.generate(study, data, out, draws=draws, seed=seed)
    study.finish(json)


@app.command()
def tempering(
    context: typer.Context,
    out: Annotated[Path, typer.Argument(help="npz to write.")],
    minutes: Annotated[float, typer.Option(help="CPU minutes, about.")] = 12.0,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Configurations of alanine dipeptide by parallel tempering: frames to learn from, or to compare with."""
    study = Study("boltzmann", "tempering", context.params, packages=PACKAGES)
    boltzmann_alanine.tempering(study, out, minutes=minutes, seed=seed)
    study.finish(json)


@app.command()
def transferable(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="What the command frames has written.")],
    minutes: Annotated[float, typer.Option(help="CPU minutes of training in all.")] = 10.0,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """One conditional kernel for all molecules, judged on each molecule that it has not seen."""
    study = Study("boltzmann", "transferable", context.params, packages=PACKAGES)
    study.expectations = {"valid_fraction": {"lower": 0.95}, "ess_fraction": {"lower": 0.05}}
    boltzmann_transferable.transferable(study, data, minutes=minutes, seed=seed)
    study.finish(json)


@app.command()
def temperature(
    context: typer.Context,
    target: Annotated[Steerable, typer.Option(help="Two landscapes in the plane, or a molecule to 1000 K.")] = "plane",
    minutes: Annotated[float | None, typer.Option(help="CPU minutes of each dedicated flow; default: 1 or 10.")] = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """One flow for a range of temperatures beside one for each: as long in the plane, half of all for the molecule."""
    study = Study("boltzmann", "temperature", context.params, packages=PACKAGES)
    study.expectations = {"ess_ratio": {"lower": 0.5}}
    if target == "plane":
        boltzmann_temperature.steering(study, minutes=minutes or 1.0, seed=seed)
    else:
        boltzmann_temperature.alanine_steering(study, minutes=minutes or 10.0, seed=seed)
    study.finish(json)


@app.command()
def speed(
    context: typer.Context,
    prmtop: Annotated[Path | None, typer.Option(help="Amber topology, to run OpenMM beside.")] = None,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Energies with gradients, and training samples of a flow, in a second of one core or of a GPU."""
    study = Study("boltzmann", "speed", context.params, packages=PACKAGES)
    study.expectations = {"force_field_per_cpu_second": {"lower": 20_000.0}}
    boltzmann_speed.force_field(study, device=device)
    if prmtop is not None:
        boltzmann_speed.openmm_reference(study, prmtop)
    boltzmann_speed.flow_training(study, device=device)
    study.finish(json)


@app.command()
def peers(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(help="CPU seconds of training of each package.")] = 30.0,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Double well: ours beside zuko and normflows, in one run."""
    study = Study("boltzmann", "peers", context.params, packages=(*PACKAGES, "zuko", "normflows"))
    boltzmann_toys.peers(study, seconds=seconds, seed=seed)
    study.finish(json)


if __name__ == "__main__":
    run(app)
