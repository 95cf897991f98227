"""Plots of scorecards: the front of cost, accuracy and honesty, and time against the number of atoms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.calibration.plots import INK, panels
from bayesmol.errors import DataError, expected
from bayesmol.scorecard_lines import Score
from bayesmol.scorecard_timing import Growth

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["front", "growth_plot", "pareto"]

COLUMN = (3.5, 3.3)  # inches, one column of a journal
MARKERS = "osD^vP*Xhp<>"
_SHORT = 14  # letters of a name, of which two stand side by side in a column of a journal
_WIDE = 50.0  # an axis over a larger ratio has labels at the powers of ten only
COLOURS = ("#2f6fb3", "#d1495b", "#e09f3e", "#3b8b5a", "#7a5195", "#555555")


def pareto(costs: Float[Tensor, "models axes"]) -> Bool[Tensor, " models"]:
    """Which models no other one beats: not worse on any axis and better on one; smaller is better."""
    worse = (costs[None] <= costs[:, None]).all(2) & (costs[None] < costs[:, None]).any(2)
    return ~worse.any(1)


def front(scores: Mapping[str, Mapping[str, Score]], *, level: float = 0.9) -> Figure:
    """Force error against time of an atom, both logarithmic; the colour is the coverage of the force intervals.

    Bars are 95 % intervals, horizontally of the mean; the bar at the side of a marker ends at the time with
    uncertainty. The line joins the models that no other beats in time and error.

    Parameters
    ----------
    scores
        Scores of each model by its name: ``force_mae``, ``microseconds`` and, where known, ``force_coverage`` and
        ``microseconds_with_uncertainty``. Models without the first two are left out.

    Raises
    ------
    DataError
        If no model has both time and error.
    """
    known = {name: found for name, found in scores.items() if {"force_mae", "microseconds"} <= found.keys()}
    if not known:
        raise DataError(expected("scores", "a model with a force error and a time", list(scores)))
    figure, axes = panels(COLUMN, 1, 1)
    panel, shades = axes.flat[0], _shades(level)
    for marker, (name, found) in zip(MARKERS * len(known), known.items(), strict=False):
        _mark(panel, name, found, marker, shades)
    points = torch.tensor([[found["microseconds"].value, 1000 * found["force_mae"].value] for found in known.values()])
    best = points[pareto(points)]
    best = best[best[:, 0].argsort()]
    panel.plot(*best.T, color=INK, linewidth=0.8, linestyle="--", zorder=1, label="front")
    _logarithmic(panel, "time of an atom and step (µs)", "mean absolute force error (meV/Å)")
    columns = 2 if max(map(len, known)) <= _SHORT else 1
    panel.legend(fontsize=6, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns)
    bar = figure.colorbar(shades, ax=panel, location="bottom", extend="both", aspect=35, pad=0.02)
    bar.set_ticks([float(tick) for tick in range(0, 101, 5) if shades.norm.vmin <= tick <= shades.norm.vmax])
    bar.set_label(f"force labels inside the {100 * level:g} % interval (%)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def growth_plot(found: Mapping[str, Growth]) -> Figure:
    """Time of a step against the number of atoms, each model with the power law through its points."""
    figure, axes = panels(COLUMN, 1, 1)
    panel = axes.flat[0]
    for number, (name, growth) in enumerate(found.items()):
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        sizes = torch.tensor([float(timing.atoms) for timing in growth.timings])
        medians = torch.tensor([timing.median for timing in growth.timings])
        ends = torch.tensor([[min(t.seconds), max(t.seconds)] for t in growth.timings])
        bars = torch.stack([medians - ends[:, 0], ends[:, 1] - medians]).clamp_min(0.0)
        label = f"{name}: $N^{{{growth.exponent.value:.2f}}}$"
        panel.errorbar(sizes, medians, yerr=bars, fmt=marker, color=colour, markersize=4, capsize=2, label=label)
        if math.isfinite(growth.exponent.value):
            middle = (medians.log() - growth.exponent.value * sizes.log()).mean()
            panel.plot(sizes, (middle + growth.exponent.value * sizes.log()).exp(), color=colour, linewidth=0.8)
    _logarithmic(panel, "atoms", "time of a step (s)")
    panel.legend(fontsize=7, frameon=False)
    return figure


def _logarithmic(panel: Any, across: str, up: str) -> None:
    """Logarithmic axes with plain numbers at 1, 2 and 5 times the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panel.set(xscale="log", yscale="log")
    for axis, label in ((panel.xaxis, across), (panel.yaxis, up)):
        axis.set_label_text(label, fontsize=8)
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < _WIDE * low else (1.0,)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.tick_params(labelsize=7)


def _shades(level: float) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(100 * level - 10, min(100.0, 100 * level + 10)), "RdYlBu")


def _mark(panel: Any, name: str, found: Mapping[str, Score], marker: str, shades: Any) -> None:
    """One model: its marker, its error bars, and the time with uncertainty as a thin line with a tick."""
    x, y = found["microseconds"], found["force_mae"]
    coverage, both = found.get("force_coverage"), found.get("microseconds_with_uncertainty")
    face = "none" if coverage is None else shades.to_rgba(100 * coverage.value)
    bars = {"xerr": _reach(x), "yerr": [[1000 * part[0]] for part in _reach(y)]}
    style = {"color": face, "markeredgecolor": INK, "ecolor": INK, "elinewidth": 0.8, "markersize": 7}
    if both is not None:
        panel.plot([x.value, both.value], [1000 * y.value] * 2, color=INK, linewidth=0.5, alpha=0.6, zorder=1)
        panel.plot([both.value], [1000 * y.value], marker="|", color=INK, markersize=5, alpha=0.6, zorder=1)
    label = name if coverage is None else f"{name} ({100 * coverage.value:.0f} %)"
    panel.errorbar([x.value], [1000 * y.value], fmt=marker, label=label, zorder=2, capsize=2, **bars, **style)


def _reach(score: Score) -> list[list[float]]:
    """Lengths of the two halves of an interval; none where it is infinite."""
    halves = score.value - score.lower, score.upper - score.value
    return [[max(0.0, half) if math.isfinite(half) else 0.0] for half in halves]
