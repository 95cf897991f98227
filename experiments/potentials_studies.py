"""Commands of the studies of single questions about potentials; each imports what it needs when it is called."""

from pathlib import Path
from typing import Annotated

import potentials_learn
import typer
from harness import Device, Dtype, Json, Plots, Seed, labelled, save_figures
from potentials_models import Model, fit, specification
from potentials_options import Calibration, Epochs, File, Posterior, Shuffle, Size, Validation

import bayesmol as bm
from bayesmol.errors import DataError, expected
from bayesmol.report import Study

SURVIVAL = {
    "failures": {"upper": 0.0},
    "nve_drift_100ps_largest": {"upper": 0.001},
    "wall_draws_above_10_ev": {"lower": 1.0},
    "draws_without_collapse": {"lower": 1.0},
}

app = typer.Typer()


@app.command("md-soak")
def md_soak(
    context: typer.Context,
    model: Annotated[Model, typer.Option(help="The potential that moves the atoms, certified.")] = "ace",
    posterior: Posterior = None,
    train: File = "rmd17/ethanol/train",
    train_size: Size = 250,
    validation_size: Validation = 50,
    calibration_size: Calibration = 250,
    epochs: Epochs = None,
    replicas: Annotated[int, typer.Option(help="Molecules side by side.")] = 100,
    steps: Annotated[int, typer.Option(help="Steps of each.")] = 10_000,
    picoseconds: Annotated[float, typer.Option(help="At constant energy, and of each draw at 600 K; 0: none.")] = 100.0,
    draws: Annotated[int, typer.Option(help="Posterior draws pushed together and, of ace, moved; 0: none.")] = 20,
    seed: Seed = 0,
    device: Device = "cpu",
    json: Json = None,
) -> None:
    """Does it survive molecular dynamics? A million steps, drift of the energy, posterior draws at 600 K, walls.

    Example: md-soak --model ace --replicas 10 --steps 1000 --picoseconds 1 --draws 4
    """
    import potentials_md

    study = Study("potentials", "md-soak", context.params, expectations=SURVIVAL)
    frames = labelled(train, device)
    parts = potentials_learn.parts(frames, train_size, calibration_size, validation_size)
    with study.stage("train"):
        fitted = fit(specification(model, posterior=posterior, epochs=epochs), *parts[:2], seed=seed)
        certified = bm.certify(fitted, parts[2])
    starts = parts[0].structures
    potentials_md.step_cost(study, certified, starts)
    potentials_md.md_soak(study, certified, starts, replicas=replicas, steps=steps, seed=seed)
    if picoseconds > 0:
        potentials_md.nve_drift(study, certified, starts, picoseconds=picoseconds, seed=seed)
    if draws > 0:
        potentials_md.walls(study, certified, starts[0], draws=draws, seed=seed)
    if draws > 0 and picoseconds > 0 and model == "ace":
        potentials_md.draws_soak(study, certified, starts, draws=draws, picoseconds=picoseconds, seed=seed)
    study.finish(json)


