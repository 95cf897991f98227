"""Interatomic potentials with error bars: what they reach, what they cost, and whether their error bars are true."""

from typing import Annotated

import potentials_gpu
import potentials_learn
import potentials_peers
import potentials_scorecard
import potentials_studies
import torch
import typer
from harness import Device, Dtype, Json, Plots, Seed, expectations, labelled, placed, run, save_figures
from peers import LENGTH_SCALE, PEERS
from potentials_models import Model, specification
from potentials_options import (
    Calibration,
    Checkpoint,
    Epochs,
    File,
    Joined,
    Minutes,
    Models,
    Posterior,
    Probe,
    ProbeTolerance,
    Shuffle,
    Size,
    Transfer,
    Validation,
)

import bayesmol as bm
from bayesmol.report import Study
from bayesmol.scorecards import Budget

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
app.add_typer(potentials_studies.app)


@app.command()
def learn(
    context: typer.Context,
    train: File,
    test: File,
    model: Annotated[Model, typer.Option(help="BayesianACE, GradientGP for one molecule, or a network.")] = "ace",
    posterior: Posterior = None,
    train_size: Size = None,
    validation_size: Validation = 0,
    calibration_size: Calibration = None,
    test_size: Size = None,
    shuffle: Shuffle = False,
    epochs: Epochs = None,
    minutes: Minutes = None,
    checkpoint: Checkpoint = None,
    probe: Probe = None,
    probe_tolerance: ProbeTolerance = 0.1,
    probe_factor: Annotated[float | None, typer.Option(help="The same in energy RMSEs of the test frames.")] = None,
    length_scale: Annotated[str, typer.Option(help="GradientGP: a number in 1/Å, or 'learned'.")] = str(LENGTH_SCALE),
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """Fit, certify, predict: accuracy, calibration, domain and cost.

    Example: learn --train rmd17/ethanol/train --test rmd17/ethanol/test --train-size 50 --model ace
    """
    frames = labelled(train, device, dtype)
    frames = frames.shuffle(seed=seed) if shuffle else frames
    parts = potentials_learn.parts(frames, train_size, calibration_size, validation_size)
    names = ("train_frames", "validation_frames", "calibration_frames")
    sizes = {name: 0 if part is None else len(part) for name, part in zip(names, parts, strict=True)}
    study = Study("potentials", "learn", context.params | sizes)
    study.expectations = expectations(train, test, model, len(parts[0]) + validation_size)
    chosen = specification(model, length_scale, posterior, epochs)
    testing, probes = labelled(test, device, dtype)[:test_size], potentials_learn.together(probe or [], device, dtype)
    limits = {"tolerance": probe_tolerance, "factor": probe_factor, "seed": seed}
    limits |= {"minutes": minutes, "checkpoint": checkpoint}
    drawn = potentials_learn.learn(study, chosen, parts, testing, probes, **limits)
    study.notes += save_figures(drawn, pictures) if pictures else []
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
    frames = placed(potentials_peers.monte_carlo(train), device, dtype)
    study = Study("potentials", "noisy-labels", context.params)
    study.expectations = expectations(train, train, "ace", len(frames))
    potentials_peers.noisy_labels(study, frames, seed=seed)
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
    sides = labelled(train)[:train_size], labelled(test)[:test_size]
    potentials_peers.peers(study, *sides, repeats=repeats, threads=threads, seed=seed)
    study.finish(json)


@app.command()
def scorecard(
    context: typer.Context,
    model: Models = None,
    train: File = "rmd17/ethanol/train",
    test: File = "rmd17/ethanol/test",
    transfer: Transfer = "methanol/test",
    train_size: Size = 200,
    validation_size: Validation = 50,
    calibration_size: Annotated[int, typer.Option(help="Frames after those, for intervals and domain.")] = 250,
    test_size: Size = None,
    shuffle: Shuffle = False,
    epochs: Epochs = None,
    seconds: Annotated[float, typer.Option(help="Time to measure how the time of a step grows, for each model.")] = 60,
    memory: Annotated[float, typer.Option(help="Memory in MB that a large system may need.")] = 6000,
    join: Joined = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """Accurate, cheap, scalable, transferable, honest? Each with an interval and a verdict, for all potentials.

    Every model gets the same labels, is certified with the same frames, and is tested on the same ones. The plots are
    the front of cost, accuracy and honesty, and the time of a step against the number of atoms.

    Example: scorecard --model ace --model equivariant:laplace --figures plots --json card.json
    """
    frames, testing = labelled(train, device, dtype), labelled(test, device, dtype)[:test_size]
    frames = frames.shuffle(seed=seed) if shuffle else frames
    other = None if transfer == "none" else labelled(transfer, device, dtype)
    names = model or potentials_scorecard.defaults(frames)
    study = Study("potentials", "scorecard", context.params | {"model": names, "join": [str(p) for p in join or []]})
    options = {"budget": Budget(seconds, memory), "seed": seed, "epochs": epochs}
    options["joined"] = join or []
    split = frames.split(train_size, validation_size, calibration_size)
    drawn = potentials_scorecard.scorecards(study, names, split, testing, other, **options)
    study.notes += save_figures(drawn, pictures) if pictures else []
    study.finish(json)


@app.command()
def gpu(
    context: typer.Context,
    part: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(potentials_gpu.PARTS)}; may be given several times. Default: all."),
    ] = None,
    small: Annotated[bool, typer.Option("--small", help="A rehearsal: few frames, few epochs, no result.")] = False,
    posterior: Posterior = None,
    minutes: Minutes = 25.0,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    device: Device = "cuda",
    json: Json = None,
) -> None:
    """Everything that wants a GPU: agreement with the CPU, a large process, 50 000 force rows, the equivariant network.

    Needs no file but those that ship. Exit code 3: torch finds no CUDA device. 1: a part failed, see the notes. A
    rehearsal without a GPU: gpu --device cpu --small
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        typer.echo("error: torch finds no CUDA device here; rehearse with --device cpu --small", err=True)
        raise typer.Exit(potentials_gpu.NO_DEVICE)
    study = Study("potentials", "gpu", dict(context.params))
    sizes = potentials_gpu.SMALL if small else potentials_gpu.FULL
    rows = potentials_gpu.Rows(bm.data.load("rmd17/ethanol"), device, sizes, seed, posterior, minutes, checkpoint)
    failed = potentials_gpu.gpu(study, rows, potentials_gpu.chosen_parts(part))
    study.finish(json)
    if failed:
        raise typer.Exit(potentials_gpu.FAILED)


if __name__ == "__main__":
    run(app)
