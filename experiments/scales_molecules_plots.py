"""Pictures of the chain of n-butane: profile, torsions, relaxation, repetitions, and shares of the variance."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.figure import Figure
from scales_molecules_chain import Chain
from scales_molecules_reference import Truth
from scales_plots import BLUE, YELLOW, clean, shares

__all__ = ["plots"]

RED, BLACK = "#d1495b", "#222222"
ENDS = torch.tensor([0.05, 0.95], dtype=torch.float64)
NAMES = {"free_energy": "free energy, gauche − trans (kT)", "timescale": "relaxation time (ps)"}


def plots(found: list[Chain], known: Truth | None) -> dict[str, Figure]:
    """The chain in five pictures; those of one chain are of the first."""
    one = found[0]
    return {
        "profile": _profile(one, known),
        "torsions": _torsions(one),
        "relaxation": _relaxation(one, known),
        "results": _results(found, known),
        "shares": _shares(one),
    }


def _profile(one: Chain, known: Truth | None) -> Figure:
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    panel, profile = figure.subplots(), (one.profile - one.profile.min()).numpy()
    place = (np.arange(len(profile)) + 0.5) * 180 / len(profile)
    sampling, total = (1.645 * one.profile_errors).numpy()
    label = "with the potential's posterior"
    panel.fill_between(place, profile - total, profile + total, color=BLUE, alpha=0.25, linewidth=0, label=label)
    panel.fill_between(
        place, profile - sampling, profile + sampling, color=BLUE, alpha=0.45, linewidth=0, label="sampling"
    )
    panel.plot(place, profile, color=BLUE, linewidth=1.2, label="learned surface")
    if known is not None:
        panel.plot(
            place, (known.profile - known.profile.min()).numpy(), "o", color=BLACK, markersize=3, label="GFN2-xTB"
        )
    panel.set(xlabel="torsion C–C–C–C without its sign (°)", ylabel="free energy (kT), 90 %", xticks=range(0, 181, 30))
    panel.legend(fontsize=7, frameon=False)
    return clean(figure)


def _torsions(one: Chain) -> Figure:
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    panel, shares = figure.subplots(), one.map.numpy()
    density = np.where(shares > 0, shares / (360 / len(shares)) ** 2, np.nan)
    drawn = panel.imshow(
        np.log10(density.T), origin="lower", extent=(-180, 180, -180, 180), cmap="viridis", aspect="auto"
    )
    ticks = range(-180, 181, 60)
    panel.set(xlabel="C–C–C–C (°)", ylabel="H–C–C–C of a methyl group (°)", xticks=ticks, yticks=ticks)
    figure.colorbar(drawn, ax=panel, label="log₁₀ of the density (1/°²)")
    return clean(figure)


def _relaxation(one: Chain, known: Truth | None) -> Figure:
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    panel, (lag, lower, mean, upper) = figure.subplots(), one.lags.numpy().T
    panel.fill_between(lag, lower, upper, color=BLUE, alpha=0.25, linewidth=0)
    panel.plot(lag, mean, "o-", color=BLUE, markersize=3, linewidth=1, label="learned surface")
    panel.fill_between(lag, lag, color="#bbbbbb", alpha=0.4, linewidth=0)
    _bar(panel, 1.12, one.timescale, YELLOW, "corrected by labels")
    if known is not None:
        _bar(panel, 1.26, known.timescale, BLACK, "GFN2-xTB")
    panel.set(xscale="log", yscale="log", xlabel="lag (ps)", ylabel="relaxation time (ps), 90 %")
    panel.set_xticks(lag, [f"{q:g}" for q in lag])
    ticks = [1, 2, 3, 5, 10, 20]
    panel.set(ylim=(0.5 * lower.min(), 1.5 * upper.max()))
    panel.set_yticks([q for q in ticks if panel.get_ylim()[0] < q < panel.get_ylim()[1]])
    panel.yaxis.set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.legend(fontsize=7, frameon=False)
    return clean(figure)


def _bar(panel, place: float, draws: torch.Tensor, colour: str, label: str) -> None:
    """Mean and 90 % interval of draws at a place."""
    lower, upper = draws.quantile(ENDS).tolist()
    middle = float(draws.mean())
    panel.errorbar(
        [place], [middle], yerr=[[middle - lower], [upper - middle]], fmt="s", color=colour, markersize=4, label=label
    )


def _results(found: list[Chain], known: Truth | None) -> Figure:
    figure = Figure(figsize=(7.2, 1.2 + 0.12 * len(found)), layout="constrained")
    for panel, name in zip(figure.subplots(1, 2), NAMES, strict=True):
        for k, one in enumerate(found):
            panel.plot(getattr(one, name).quantile(ENDS).tolist(), [k, k], color=BLUE, linewidth=1.5)
        if known is not None:
            truth = getattr(known, name)
            panel.axvspan(*truth.quantile(ENDS).tolist(), color="#bbbbbb", alpha=0.5, linewidth=0)
            panel.axvline(float(truth.mean()), color=BLACK, linewidth=0.8)
        panel.set(xlabel=f"{NAMES[name]}, 90 %", yticks=[])
    return clean(figure)


def _shares(one: Chain) -> Figure:
    pairs = {"free energy": (one.energies, one.free_energy), "relaxation time": (one.times.log(), one.timescale.log())}
    sampling = {name: min(1.0, float(part.var() / total.var())) for name, (part, total) in pairs.items()}
    return shares({name: 1 - q for name, q in sampling.items()}, ("labels of draws", "sampling"))
