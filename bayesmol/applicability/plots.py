"""Plots of a domain against what is known: who is strange, who is wrong, and what is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.applicability.rejection import RiskCoverage
from bayesmol.calibration.metrics import auroc
from bayesmol.calibration.plots import panels
from bayesmol.calibration.reference import binomial_band
from bayesmol.errors import DataError, ShapeError, expected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["error_against_score", "p_values", "receiver_operating", "risk_curves"]

SIZE = (5.2, 3.4)  # inches
INK, GOOD, BAD, OTHER = "#222222", "#2f6fb3", "#d1495b", "#e09f3e"
COLOURS = (GOOD, OTHER, BAD, "#5b8e3e", "#7d5ba6", "#777777")
SHOWN = 4000  # points of a scatter plot


def risk_curves(curves: Mapping[str, RiskCoverage], unit: str = "") -> Figure:
    """Mean error of the rows kept against their fraction, name by name, between random and oracle."""
    if not curves:
        raise DataError(expected("curves", "at least one", "none"))
    figure, axes = panels(SIZE, 1, 1)
    panel, first = axes.flat[0], next(iter(curves.values()))
    panel.axhline(first.random_area, color=INK, linewidth=0.8, linestyle=":", label="random")
    panel.plot(*_thin(first.coverage, first.oracle), color=INK, linewidth=0.8, linestyle="--", label="oracle")
    for (name, curve), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        label = f"{name} ({100 * curve.fraction:.0f} % of the way)"
        panel.plot(*_thin(curve.coverage, curve.risk), color=colour, label=label)
    least = max(1, len(first.risk) // 50)  # the mean of a few rows jumps
    highest = max(float(curve.risk[least - 1 :].max()) for curve in curves.values())
    panel.set(xlabel="fraction of rows kept", ylabel=_with("mean error of rows kept", unit))
    panel.set(xlim=(0, 1), ylim=(0, 1.08 * highest))
    panel.legend(fontsize=8, frameon=False)
    return figure


def error_against_score(
    scores: Float[Tensor, " rows"],
    errors: Float[Tensor, " rows"],
    threshold: float,
    *,
    outside: Bool[Tensor, " rows"] | None = None,
    unit: str = "",
) -> Figure:
    """Absolute error against score with the threshold, and the running median; rows known to be outside in red.

    Of many rows an even selection is drawn; scores of infinity stand at the right edge.
    """
    _same(scores=scores, errors=errors, outside=outside)
    figure, axes = panels(SIZE, 1, 1)
    panel, absolute = axes.flat[0], errors.abs().double().cpu()
    finite = scores[scores.isfinite()].double()
    logarithmic = bool((finite > 0).all()) and threshold > 0 and float(finite.max()) > 10 * float(finite.median())
    edge = float(finite.max()) * 1.5 if logarithmic else float(finite.max() + 0.05 * (finite.max() - finite.min()))
    x = scores.double().clamp(max=edge).cpu()
    known = torch.zeros_like(x, dtype=torch.bool) if outside is None else outside.cpu()
    step = max(1, len(x) // SHOWN)
    labels = ("other rows", "known to be outside") if outside is not None else ("rows", "")
    for chosen, colour, label in ((~known, GOOD, labels[0]), (known, BAD, labels[1])):
        if bool(chosen.any()):
            style = {"color": colour, "alpha": 0.4, "markersize": 3, "label": label}
            panel.plot(x[chosen][::step], absolute[chosen][::step], ".", **style)
    panel.plot(*_medians(x, absolute), color=INK, linewidth=1.2, label="running median")
    panel.axvline(threshold, color=INK, linewidth=1, linestyle="--")
    at = (threshold, 1.0), (4, -9)
    panel.annotate("outside →", *at, xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8)
    positive = absolute[absolute > 0]
    panel.set(xscale="log" if logarithmic else "linear", yscale="log" if len(positive) else "linear")
    if len(positive):
        panel.set_ylim(float(positive.quantile(0.002)) / 2, float(positive.max()) * 2)
    panel.set(xlabel="score of strangeness", ylabel=_with("absolute error", unit))
    panel.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def p_values(groups: Mapping[str, Float[Tensor, " rows"]], *, bins: int = 20) -> Figure:
    """Density of the conformal p-values of each set; that of the domain is even, within the band of 99 % a bar.

    The band is that of independent uniform numbers as many as the first set has; the p-values of one calibration set
    scatter a little more.
    """
    if not groups or bins < 1:
        raise DataError(expected("groups, bins", "at least one set and one bar", f"{len(groups)} and {bins}"))
    figure, axes = panels(SIZE, 1, 1)
    panel, count = axes.flat[0], len(next(iter(groups.values())))
    if bins > 1:
        low, high = binomial_band(count, 1 / bins)
        panel.axhspan(low * bins, high * bins, color=INK, alpha=0.12, linewidth=0, label="99 % band if even")
    for (name, found), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        height = torch.histc(found.double().cpu(), bins, 0.0, 1.0) * bins / len(found)
        panel.stairs(height, torch.linspace(0, 1, bins + 1), color=colour, label=name, linewidth=1.4)
    panel.axhline(1, color=INK, linewidth=0.8)
    panel.set(xlabel="p-value", ylabel="density", xlim=(0, 1), ylim=(0, None))
    panel.legend(fontsize=8, frameon=False)
    return figure


def receiver_operating(
    scores: Mapping[str, Float[Tensor, " rows"]], outside: Bool[Tensor, " rows"], *, level: float | None = None
) -> Figure:
    """Fraction of the rows outside that are flagged against the rate of false alarms, name by name.

    Parameters
    ----------
    level
        Rate of false alarms of the threshold, drawn as a line.
    """
    if not scores:
        raise DataError(expected("scores", "at least one", "none"))
    figure, axes = panels((3.9, 3.9), 1, 1)
    panel = axes.flat[0]
    for (name, found), colour in zip(scores.items(), _colours(len(scores)), strict=True):
        _same(scores=found, outside=outside)
        panel.plot(*_operating(found, outside), color=colour, label=f"{name} ({float(auroc(found, outside)):.3f})")
    panel.axline((0, 0), slope=1, color=INK, linewidth=0.8, linestyle=":")
    if level is not None:
        panel.axvline(level, color=INK, linewidth=1, linestyle="--")
    panel.set(xlabel="rate of false alarms", ylabel="fraction outside that is flagged")
    panel.set(xlim=(-0.01, 1), ylim=(0, 1.01), aspect="equal")
    panel.legend(title="area below the curve", fontsize=8, title_fontsize=8, frameon=False, loc="lower right")
    return figure


def _operating(scores: Tensor, outside: Tensor) -> tuple[Tensor, Tensor]:
    """Both rates as the threshold falls; equal scores are one straight step."""
    ordered, order = scores.double().sort(descending=True)
    ends = torch.cat([(ordered[1:] != ordered[:-1]), torch.ones(1, dtype=torch.bool, device=order.device)])
    rates = [
        torch.cat([hits.new_zeros(1), hits[ends]]) / hits[-1]
        for hits in (side[order].double().cumsum(0) for side in (~outside, outside))
    ]
    return rates[0].cpu(), rates[1].cpu()


def _medians(x: Tensor, y: Tensor, bins: int = 20) -> tuple[list[float], list[float]]:
    """Median of y in bins of equally many x."""
    order = x.argsort()
    parts = [part for part in order.tensor_split(min(bins, max(1, len(x) // 5))) if len(part)]
    return [float(x[part].median()) for part in parts], [float(y[part].median()) for part in parts]


def _thin(x: Tensor, y: Tensor, points: int = 2000) -> tuple[Tensor, Tensor]:
    step = max(1, math.ceil(len(x) / points))
    return x[::step].cpu(), y[::step].cpu()


def _colours(count: int) -> list[str]:
    return [COLOURS[k % len(COLOURS)] for k in range(count)]


def _same(**given: Any) -> None:
    shapes = {name: tuple(values.shape) for name, values in given.items() if values is not None}
    if len(set(shapes.values())) != 1:
        raise ShapeError(expected(", ".join(shapes), "one shape (rows,)", list(shapes.values())))


def _with(label: str, unit: str) -> str:
    return f"{label} ({unit})" if unit else label
