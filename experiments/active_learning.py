"""What should be measured next? Speed of selection, labels saved, learning on the fly, campaigns that are killed."""

from pathlib import Path
from typing import Annotated

import active_learning_campaigns
import active_learning_curves
import active_learning_functions
import active_learning_on_the_fly
import active_learning_select
import typer
from harness import Json, Plots, Seed, labelled, run, save_figures

from bayesmol.report import Study

Folder = Annotated[Path, typer.Option(help="Labels and results that are kept; a killed study goes on from there.")]
PACKAGES = ("torch", "numpy", "ase", "tblite", "botorch")

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.command()
def select(context: typer.Context, seed: Seed = 0, json: Json = None) -> None:
    """CPU seconds to choose 256 of 100 000 and of a million candidates; are the picks those of the naive search?"""
    study = Study("active_learning", "select", context.params, packages=PACKAGES)
    study.expectations = {
        "select_cpu_seconds_lcmd": {"upper": 1.0, "reference": "bmdal 5.4"},
        "select_cpu_seconds_logdet": {"upper": 1.0, "reference": "bmdal 3.8"},
    }
    active_learning_select.selection(study, labelled("rmd17/ethanol").structures, seed=seed)
    study.finish(json)


@app.command()
def functions(context: typer.Context, seed: Seed = 0, json: Json = None) -> None:
    """Identities of acquisition functions, the Branin function, and updates of a stream."""
    study = Study("active_learning", "functions", context.params, packages=PACKAGES)
    active_learning_functions.functions(study, seed=seed)
    study.finish(json)


@app.command()
def curves(
    context: typer.Context,
    folder: Folder = Path("curves"),
    seeds: Annotated[int, typer.Option(help="Repetitions, each with a pool of its own.")] = 5,
    figures: Plots = None,
    json: Json = None,
) -> None:
    """Labels needed for a force error, beside random ones: for broken bonds, and for molecules like the pool."""
    study = Study("active_learning", "curves", context.params, packages=PACKAGES)
    study.expectations = {
        "labels_saved_targeted": {"lower": 0.3, "reference": "literature: up to 64 %"},
        "labels_saved_global": {"lower": -0.05, "reference": "literature: 0 to 13 %"},
    }
    plot = active_learning_curves.curves(study, folder=folder, seeds=range(seeds))
    study.notes += save_figures({"learning_curves": plot}, figures) if figures else []
    study.finish(json)


@app.command("on-the-fly")
def on_the_fly(
    context: typer.Context,
    folder: Folder = Path("on-the-fly"),
    seed: Seed = 0,
    figures: Plots = None,
    json: Json = None,
) -> None:
    """Ethanol at 500 K learned from GFN2-xTB while it moves, and compared with a run on GFN2-xTB alone."""
    study = Study("active_learning", "on-the-fly", context.params, packages=PACKAGES)
    study.expectations = {
        "reference_call_fraction": {"upper": 0.05},
        "accepted_within_tolerance": {"lower": 0.95},
        "js_ccoh": {"upper": 0.02},
        "js_hcco": {"upper": 0.02},
    }
    plots = active_learning_on_the_fly.on_the_fly(study, folder=folder, seed=seed)
    study.notes += save_figures(plots, figures) if figures else []
    study.finish(json)


@app.command()
def kill(
    context: typer.Context,
    folder: Folder = Path("killed"),
    kills: Annotated[int, typer.Option(help="Number of campaigns that are killed.")] = 20,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Campaigns killed at random moments: does each end with the ledger and the model of one that was left alone?"""
    study = Study("active_learning", "kill", context.params, packages=PACKAGES)
    study.expectations = {"resumed_identically": {"lower": 1.0}}
    active_learning_campaigns.kill(study, folder, kills=kills, seed=seed)
    study.finish(json)


@app.command()
def stop(
    context: typer.Context,
    folder: Folder = Path("stopped"),
    campaigns: Annotated[int, typer.Option(help="Number of campaigns.")] = 100,
    target: Annotated[float, typer.Option(help="Mean absolute force error of a structure, in eV/Å.")] = 0.16,
    share: Annotated[float, typer.Option(help="Of the structures that must be as good.")] = 0.9,
    seed: Seed = 0,
    json: Json = None,
) -> None:
    """Campaigns that stop by themselves: is the error then what the stop rule says?"""
    study = Study("active_learning", "stop", context.params, packages=PACKAGES)
    study.expectations = {"stop_rule_held_fraction": {"lower": 0.95}}
    active_learning_campaigns.stop(study, folder, campaigns=campaigns, target=target, share=share, seed=seed)
    study.finish(json)


if __name__ == "__main__":
    run(app)
