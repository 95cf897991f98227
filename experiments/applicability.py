"""May I trust it here? Scores of strangeness, domains, control of errors and alarms, on real data."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import applicability_control
import applicability_guarantee
import applicability_monitor
import applicability_potentials
import applicability_tables
import calibration_tasks
import typer
from harness import Device, Dtype, Json, Plots, Seed, labelled, run, save_figures

from bayesmol.report import Study

File = Annotated[str, typer.Option(help="A file in any format that the package reads, or the name of a bundled set.")]
PACKAGES = ("torch", "numpy", "scikit-learn", "ase", "tblite")

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def tables(
    context: typer.Context,
    tables: Annotated[
        Path, typer.Option(help="Folder with the wheel of madml, or for it; its tables are read, not run.")
    ] = Path("tables"),
    draws: Annotated[int, typer.Option(help="Calibration draws of the rate of false alarms.")] = 1000,
    seeds: Annotated[int, typer.Option(help="Splits of each table.")] = 3,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Scores on four tables of materials, leaving out groups; how often the threshold keeps its level."""
    study = Study("applicability", "tables", context.params, packages=PACKAGES)
    study.expectations = {
        "mean_auroc": {"lower": 0.95, "reference": "kNN 0.93, Gaussian KDE 0.91, MADML-style KDE 0.85"},
        "guarantee_held_fraction": {"lower": 0.95, "reference": "MADML: no guarantee"},
    }
    applicability_tables.compare(study, tables=wheel(tables), seeds=seeds)
    applicability_guarantee.held(study, labelled("rmd17/ethanol"), draws=draws, seed=seed)
    study.finish(json)


@app.command()
def potentials(context: typer.Context, seed: Seed = 0, figures: Plots = None, json: Json = None) -> None:
    """Domains of atoms and of potentials: bonds that break, dimers, other conformers; which atom is to blame."""
    study = Study("applicability", "potentials", context.params, packages=PACKAGES)
    plots = applicability_potentials.potentials(study, seed=seed)
    study.notes += save_figures(plots, figures) if figures else []
    study.finish(json)


@app.command()
def control(
    context: typer.Context,
    train: File = "rmd17/ethanol",
    test: Annotated[
        str | None, typer.Option(help="Labelled frames; default: what is left of the training file.")
    ] = None,
    train_size: Annotated[int, typer.Option(help="Frames to learn from.")] = 50,
    calibration_size: Annotated[int, typer.Option(help="Frames that calibrate, in each resplit.")] = 400,
    resplits: Annotated[int, typer.Option(help="Number of resplits.")] = 200,
    seed: Seed = 0,
    device: Device = "cpu",
    dtype: Dtype = "float64",
    json: Json = None,
) -> None:
    """Is at most the promised share of accepted predictions worse than the tolerance?"""
    study = Study("applicability", "control", context.params, packages=PACKAGES)
    study.expectations = {"guarantee_held_fraction": {"lower": 0.95, "reference": "no other package offers it"}}
    frames = labelled(train, device, dtype)
    rest = labelled(test, device, dtype) if test else frames[train_size:]
    applicability_control.control(study, frames[:train_size], rest, size=calibration_size, resplits=resplits, seed=seed)
    study.finish(json)


@app.command()
def monitor(
    context: typer.Context, data: File = "rmd17/ethanol", seed: Seed = 0, figures: Plots = None, json: Json = None
) -> None:
    """Alarms while molecular dynamics runs: false ones, and how soon after a jump from 300 to 1200 K."""
    study = Study("applicability", "monitor", context.params, packages=PACKAGES)
    study.expectations = {"alarm_false_rate": {"upper": 0.01}, "alarm_delay_frames": {"upper": 50}}
    frames = labelled(data)
    plots = applicability_monitor.monitor(study, frames[:200], frames[1000:1040].structures, seed=seed)
    study.notes += save_figures(plots, figures) if figures else []
    study.finish(json)


def wheel(folder: Path) -> Path | None:
    """The folder with the wheel of madml, which pip fetches if it is not there; ``None`` if it cannot."""
    name = calibration_tasks.MADML.replace("-", "==")
    if not list(folder.glob(f"{calibration_tasks.MADML}-*.whl")):
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", name, "--dest", str(folder)]
        if subprocess.run(fetch, check=False).returncode:
            return None
    return folder


if __name__ == "__main__":
    run(app)
