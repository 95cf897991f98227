"""One error bar from electrons to kinetics: chains of models that hand on distributions, and their test of truth."""

from pathlib import Path
from typing import Annotated

import scales_electrons
import typer
from harness import Json, Plots, Seed, run, save_figures

from bayesmol.report import Study, page, write_text

PACKAGES = ("torch", "jax", "numpy", "scipy", "pyscf", "nflows")
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


if __name__ == "__main__":
    run(app)