@app.command()
def foundation(
    context: typer.Context,
    train: File,
    test: File,
    base: Annotated[str, typer.Option(help="chgnet, chgnet:VERSION, GFN2-xTB or GFN1-xTB.")] = "chgnet",
    way: Annotated[
        str | None, typer.Option(help="last-layer or residual; default: the last layer where there is one.")
    ] = None,
    train_size: Size = None,
    calibration_size: Calibration = None,
    test_size: Size = None,
    shuffle: Shuffle = False,
    rank: Annotated[int, typer.Option(help="Directions of the features of a last layer.")] = 12,
    cache: Annotated[Path | None, typer.Option(help="Folder for the labels of a tight-binding method.")] = None,
    seed: Seed = 0,
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """A potential that exists already, corrected by labels, certified: is it better, and are its intervals true?

    Example: foundation --base GFN2-xTB --train rmd17/ethanol/train --test rmd17/ethanol/test --train-size 50
    """
    import potentials_foundation

    study = Study("potentials", "foundation", context.params)
    frames = labelled(train).shuffle(seed=seed) if shuffle else labelled(train)
    training, _, calibration = potentials_learn.parts(frames, train_size, calibration_size)
    if calibration is None:
        raise DataError(expected("--calibration-size", "frames that are left after the training frames", "none"))
    options = {"base": base, "way": way, "rank": rank, "cache": cache, "seed": seed}
    parts = {"train": training, "calibration": calibration, "test": labelled(test)[:test_size]}
    drawn = potentials_foundation.foundation(study, **parts, **options)
    study.notes += save_figures(drawn, pictures) if pictures else []
    study.finish(json)


@app.command()
def posteriors(
    context: typer.Context,
    train: File = "rmd17/ethanol/train",
    test: File = "rmd17/ethanol/test",
    posterior: Annotated[
        list[str] | None, typer.Option(help="As for learn; may be given several times. Default: all.")
    ] = None,
    train_size: Size = 50,
    validation_size: Annotated[int, typer.Option(help="Frames that stop the training and scale the error bars.")] = 10,
    test_size: Size = 100,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """Cheap posteriors of a small atomic network beside its no-U-turn draws: do they rank the errors alike?

    Example: posteriors --posterior laplace --posterior swag --train-size 20 --test-size 50
    """
    import potentials_posteriors

    study = Study("potentials", "posteriors", context.params)
    names = posterior or potentials_posteriors.NAMES
    study.expectations = {f"{name}_rank_nuts": {"lower": 0.8} for name in names}
    frames = labelled(train, device, dtype).split(train_size, validation_size)
    testing = labelled(test, device, dtype)[:test_size]
    drawn = potentials_posteriors.posteriors(study, frames, testing, names=names, seed=seed)
    study.notes += save_figures(drawn, pictures) if pictures else []
    study.finish(json)


@app.command()
def tabulate(
    context: typer.Context,
    train: Annotated[str, typer.Option(help="Frames of a crystal or molecule of one element: a file.")],
    test: Annotated[str, typer.Option(help="Frames on which tables and kernel are compared: a file.")],
    train_size: Size = None,
    test_size: Size = None,
    seed: Seed = 0,
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """A pair potential as splines, mean and variance: what the tables keep of the kernel form, and what they save.

    Example: tabulate --train silicon_train.json --test silicon_test.json --train-size 50
    """
    import potentials_tabulate

    study = Study("potentials", "tabulate", context.params)
    study.expectations = {"deviation_energy": {"upper": 1e-4}, "ratio_to_kernel": {"lower": 50.0}}
    frames = labelled(train)[:train_size], labelled(test)[:test_size]
    drawn = potentials_tabulate.tabulate(study, *frames, seed=seed)
    study.notes += save_figures(drawn, pictures) if pictures else []
    study.finish(json)


@app.command()
def crossover(
    context: typer.Context,
    model: Annotated[
        list[str] | None, typer.Option(help="Two or more, as for learn. Default: ace and gradient-gp.")
    ] = None,
    train: File = "rmd17/ethanol/train",
    test: File = "rmd17/ethanol/test",
    size: Annotated[list[int] | None, typer.Option(help="Labels; several times. Default: 25, 50, 100, 200.")] = None,
    test_size: Size = 200,
    seeds: Annotated[int, typer.Option(help="Random subsets of each size.")] = 4,
    budget: Annotated[int | None, typer.Option(help="Labels to choose a model for; default: the last size.")] = None,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
    pictures: Plots = None,
) -> None:
    """Kernel or network? Learning curves, the number of labels at which they cross, and which to take.

    Example: crossover --model ace --model equivariant --size 50 --size 100 --size 200 --seeds 3
    """
    import potentials_crossover

    study = Study("potentials", "crossover", context.params)
    frames = labelled(train, device, dtype), labelled(test, device, dtype)[:test_size]
    options = {"models": model or ("ace", "gradient-gp"), "seeds": seeds, "budget": budget, "seed": seed}
    drawn = potentials_crossover.cross(study, *frames, sorted(size or (25, 50, 100, 200)), **options)
    study.notes += save_figures({"learning_curves": drawn}, pictures) if pictures else []
    study.finish(json)
