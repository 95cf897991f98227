"""The calibration laboratory: is the uncertainty true, do the intervals hold, and at what cost?"""

from pathlib import Path
from typing import Annotated

import calibration_conformal
import calibration_coverage
import calibration_cross
import calibration_families
import calibration_locality
import calibration_peers
import calibration_shift
import calibration_statistics
import calibration_study
import typer
from harness import Device, Dtype, Json, Plots, Seed, labelled, run, save_figures

from bayesmol.report import Study

File = Annotated[str, typer.Option(help="A file in any format that the package reads, or the name of a bundled set.")]
Tables = Annotated[
    Path | None, typer.Option(help="Folder with the wheels of madml and chemicals; their tables are read, not run.")
]
Threads = Annotated[int, typer.Option(help="Threads of each side.")]
ETHANOL = "rmd17/ethanol"

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def statistics(
    context: typer.Context,
    sizes: Annotated[list[int] | None, typer.Option(help="Numbers of labels; default: 200, 1000, 10000.")] = None,
    replications: Annotated[int, typer.Option(help="Sets of labels; fewer are drawn of more than 2000 labels.")] = 2000,
    largest: Annotated[int, typer.Option(help="Most labels of a timed report.")] = 10**6,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """What a report costs, how often its verdict is a false alarm, and what it finds."""
    study = Study("calibration", "statistics", context.params)
    study.expectations = {
        "report_cpu_seconds_1e5": {"upper": 0.5, "reference": "uncertainty-toolbox 35.5 for fewer statistics"},
        "report_cpu_seconds_1e6": {"upper": 5.0},
        "verdict_false_alarm_rate": {"lower": 0.04, "upper": 0.06},
        "verdict_power": {"lower": 0.9},
        "crps_standard_normal_at_zero": {"lower": 0.2336949, "upper": 0.2336950},
        "brier_identity_gap": {"upper": 1e-12},
    }
    chosen = sizes or [200, 1000, 10_000]
    calibration_statistics.statistics(study, sizes=chosen, replications=replications, largest=largest, seed=seed)
    study.finish(json)


@app.command()
def conformal(
    context: typer.Context,
    train: File = ETHANOL,
    train_size: Annotated[int, typer.Option(help="Frames to learn from; the next calibrate.")] = 50,
    calibration_size: Annotated[int, typer.Option(help="Frames that calibrate; those after them are the test.")] = 200,
    test: Annotated[str | None, typer.Option(help="Test frames; default: what is left of the training file.")] = None,
    tables: Tables = None,
    replications: Annotated[int, typer.Option(help="Data sets of the coverage of each method.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Splits of each table.")] = 5,
    threads: Threads = 1,
    full: Annotated[bool, typer.Option("--full", help="Let MAPIE predict all points of the large run.")] = False,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Coverage of every conformal method, atoms and structures, tables of materials, and the cost of CV+."""
    study = Study("calibration", "conformal", context.params, packages=("torch", "numpy", "scikit-learn", "mapie"))
    study.expectations = {
        "all_atoms_coverage": {"lower": 0.9, "reference": "pooled atoms cover 56 % of structures in a simulation"},
        "worst_decile_coverage": {"lower": 0.87, "reference": "MAPIE by RF deviation 0.854"},
        "relative_width": {"upper": 1.07, "reference": "MAPIE by RF deviation 1.068"},
    }
    calibration_cross.measure(study, threads=threads, full=full, seed=seed)
    calibration_coverage.coverage(study, replications=replications, seed=seed)
    frames = labelled(train)
    fitting, calibrating = frames.split(train_size, calibration_size)
    rest = frames[train_size + calibration_size :]
    calibration_conformal.all_atoms(study, fitting, calibrating, labelled(test) if test else rest, seed=seed)
    if tables is not None:
        calibration_conformal.superconductors(study, tables, seeds=range(seeds))
        calibration_conformal.widths(study, tables, seeds=range(seeds))
    study.finish(json)


@app.command()
def shift(
    context: typer.Context,
    train: Annotated[str, typer.Option(help="Frames of one temperature, to learn from and to calibrate with.")],
    same: Annotated[str, typer.Option(help="More frames of this temperature.")],
    unlabelled: Annotated[str, typer.Option(help="Frames of another temperature, whose labels are not used.")],
    test: Annotated[str, typer.Option(help="Test frames of the other temperature.")],
    train_size: Annotated[int, typer.Option(help="Frames to learn from; the others calibrate.")] = 200,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
) -> None:
    """Intervals and alarms where the test differs from the calibration; correlated streams."""
    study = Study("calibration", "shift", context.params)
    study.expectations = {
        "shift_coverage": {"lower": 0.88},
        "ar1_effective_fraction_ratio": {"lower": 0.9, "upper": 1.1},
        **{f"ar1_coverage_{method}": {"lower": 0.88, "upper": 0.92} for method in ("aci", "dtaci", "pid", "blocks")},
    }
    sets = [labelled(name, device, dtype) for name in (train, same, unlabelled, test)]
    calibration_shift.temperature(study, *sets, size=train_size, seed=seed)
    calibration_shift.correlated(study, seed=seed)
    calibration_shift.watched(study, seed=seed)
    study.finish(json)


@app.command()
def locality(
    context: typer.Context,
    train: File = ETHANOL,
    train_size: Annotated[int, typer.Option(help="Frames to learn from.")] = 50,
    test: Annotated[str | None, typer.Option(help="Test frames; default: what is left of the training file.")] = None,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Where the errors of a potential are, and whether its standard deviations know it."""
    study = Study("calibration", "locality", context.params)
    frames = labelled(train)
    rest = labelled(test) if test else frames[train_size:]
    calibration_locality.locality(study, frames[:train_size], rest, seed=seed)
    study.finish(json)


@app.command()
def study(
    context: typer.Context,
    tables: Tables = None,
    cache: Annotated[
        Path | None, typer.Option(help="Results that are kept; a killed study goes on from there.")
    ] = None,
    tasks: Annotated[list[str] | None, typer.Option(help="Tasks; may be given several times; default: all.")] = None,
    models: Annotated[list[str] | None, typer.Option(help="Models; may be given several times; default: all.")] = None,
    seeds: Annotated[int, typer.Option(help="Number of splits of each task.")] = 5,
    json: Json = None,
) -> None:
    """Models with uncertainty, with and without recalibration, on frozen tasks; "better" only by paired intervals."""
    found = Study("calibration", "study", context.params, packages=("torch", "scikit-learn", "gpytorch", "pyro-ppl"))
    records = calibration_study.benchmark(found, tables=tables, cache=cache, tasks=tasks, models=models, seeds=seeds)
    calibration_study.finish(found, records, json)


@app.command()
def peers(
    context: typer.Context,
    rows: Annotated[int, typer.Option(help="Number of labels.")] = 10_000,
    repeats: Annotated[int, typer.Option(help="Turns of each side; CPU seconds are medians.")] = 3,
    threads: Threads = 1,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """The report and the conformal rules beside uncertainty-toolbox, netcal and crepes in one run."""
    found = Study("calibration", "peers", context.params, packages=("torch", "numpy", "uncertainty-toolbox", "netcal"))
    calibration_peers.measure(found, rows=rows, repeats=repeats, threads=threads, seed=seed)
    found.finish(json)


@app.command()
def families(
    context: typer.Context,
    repeats: Annotated[int, typer.Option(help="Independent data sets of each family.", min=20)] = 100,
    seed: Seed = 0,
    figures: Plots = None,
    json: Json = None,
) -> None:
    """Every family of the package in one table: nominal and observed coverage, with exact bands and the peers."""
    found = Study("calibration", "families", context.params, packages=("torch", "jax", "deeptime", "pydmd"))
    found.expectations = {"rows_outside": {"upper": 0}}
    rows = calibration_families.families(found, repeats=repeats, seed=seed)
    pictures = {"families": calibration_families.plot(rows)}
    found.notes += save_figures(pictures, figures) if figures else []
    found.finish(json)


if __name__ == "__main__":
    run(app)
