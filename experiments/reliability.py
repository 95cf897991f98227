"""May it run for weeks, and wider? Memory in long dynamics, one and two threads, one and two workers of a cluster."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import reliability_soak
import reliability_threads
import reliability_workers
import typer
from harness import Json, Seed, run

from bayesmol.report import Study

PACKAGES = ("torch", "jax", "numpy", "scipy", "ase", "vesin")

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def soak(
    context: typer.Context,
    steps: Annotated[int, typer.Option(help="Of the dynamics.", min=100)] = 1_000_000,
    looks: Annotated[int, typer.Option(help="At the memory, evenly.", min=20)] = 200,
    minutes: Annotated[float, typer.Option(help="CPU time after which it ends early.", min=0.05)] = 10.0,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Ethanol by a certified potential as an ASE calculator, Langevin at 100 K: resident memory over the steps."""
    study = Study("reliability", "soak", context.params, packages=PACKAGES)
    study.expectations["memory_slope_mb_per_million_steps"] = {"upper": 20.0}
    study.expectations["new_objects"] = {"upper": 0.0}
    reliability_soak.soak(study, steps=steps, looks=looks, minutes=minutes, seed=seed)
    study.finish(json)


@app.command()
def threads(context: typer.Context, seed: Seed = 0, json: Json = None) -> None:
    """Fits and predictions of each family on one and on two threads: the same bits, or how far apart."""
    study = Study("reliability", "threads", context.params, packages=PACKAGES)
    with TemporaryDirectory() as folder:
        reliability_threads.compare(study, Path(folder), seed=seed)
    study.finish(json)


@app.command()
def workers(
    context: typer.Context,
    pool: Annotated[int, typer.Option(help="Structures to choose from.", min=1000)] = 10_000,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """The choice from a pool of ethanol here, on one worker and on two of a Dask cluster on this machine: wall time."""
    study = Study("reliability", "workers", context.params, packages=(*PACKAGES, "distributed"))
    study.expectations["same_choice"] = {"lower": 1.0}
    reliability_workers.compare(study, pool=pool, seed=seed)
    study.finish(json)


@app.command(hidden=True)
def answers(family: str, path: Path, cores: int = 1, seed: Seed = 0) -> None:
    """What ``threads`` runs in a process of its own."""
    reliability_threads.answer(family, path, cores=cores, seed=seed)


if __name__ == "__main__":
    run(app)
