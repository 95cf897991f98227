"""Plots of a posterior against labels; each is a Matplotlib figure, drawn without global state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.reference import binomial_band, resampled_counts
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Interval, Posterior, Prediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Quantity", "domain_scores", "panels", "parity", "quantities", "reliability", "scan", "width"]

LEVELS = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
SHOWN = 1000  # points of a scatter plot
SIZE = (7.2, 3.3)  # inches
INK, GOOD, BAD, OTHER = "#222222", "#2f6fb3", "#d1495b", "#e09f3e"


@dataclass(frozen=True)
class Quantity:
    """Predicted and measured values of one kind.

    Attributes
    ----------
    name
        As in the labels of the axes, such as ``"energy"``.
    truth
        Labels, in the unit of the posterior.
    groups
        Structure of each row, 0 to the number of structures − 1.
    """

    name: str
    posterior: Posterior
    truth: Float[Tensor, " rows *shape"]
    groups: Int[Tensor, " rows"]

    @property
    def owner(self) -> Int[Tensor, " entries"]:
        """Structure of each entry."""
        return self.groups.reshape(-1, *[1] * (self.truth.ndim - 1)).expand(self.truth.shape).flatten()


def quantities(prediction: Prediction, labelled: Labelled) -> list[Quantity]:
    """Energies and force components of the structures that have these labels."""
    structures, found = labelled.structures, []
    if labelled.energies is not None:
        groups = torch.arange(len(labelled), device=structures.pointer.device)
        found.append(Quantity("energies", prediction.energy, labelled.energies, groups))
    if labelled.forces is not None and bool(labelled.has_forces.any()):
        rows = labelled.has_forces[structures.structure_index].nonzero().squeeze(1)
        groups = structures.structure_index[rows].unique(return_inverse=True)[1]
        found.append(Quantity("force components", prediction.forces[rows], labelled.forces[rows], groups))
    return found


def parity(*quantities: Quantity, level: float = 0.9) -> Figure:
    """Prediction against label, and below the error with its interval; of many entries an even selection is shown."""
    figure, axes = panels((7.2, 4.6), 2, len(quantities), height_ratios=[2, 1.2], sharex="col")
    for (top, bottom), quantity in zip(axes.T, quantities, strict=True):
        _parity(top, bottom, quantity, level)
    return figure


def reliability(*quantities: Quantity) -> Figure:
    """Observed against nominal coverage, of the predictive distribution and of the rule where there is one.

    The band holds 99 % of the curves, level by level, of a true posterior of independent labels; it is drawn where
    each structure has one label.
    """
    figure, axes = panels(SIZE, 1, len(quantities))
    for panel, quantity in zip(axes.flat, quantities, strict=True):
        plain, truth = quantity.posterior.with_rule(None), quantity.truth
        if truth.ndim == 1:
            bands = torch.tensor([binomial_band(len(truth), float(level)) for level in LEVELS])
            panel.fill_between(LEVELS, *bands.T, color=INK, alpha=0.12, linewidth=0, label="99 % band if true")
        panel.axline((0, 0), slope=1, color=INK, linewidth=0.8)
        curves = {"predictive": (plain, "-", GOOD)}
        if quantity.posterior.rule is not None:
            curves["conformal"] = (quantity.posterior, "--", OTHER)
        for label, (posterior, style, colour) in curves.items():
            observed = [posterior.interval(float(level)).covered(truth) for level in LEVELS]
            panel.plot(LEVELS, observed, style, color=colour, marker=".", label=label)
        panel.set(xlabel="nominal coverage", ylabel="observed coverage", title=quantity.name, aspect="equal")
        panel.set(xlim=(0, 1), ylim=(0, 1))
        panel.legend(loc="upper left")
    return figure


def width(*quantities: Quantity, bins: int = 12) -> Figure:
    """Root mean square error against predicted standard deviation, in bins with equally many entries.

    Bars are standard errors by a bootstrap over structures.
    """
    figure, axes = panels(SIZE, 1, len(quantities))
    for panel, quantity in zip(axes.flat, quantities, strict=True):
        predicted, observed, errors = _binned(quantity, bins)
        unit = quantity.posterior.unit
        panel.errorbar(predicted, observed, yerr=errors, fmt="o", color=GOOD, markersize=4, capsize=2)
        panel.axline((float(predicted[0]),) * 2, (float(predicted[-1]) * 1.01,) * 2, color=INK, linewidth=0.8)
        panel.set(xlabel=f"predicted standard deviation ({unit})", ylabel=f"root mean square error ({unit})")
        panel.set(title=quantity.name)
    return figure


def domain_scores(
    groups: Mapping[str, tuple[Float[Tensor, " rows"], Bool[Tensor, " rows"] | None]], threshold: float
) -> Figure:
    """Scores of strangeness of several sets, one row each, and the threshold of the domain.

    Parameters
    ----------
    groups
        Name → scores, and which rows are known to be predicted wrongly (in red), or ``None``.
    """
    figure, axes = panels((7.2, 1.2 + 0.7 * len(groups)), 1, 1)
    panel = axes.flat[0]
    finite = torch.cat([scores[scores.isfinite()] for scores, _ in groups.values()])
    logarithmic, largest = bool((finite > 0).all()) and threshold > 0, float(finite.max())
    edge = largest * 3 if logarithmic else largest + 0.1 * (largest - float(finite.min()))
    for row, (scores, wrong) in enumerate(groups.values()):
        x, wrong = scores.clamp(max=edge), torch.zeros_like(scores, dtype=torch.bool) if wrong is None else wrong
        y = row + 0.5 * (torch.arange(len(x), device=x.device) * 0.618034 % 1 - 0.5)
        for chosen, colour in ((~wrong, GOOD), (wrong, BAD)):
            panel.plot(x[chosen].cpu(), y[chosen].cpu(), ".", color=colour, alpha=0.5, markersize=4, linewidth=0)
    panel.axvline(threshold, color=INK, linewidth=1, linestyle="--")
    panel.annotate(
        "outside →", (threshold, 1.0), (4, 2), xycoords=("data", "axes fraction"), textcoords="offset points"
    )
    if any(wrong is not None for _, wrong in groups.values()):
        panel.plot([], [], ".", color=BAD, label="predicted wrongly")
        panel.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False)
    panel.set(xscale="log" if logarithmic else "linear", ylim=(len(groups) - 0.5, -0.5))
    infinite = any(bool(scores.isinf().any()) for scores, _ in groups.values())
    panel.set_xlabel("strangeness" + (" (infinite scores at the right edge)" if infinite else ""))
    panel.set_yticks(range(len(groups)), list(groups))
    return figure


def scan(
    coordinate: Float[Tensor, " points"],
    posterior: Posterior,
    truth: Float[Tensor, " points"],
    inside: Bool[Tensor, " points"],
    *,
    xlabel: str,
    level: float = 0.9,
) -> Figure:
    """Predicted and true energy along a path, relative to the lowest true one; points outside of the domain in red."""
    figure, axes = panels(SIZE, 1, 1)
    panel, zero, interval = axes.flat[0], truth.min(), posterior.interval(level)
    order = coordinate.argsort()
    columns = (coordinate, truth - zero, posterior.mean - zero, interval.lower - zero, interval.upper - zero)
    x, y, mean, lower, upper = (column[order].cpu() for column in columns)
    seen = inside[order].cpu()
    panel.fill_between(x, lower, upper, color=GOOD, alpha=0.2, linewidth=0, label=f"{100 * level:g} % interval")
    panel.plot(x, mean, color=GOOD, label="prediction")
    panel.plot(x, y, color=INK, linewidth=0.8, label="reference")
    panel.plot(x[seen], y[seen], "o", color=GOOD, markersize=4, label="inside the domain")
    panel.plot(x[~seen], y[~seen], "x", color=BAD, markersize=4, label="outside")
    spread = float(y.max() - y.min())
    panel.set(xlabel=xlabel, ylabel=f"energy ({posterior.unit})", ylim=(-0.3 * spread, 1.5 * spread))
    panel.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def panels(size: tuple[float, float], rows: int, columns: int, **options: Any) -> tuple[Figure, Any]:
    """Empty panels of a figure of this size in inches."""
    from matplotlib.figure import Figure

    if columns < 1:
        raise DataError(expected("quantities", "at least one", "none"))
    figure = Figure(figsize=size, layout="constrained")
    keywords = {name: options.pop(name) for name in ("sharex",) if name in options}
    axes = figure.subplots(rows, columns, squeeze=False, gridspec_kw=options, **keywords)
    for panel in axes.flat:
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _parity(top: Any, bottom: Any, quantity: Quantity, level: float) -> None:
    posterior, truth = quantity.posterior, quantity.truth
    zero = truth.mean() if truth.ndim == 1 else truth.new_zeros(())
    interval: Interval = posterior.interval(level)
    columns = (truth - zero, posterior.mean - truth, interval.upper - posterior.mean, ~interval.contains(truth))
    step = max(1, truth.numel() // SHOWN)
    step += step > 1 and step % 3 == 0  # else only one Cartesian component would be shown
    x, error, half, missed = (column.flatten()[::step].cpu() for column in columns)
    half = half.masked_fill(half.isinf(), torch.nan)  # no bar has room for it
    share, unit = 1 - interval.covered(truth), posterior.unit
    for chosen, colour, label in ((~missed, GOOD, "holds the label"), (missed, BAD, f"does not ({100 * share:.1f} %)")):
        part = x[chosen], error[chosen], half[chosen]
        style = {"fmt": ".", "color": colour, "markersize": 3, "elinewidth": 0.5, "alpha": 0.6}
        top.errorbar(part[0], part[0] + part[1], yerr=part[2], label=label, **style)
        bottom.errorbar(part[0], part[1], yerr=part[2], **style)
    top.axline((0, 0), slope=1, color=INK, linewidth=0.8)
    bottom.axhline(0, color=INK, linewidth=0.8)
    kind = f"{quantity.name}, from the mean" if truth.ndim == 1 else quantity.name
    top.set(ylabel=f"prediction ({unit})", title=kind)
    bottom.set(xlabel=f"reference ({unit})", ylabel=f"error ({unit})")
    top.legend(title=f"{100 * level:g} % interval", fontsize=8, title_fontsize=8)


def _binned(quantity: Quantity, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Root mean square of predicted deviation and of the error in each bin, and the standard error of the latter."""
    deviation, order = quantity.posterior.stddev.flatten().sort()
    squares = (quantity.truth - quantity.posterior.mean).square().flatten()[order].double()
    groups = int(quantity.groups.max()) + 1
    place = torch.arange(len(order), device=order.device) * bins // len(order)
    bins = int(place.max()) + 1
    index = quantity.owner[order] * bins + place
    sums = squares.new_zeros(groups * bins).index_add_(0, index, squares).view(groups, bins)
    sizes = index.bincount(minlength=groups * bins).view(groups, bins).to(sums)
    predicted = squares.new_zeros(bins).index_add_(0, place, deviation.double().square()) / sizes.sum(0)
    counts = resampled_counts(groups, 200, seed=0, device=order.device)
    replicates = (counts @ sums / (counts @ sizes).clamp_min(1.0)).sqrt()
    observed = (sums.sum(0) / sizes.sum(0)).sqrt()
    return predicted.sqrt().cpu(), observed.cpu(), replicates.std(0).cpu()
