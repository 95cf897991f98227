"""Plots of samples with the uncertainty of every bin: distributions, maps of two torsions, free-energy profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.calibration.compared import cell_shares
from bayesmol.calibration.divergences import Bins
from bayesmol.calibration.plots import BAD, GOOD, INK, OTHER, panels
from bayesmol.calibration.two_sample import Groups
from bayesmol.errors import ShapeError, expected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["distributions", "profiles", "torsion_map"]

TURN = [-180, -90, 0, 90, 180]
COLOURS = (GOOD, BAD, OTHER, INK)


def distributions(
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    *,
    names: Sequence[str],
    weights: Float[Tensor, " first"] | None = None,
    groups: Groups | None = None,
    periodic: bool | Sequence[bool] | Bool[Tensor, " features"] = False,
    labels: tuple[str, str] = ("sample", "reference"),
    count: int = 50,
) -> Figure:
    """Histogram of each feature in both samples; bars and band are standard errors over groups.

    Parameters
    ----------
    names
        Of the features, with unit; angles are drawn in degrees.
    groups
        Group of each row of both samples, where rows depend on each other.

    Raises
    ------
    ShapeError
        If there is not a name for each feature.
    """
    if len(names) != second.shape[1]:
        raise ShapeError(expected("names", f"{second.shape[1]} features", len(names)))
    angles = torch.as_tensor(periodic).expand(len(names)).tolist()
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, axes = panels((2.6 * columns + 0.4, 2.4 * rows), rows, columns)
    owners = groups or (None, None)
    for index, (panel, name, angle) in enumerate(zip(axes.flat, names, angles, strict=False)):
        bins = Bins.of(second[:, index], count, periodic=angle)
        place, shown, errors = _densities(bins, second[:, index], None, owners[1], angle)
        panel.fill_between(place, shown - errors, shown + errors, step="mid", color=INK, alpha=0.25, linewidth=0)
        panel.step(place, shown, where="mid", color=INK, linewidth=0.8, label=labels[1])
        place, shown, errors = _densities(bins, first[:, index], weights, owners[0], angle)
        panel.errorbar(place, shown, errors, fmt=".", color=GOOD, markersize=3, elinewidth=0.7, label=labels[0])
        panel.set(xlabel=name, ylabel="density" if index % columns == 0 else "")
        panel.set_ylim(bottom=0)
        if angle:
            panel.set(xticks=TURN, xlim=(-180, 180))
    for panel in axes.flat[len(names) :]:
        panel.set_visible(False)
    axes.flat[0].legend(fontsize=7, frameon=False)
    return figure


def torsion_map(
    angles: Float[Tensor, "rows 2"],
    *,
    weights: Float[Tensor, " rows"] | None = None,
    groups: Tensor | None = None,
    names: tuple[str, str] = ("φ", "ψ"),
    count: int = 64,
) -> Figure:
    """Free energy of two torsions, −ln p from its lowest bin, and the relative standard error of p beside it.

    The relative error of p is the error of the free energy in units of kT; where it is one, a bin holds about one
    independent row. Bins without a row are left white: nothing is known of them.
    """
    bins = Bins.of(angles, count, periodic=True)
    shares, errors = cell_shares(bins.places(angles), count**2, weights, groups)
    seen = shares > 0
    energy = torch.where(seen, shares.amax().log() - shares.log(), math.nan)
    relative = torch.where(seen, errors / shares, math.nan)
    figure, axes = panels((7.2, 3.1), 1, 2)
    style: dict[str, Any] = {
        "origin": "lower",
        "extent": (-180, 180, -180, 180),
        "aspect": "equal",
        "interpolation": "nearest",
    }
    parts: tuple[tuple[Tensor, str, dict[str, Any]], ...] = (
        (energy, "−ln p (kT)", {"cmap": "viridis"}),
        (relative, "relative standard error of p", {"cmap": "magma_r", "vmin": 0, "vmax": 1}),
    )
    for panel, (values, title, colours) in zip(axes.flat, parts, strict=True):
        image = panel.imshow(values.reshape(count, count).T.cpu().numpy(), **style, **colours)
        extend = "max" if "vmax" in colours and bool((values > 1).any()) else "neither"
        bar = figure.colorbar(image, ax=panel, extend=extend, shrink=0.9)
        bar.ax.tick_params(labelsize=8)
        panel.set(xlabel=f"{names[0]} (°)", ylabel=f"{names[1]} (°)", title=title, xticks=TURN, yticks=TURN)
    return figure


def profiles(
    coordinate: Float[Tensor, " points"],
    curves: Mapping[str, tuple[Tensor, Tensor | None, Tensor | None]],
    *,
    xlabel: str,
    ylabel: str = "free energy (kT)",
) -> Figure:
    """Free energy along a coordinate: each curve with its band, the first one with the colour of the sample.

    Parameters
    ----------
    curves
        Name → value, lower and upper end at each point; ``None`` for a curve without a band. Where a value is not
        finite the curve has a gap, and where an end is not finite the band has one.
    """
    figure, axes = panels((4.6, 3.1), 1, 1)
    panel, order = axes.flat[0], coordinate.argsort()
    x, finite = coordinate[order].cpu(), []
    for colour, (name, (value, lower, upper)) in zip(COLOURS, curves.items(), strict=False):
        y = _drawable(value, order)
        finite.append(y[y.isfinite()])
        if lower is not None and upper is not None:
            ends = _drawable(lower, order), _drawable(upper, order)
            panel.fill_between(x, *ends, color=colour, alpha=0.22, linewidth=0)
        panel.plot(x, y, color=colour, linewidth=1.1, label=name)
    every = torch.cat(finite)
    if len(every):  # an end far away must not hide the curves
        spread = float(every.max() - every.min()) or 1.0
        panel.set_ylim(float(every.min()) - 0.15 * spread, float(every.max()) + 0.25 * spread)
    panel.set(xlabel=xlabel, ylabel=ylabel)
    panel.legend(fontsize=8, frameon=False)
    return figure


def _densities(bins: Bins, values: Tensor, weights: Tensor | None, groups: Tensor | None, angle: bool) -> Any:
    """Middle of each closed cell, the density there and its standard error; angles in degrees."""
    shares, errors = cell_shares(bins.places(values), math.prod(bins.sizes), weights, groups)
    inside = slice(None) if angle else slice(1, -1)
    unit = 180 / math.pi if angle else 1.0
    lower, width = float(bins.lower[0]) * unit, float(bins.upper[0] - bins.lower[0]) * unit / bins.count
    middles = lower + width * (torch.arange(bins.count) + 0.5)
    return middles, shares[inside].cpu() / width, errors[inside].cpu() / width


def _drawable(values: Tensor, order: Tensor) -> Tensor:
    ordered = values[order].double().cpu()
    return torch.where(ordered.isfinite(), ordered, math.nan)
