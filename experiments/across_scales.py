"""One error bar from electrons to kinetics: chains of models that hand on distributions, and their test of truth."""

from pathlib import Path
from typing import Annotated

import scales_electrons
import scales_molecules
import scales_molecules_reference
import typer
from harness import Json, Plots, Seed, run, save_figures
from scales_molecules_stages import Settings

from bayesmol.report import Study, page, write_text

PACKAGES = ("torch", "jax", "numpy", "scipy", "pyscf", "nflows")
MOLECULAR = ("torch", "numpy", "scipy", "tblite", "nflows", "ase")
HELD = {"lower": 0.85}  # 17 of 20
Temperature = Annotated[float, typer.Option(help="In K.", min=100)]
Report = Annotated[Path | None, typer.Option(help="Write one HTML page with all plots here.")]

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)


@app.callback()
def scales() -> None:
    """One error bar from electrons to kinetics: chains of models that hand on distributions."""


@app.command()
def electrons(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Keeps every geometry that is done; a killed run goes on.")] = Path("h2"),
    minutes: Annotated[float, typer.Option(help="Wall time of the first geometry.", min=0.01)] = 0.5,
    minutes_each: Annotated[float, typer.Option(help="Of each other.", min=0.01)] = 0.2,
    draws: Annotated[int, typer.Option(help="Of each walker, for an energy.", min=400)] = 1000,
    repeats: Annotated[int, typer.Option(help="Independent chains, from electrons to the density.", min=1)] = 1,
    report: Report = None,
    seed: Seed = 0,
    figures: Plots = None,
    json: Json = None,
) -> None:
    """H2: Monte-Carlo energies, the curve through them, bond length, depth and frequency, and the molecule at 300 K."""
    study = Study("across_scales", "electrons", context.params, packages=PACKAGES)
    for name in scales_electrons.TRUTH:
        study.expectations[f"{name}_inside_95"] = {"lower": 0.9}
        study.expectations[f"{name}_interval_width"] = {"upper": scales_electrons.WIDEST[name]}
    found = scales_electrons.electrons(
        study, folder, minutes=minutes, minutes_each=minutes_each, draws=draws, repeats=repeats, seed=seed
    )
    pictures = scales_electrons.plots(found)
    study.notes += save_figures(pictures, figures) if figures else []
    if report is not None:
        lead = "Energies of electrons, the curve of the molecule and the molecule at 300 K, with one error bar."
        write_text(report, page(study, "From electrons to a warm molecule", lead, list(pictures.items())))
    study.finish(json)


@app.command()
def molecules(
    context: typer.Context,
    folder: Annotated[Path, typer.Option(help="Keeps every stage that is done; a killed run goes on.")] = Path(
        "butane"
    ),
    temperature: Temperature = 400.0,
    labels: Annotated[int, typer.Option(help="Labels that acquisition chooses, beside 48 of a scan.", min=110)] = 128,
    audits: Annotated[int, typer.Option(help="Labels of draws, for each of three states.", min=10)] = 96,
    replicas: Annotated[int, typer.Option(help="Of the dynamics.", min=2)] = 48,
    picoseconds: Annotated[float, typer.Option(help="Of each replica.", min=2)] = 6.0,
    training: Annotated[int, typer.Option(help="Steps of the flow.", min=20)] = 300,
    repeats: Annotated[int, typer.Option(help="Independent chains, from labels to kinetics.", min=1)] = 1,
    reference: Annotated[Path | None, typer.Option(help="What the command reference wrote, to judge by.")] = None,
    report: Report = None,
    seed: Seed = 0,
    figures: Plots = None,
    json: Json = None,
) -> None:
    """n-Butane: labels by GFN2-xTB, a potential, populations and relaxation time of its torsion, with one error bar."""
    study = Study("across_scales", "molecules", context.params, packages=MOLECULAR)
    study.expectations.update({f"{name}_inside_90": HELD for name in ("free_energy", "timescale")})
    study.expectations["reference_calls_ratio"] = {"upper": 0.02}
    settings = Settings(temperature, labels, audits, replicas, picoseconds, training)
    known = None if reference is None else scales_molecules_reference.truth(reference)
    found = scales_molecules.molecules(study, folder, settings, repeats=repeats, known=known, seed=seed)
    pictures = scales_molecules.plots(found, known)
    study.notes += save_figures(pictures, figures) if figures else []
    if report is not None:
        lead = "Labels of n-butane, its populations and the rate at which it turns, with one error bar."
        write_text(report, page(study, "From labels to kinetics", lead, list(pictures.items())))
    study.finish(json)


@app.command()
def reference(
    out: Annotated[Path, typer.Argument(help="File of the truth; the folder beside it keeps the dynamics.")],
    temperature: Temperature = 400.0,
    walkers: Annotated[int, typer.Option(help="Replicas of the dynamics.", min=2)] = 24,
    picoseconds: Annotated[float, typer.Option(help="Of each; more of them go on from fewer.", min=2)] = 50.0,
    draws: Annotated[int, typer.Option(help="Of a flow, each weighted by the reference.", min=1000)] = 20_000,
    training: Annotated[int, typer.Option(help="Steps of this flow.", min=20)] = 500,
    seed: Seed = 987,
    json: Json = None,
) -> None:
    """The truth of `molecules`: dynamics of n-butane by GFN2-xTB itself, some ms a step; a killed run goes on."""
    settings = {"temperature": temperature, "walkers": walkers, "picoseconds": picoseconds, "draws": draws}
    study = Study("across_scales", "reference", settings, packages=MOLECULAR)
    scales_molecules_reference.reference(study, out, training=training, seed=seed, **settings)
    study.finish(json)


if __name__ == "__main__":
    run(app)
