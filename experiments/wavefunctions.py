"""Variational Monte Carlo: energies of molecules with error bars, and whether these hold."""

from pathlib import Path
from typing import Annotated

import typer
import wavefunctions_coverage
import wavefunctions_curve
import wavefunctions_energy
import wavefunctions_exact
import wavefunctions_extrapolation
import wavefunctions_peers
from harness import Device, Json, Plots, Seed, run, save_figures

from bayesmol.report import Study
from bayesmol.vmc import PACKAGES, Determinants, Kind, Number

System = Annotated[
    str, typer.Option(help="An atom or molecule of the literature, such as He, H2, LiH, Be, H4-square; or a file.")
]
Minutes = Annotated[
    float, typer.Option(help="Wall time with all compilation; the evaluation takes 200 draws at least.", min=0.01)
]
Repeats = Annotated[int, typer.Option(help="Independent runs of each system.", min=2)]
Walkers = Annotated[int, typer.Option(help="Walkers of each run.", min=2)]
Draws = Annotated[int, typer.Option(help="Draws of each walker.", min=50)]
Trained = Annotated[
    int, typer.Option(help="Steps of a PauliNet, where no exact state is known; 0: an untrained Slater-Jastrow.", min=0)
]
Reference = Annotated[float | None, typer.Option(help="Energy in Ha to compare with; default: the known exact one.")]
Exact = Annotated[float | None, typer.Option(help="Standard error in Ha down to which the determinant is sampled.")]
Names = Annotated[list[str] | None, typer.Option(help="Names of systems; default: all.")]
Peer = Annotated[Path | None, typer.Option(help="deepqmc of an environment with deepqmc==1.3.0 and tensorboard.")]

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def energy(
    context: typer.Context,
    system: System,
    minutes: Minutes = 3.0,
    ansatz: Kind = "paulinet",
    determinants: Determinants = None,
    draws: Number = None,
    reference: Reference = None,
    seed: Seed = 0,
    device: Device = "cpu",
    figures: Plots = None,
    json: Json = None,
) -> None:
    """Energy of one system within so many minutes, beside the exact one, with all plots."""
    study = Study("wavefunctions", f"energy {system}", context.params, packages=PACKAGES)
    judged = wavefunctions_energy.energy(
        study, system, minutes=minutes, kind=ansatz, determinants=determinants, draws=draws, reference=reference,
        seed=seed, device=device,
    )  # fmt: skip
    if figures is not None:
        study.notes += save_figures(dict(judged.figures(seed=seed + 3)), figures)
    study.finish(json)


@app.command()
def exact(
    context: typer.Context,
    draws: Draws = 400,
    error: Exact = None,
    only: Names = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """States in closed form: variances of zero; determinants of Hartree–Fock: their energy; cusps and exchange."""
    study = Study("wavefunctions", "exact", context.params, packages=PACKAGES)
    wavefunctions_exact.exact(study, draws=draws, only=only or (), seed=seed)
    wavefunctions_exact.determinants(study, draws=draws, error=error, only=only or (), seed=seed)
    wavefunctions_exact.limits(study, only=only or (), seed=seed)
    study.finish(json)


@app.command()
def coverage(
    context: typer.Context,
    repeats: Repeats = 200,
    walkers: Walkers = 32,
    draws: Draws = 400,
    trained: Trained = 0,
    only: Names = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Do 95 % intervals of the sampled energy cover that of all other runs, and are stuck samplers refused?"""
    study = Study("wavefunctions", "coverage", context.params, packages=PACKAGES)
    study.expectations = {
        "coverage_95": {"lower": 0.93, "upper": 0.97},
        "refused_fraction_stuck": {"lower": 0.99},
    }
    sizes = {"repeats": repeats, "walkers": walkers, "draws": draws, "trained": trained}
    wavefunctions_coverage.coverage(study, **sizes, only=only or (), seed=seed)
    study.finish(json)


@app.command()
def extrapolation(
    context: typer.Context,
    seeds: Annotated[int, typer.Option(help="Trainings of each system and number of steps.", min=1)] = 3,
    draws: Draws = 400,
    only: Names = None,
    keep: Annotated[Path | None, typer.Option(help="File of outcomes: added to, and not found again.")] = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Do intervals of the energy extrapolated to variance zero, from one short training each, hold the exact one?"""
    study = Study("wavefunctions", "extrapolation", context.params, packages=PACKAGES)
    study.expectations = {"extrapolated_coverage_95": {"lower": 0.9}, "bound_coverage_95": {"lower": 0.95}}
    wavefunctions_extrapolation.extrapolation(study, seeds=seeds, draws=draws, only=only or (), seed=seed, kept=keep)
    study.finish(json)


@app.command()
def curve(
    context: typer.Context,
    minutes: Annotated[float, typer.Option(help="Wall time of the first geometry.", min=0.01)] = 1.5,
    minutes_each: Annotated[float | None, typer.Option(help="Of each other; default: a third of the first.")] = None,
    determinants: Determinants = None,
    draws: Draws = 1000,
    checkpoint: Annotated[Path | None, typer.Option(help="Folder to go on in after a kill.")] = None,
    seed: Seed = 0,
    figures: Plots = None,
    json: Json = None,
) -> None:
    """H2 at eight distances: energies beside full CI, bond length and frequency of a potential fitted to them."""
    study = Study("wavefunctions", "curve", context.params, packages=(*PACKAGES, "gpytorch"))
    study.expectations = wavefunctions_curve.EXPECTATIONS
    found = wavefunctions_curve.curve(
        study, minutes=minutes, minutes_each=minutes_each, determinants=determinants, draws=draws,
        checkpoint=checkpoint, seed=seed,
    )  # fmt: skip
    study.notes += save_figures(found, figures) if figures else []
    study.finish(json)


@app.command()
def peers(
    context: typer.Context,
    system: System = "LiH",
    minutes: Minutes = 2.0,
    deepqmc: Peer = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """One system by bayesmol and by DeepQMC for three times as long, the larger variance over the smaller one."""
    study = Study("wavefunctions", f"peers {system}", context.params, packages=PACKAGES)
    study.expectations = {"ratio_to_deepqmc": {"lower": 10.0}}
    wavefunctions_peers.peers(study, system, minutes=minutes, deepqmc=deepqmc, seed=seed)
    study.finish(json)


if __name__ == "__main__":
    run(app)
