"""Kinetics from trajectories: whether intervals of timescales hold, and what they cost."""

from pathlib import Path
from typing import Annotated, Literal

import kinetics_alanine
import kinetics_coverage
import kinetics_dmd
import kinetics_generate
import kinetics_peers
import kinetics_replicas
import kinetics_speed
import kinetics_vampnet
import typer
from harness import Json, Seed, run

from bayesmol.report import Study

PACKAGES = ("torch", "numpy", "scipy", "deeptime", "pydmd", "mdtraj", "openmm", "statsmodels")
Repeats = Annotated[int, typer.Option(help="Independent data sets.", min=2)]
Names = Annotated[list[str] | None, typer.Option(help="Names of landscapes; default: all.")]
Lags = Annotated[list[int] | None, typer.Option("--lag", help="In frames, several times; default: 5, 25 and 50.")]
Folder = Annotated[Path, typer.Option(help="Of the trajectory; a killed run goes on in it.")]

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def coverage(
    context: typer.Context,
    repeats: Repeats = 200,
    frames: Annotated[int, typer.Option(help="Of each trajectory.", min=1000)] = 50_000,
    lag: Lags = None,
    only: Names = None,
    draws: Annotated[int, typer.Option(help="Of each posterior.", min=50)] = 400,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Do 95 % intervals of timescales hold those of the simulated chain, and are they no wider than they must be?"""
    study = Study("kinetics", "coverage", context.params, packages=PACKAGES)
    study.expectations = {
        "coverage_95": {"lower": 0.93, "upper": 0.97, "reference": "deeptime 0.4.5, its default: 0.27 to 0.75"},
        "relative_width": {"lower": 0.85, "upper": 1.15},
    }
    kinetics_coverage.coverage(
        study, repeats=repeats, frames=frames, lags=lag or (5, 25, 50), only=only or (), draws=draws, seed=seed
    )
    study.finish(json)


@app.command()
def speed(context: typer.Context, seed: Seed = 0, json: Json = None) -> None:
    """CPU seconds of posteriors of Markov state models and TICA, beside deeptime's where it is installed."""
    study = Study("kinetics", "speed", context.params, packages=PACKAGES)
    study.expectations = {
        "msm_cpu_seconds_100": {"upper": 1.0, "reference": "deeptime 0.4.5: 9.7"},
        "msm_cpu_seconds_500": {"upper": 10.0, "reference": "deeptime 0.4.5: about 350"},
        "delta_cpu_seconds_500": {"upper": 0.5},
        "tica_cpu_seconds_1e6": {"upper": 4.0, "reference": "deeptime 0.4.5, without posterior: 1.8"},
    }
    kinetics_speed.speed(study, seed=seed)
    study.finish(json)


@app.command()
def dmd(context: typer.Context, repeats: Repeats = 1000, seed: Seed = 0, json: Json = None) -> None:
    """Intervals of dynamic modes: two planted ones in noise, beside PyDMD's; and the temperature of the sea."""
    study = Study("kinetics", "dmd", context.params, packages=PACKAGES)
    study.expectations = {
        "dmd_coverage_95": {"lower": 0.93, "upper": 0.97, "reference": "BOPDMD: 0.83 to 0.87"},
        "dmd_cpu_seconds": {"upper": 0.1, "reference": "BOPDMD: 0.5 to 0.7"},
    }
    kinetics_dmd.dmd(study, repeats=repeats, seed=seed)
    kinetics_dmd.sea_surface(study, seed=seed)
    study.finish(json)


@app.command()
def generate(
    context: typer.Context,
    out: Folder = Path("alanine"),
    nanoseconds: Annotated[float, typer.Option(help="In all.", min=0.1)] = 100.0,
    trajectories: Annotated[int, typer.Option(help="Independent ones.", min=1)] = 64,
    program: Annotated[
        Literal["bayesmol", "openmm"], typer.Option(help="All trajectories side by side, or one after the other.")
    ] = "bayesmol",
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Molecular dynamics of alanine dipeptide in implicit solvent; killed, it goes on where it was."""
    study = Study("kinetics", "generate", context.params, packages=PACKAGES)
    if program == "openmm":
        kinetics_generate.generate(study, out, nanoseconds, seed, trajectories=trajectories)
    else:
        kinetics_replicas.generate(study, out, nanoseconds, seed, replicas=trajectories)
    study.finish(json)


@app.command(name="alanine-dipeptide")
def alanine_dipeptide(
    context: typer.Context,
    folder: Folder = Path("alanine"),
    lag: Annotated[int, typer.Option(help="In frames.", min=1)] = 10,
    pieces: Annotated[int, typer.Option(help="That the trajectory is cut into.", min=2)] = 8,
    states: Annotated[int, typer.Option(help="Clusters of the torsions.", min=2)] = 50,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Do intervals from pieces of a long trajectory hold what the whole of it shows?"""
    study = Study("kinetics", "alanine-dipeptide", context.params, packages=PACKAGES)
    study.expectations = {"coverage_95": {"lower": 0.9}}
    kinetics_alanine.alanine(study, folder, lag=lag, pieces=pieces, states=states, seed=seed)
    study.finish(json)


@app.command()
def peers(
    context: typer.Context,
    landscape: Annotated[str, typer.Option(help="Name of a landscape.")] = "prinz",
    repeats: Repeats = 40,
    frames: Annotated[int, typer.Option(help="Of each trajectory.", min=1000)] = 50_000,
    lag: Annotated[int, typer.Option(help="In frames.", min=1)] = 25,
    timescales: Annotated[int, typer.Option(help="How many.", min=1)] = 3,
    draws: Annotated[int, typer.Option(help="Of each posterior.", min=50)] = 400,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """The same trajectories by bayesmol and by deeptime: whose 95 % intervals hold, and what they cost."""
    study = Study("kinetics", "peers", context.params, packages=PACKAGES)
    study.expectations = {"coverage_95": {"lower": 0.93, "upper": 0.97}, "ratio_to_deeptime": {"lower": 1.0}}
    kinetics_peers.peers(
        study, name=landscape, repeats=repeats, frames=frames, lag=lag, count=timescales, draws=draws, seed=seed
    )
    study.finish(json)


@app.command()
def vampnet(
    context: typer.Context,
    repeats: Repeats = 20,
    trajectories: Annotated[int, typer.Option(help="Of 160 time units each.", min=20)] = 500,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """The slow rate of the double well by VAMPnets: bands over independent data sets."""
    study = Study("kinetics", "vampnet", context.params, packages=PACKAGES)
    study.expectations = {
        "vampnet_coverage_95": {"lower": 0.85},
        "vampnet_rate_error": {"lower": -0.03, "upper": 0.03},
    }
    kinetics_vampnet.vampnet(study, repeats=repeats, trajectories=trajectories, seed=seed)
    study.finish(json)


if __name__ == "__main__":
    run(app)
