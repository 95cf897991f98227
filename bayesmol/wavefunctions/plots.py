"""Plots of a wavefunction and its energy; each is a Matplotlib figure, drawn without global state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from bayesmol.errors import DataError, expected
from bayesmol.posterior.estimate import autocorrelation as correlations
from bayesmol.wavefunctions.energy import Energy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesmol.posterior import Draws
    from bayesmol.wavefunctions.extrapolation import Extrapolated

__all__ = ["autocorrelation", "cusps", "densities", "extrapolation", "histogram", "training"]

SIZE = (7.2, 3.3)  # inches
INK, GOOD, BAD, OTHER = "#222222", "#2f6fb3", "#d1495b", "#e09f3e"
COLOURS = (GOOD, BAD, OTHER, "#3a8f5d", "#7a5195", "#777777")
_SHOWN = 2000  # points of a curve


def training(
    energies: Float[np.ndarray, " steps"],
    variances: Float[np.ndarray, " steps"],
    *,
    seconds: Float[np.ndarray, " steps"] | None = None,
    lines: Mapping[str, float] | None = None,
) -> Figure:
    """Energy and variance of the local energy along the training.

    The running average is over the last tenth of the steps up to each; the axis of energies shows what lies within the
    range of these averages and of the lines.

    Parameters
    ----------
    energies, variances
        Over the walkers of a step, in Ha and Ha².
    seconds
        Wall time of each step since the start; steps are counted if it is not given.
    lines
        Energies to compare with, in Ha, by their names, such as ``"Hartree–Fock"`` and ``"exact"``.
    """
    energies, variances = np.asarray(energies, float), np.asarray(variances, float)
    if not len(energies) == len(variances) > 0:
        raise DataError(expected("energies, variances", "an equal number, not none", (len(energies), len(variances))))
    x = np.arange(1, len(energies) + 1) if seconds is None else np.asarray(seconds, float)
    label = "step of the training" if seconds is None else "time of training (s)"
    figure, (left, right) = _panels(SIZE, 2)
    average, step = _running(energies), max(1, len(x) // _SHOWN)
    left.plot(x[::step], energies[::step], ".", color=GOOD, alpha=0.3, markersize=2, label="steps")
    left.plot(x[::step], average[::step], color=INK, linewidth=1, label="running average")
    _lines(left.axhline, lines)
    ends = np.array([*np.nanquantile(average, [0, 1]), *(lines or {}).values()])
    margin = 0.08 * (ends.max() - ends.min()) or 1e-3
    left.set(xlabel=label, ylabel="energy (Ha)", ylim=(ends.min() - margin, ends.max() + margin))
    left.ticklabel_format(axis="y", useOffset=False)
    left.legend(fontsize=7)
    positive = np.where(variances > 0, variances, np.nan)
    right.plot(x[::step], positive[::step], ".", color=GOOD, alpha=0.3, markersize=2)
    right.plot(x[::step], _running(variances)[::step], color=INK, linewidth=1)
    right.set(xlabel=label, ylabel="variance of the local energy (Ha²)", yscale="log")
    return figure


def histogram(energy: Energy, *, lines: Mapping[str, float] | None = None) -> Figure:
    r"""Local energies: their middle, and the share further from the median than x with the law :math:`x^{-3}` of nodes.

    Bins outside of the middle 99 % hold the tails.
    """
    local = energy.local.flatten().double().cpu().numpy()
    centre, (lower, upper) = np.median(local), np.quantile(local, [0.005, 0.995])
    figure, (left, right) = _panels(SIZE, 2)
    left.hist(np.clip(local, lower, upper), bins=80, color=GOOD, alpha=0.8, density=True)
    mean = float(local.mean())
    left.axvline(mean, color=INK, linewidth=1, label="mean")
    _lines(left.axvline, {name: value for name, value in (lines or {}).items() if lower <= value <= upper})
    left.set(xlabel=f"local energy ({energy.unit}), tails in the outer bins", ylabel=f"density (1/{energy.unit})")
    left.legend(fontsize=7)
    _tail(right, np.sort(np.abs(local - centre))[::-1], energy.unit)
    return figure


def _tail(panel: Any, distance: Float[np.ndarray, " draws"], unit: str) -> None:
    distance = distance[distance > 0]
    if not len(distance):
        panel.text(0.5, 0.5, "all local energies are equal", ha="center", transform=panel.transAxes)
        return
    share = np.arange(1, len(distance) + 1) / len(distance)
    shown = np.unique(np.geomspace(1, len(distance), 400).astype(int)) - 1
    panel.plot(distance[shown], share[shown], ".", color=GOOD, markersize=3, label="local energies")
    start = len(distance) // 20
    x = np.array([distance[start], distance[0]])
    panel.plot(x, share[start] * (x / x[0]) ** -3, color=INK, linewidth=1, linestyle="--", label="$x^{-3}$")
    floor = distance[min(len(distance) - 1, len(distance) // 2)]
    panel.set(xscale="log", yscale="log", xlim=(floor, 1.3 * distance[0]), ylim=(0.5 / len(distance), 1))
    panel.set(xlabel=f"distance x from the median ({unit})", ylabel="share beyond x")
    panel.legend(fontsize=7)


def extrapolation(found: Extrapolated, *, level: float = 0.95, lines: Mapping[str, float] | None = None) -> Figure:
    """Energies against variances of several wavefunctions, with the band of straight lines that they leave possible.

    Parameters
    ----------
    level
        Of the band and of the interval at variance zero.
    lines
        Energies to compare with, in Ha, by their names.
    """
    figure, axes = _panels((4.8, 3.5), 1)
    panel, (v, dv) = axes[0], (found.variances.value.numpy(), found.variances.standard_error.numpy())
    style = {"fmt": "o", "color": INK, "markersize": 3, "capsize": 2, "elinewidth": 0.8}
    energies, errors = found.energies.value.numpy(), found.energies.standard_error.numpy()
    panel.errorbar(v, energies, yerr=errors, xerr=dv, label="wavefunctions", **style)
    if found.energy is None or found.slope is None:
        panel.set_title(f"no extrapolation: {found.reason}", fontsize=8, wrap=True)
    else:
        _band(panel, (found.energy, found.slope), 1.1 * float(found.variances.value.max()), level)
    _lines(panel.axhline, lines)
    panel.set(xlabel="variance of the local energy (Ha²)", ylabel="energy (Ha)")
    if len(v):
        panel.set_xlim(-0.03 * float(v.max()), 1.1 * float(v.max()))
    panel.ticklabel_format(axis="y", useOffset=False)
    panel.legend(fontsize=7)
    return figure


def _band(panel: Any, line: tuple[Draws, Draws], end: float, level: float) -> None:
    x = np.linspace(0, end, 60)
    intercept, slope = (draws.values.flatten().numpy() for draws in line)
    ends = [(1 - level) / 2, 0.5, (1 + level) / 2]
    lower, middle, upper = np.quantile(intercept[:, None] + slope[:, None] * x, ends, axis=0)
    panel.fill_between(x, lower, upper, color=GOOD, alpha=0.2, linewidth=0, label=f"{100 * level:g} % band")
    panel.plot(x, middle, color=GOOD, linewidth=1)
    bar = [[middle[0] - lower[0]], [upper[0] - middle[0]]]
    panel.errorbar([0], [middle[0]], yerr=bar, fmt="s", color=BAD, capsize=3, label="at variance zero", zorder=3)


def densities(
    positions: Float[np.ndarray, "configurations electrons 3"],
    nuclei: Float[np.ndarray, "nuclei 3"],
    up: int,
    *,
    symbols: Sequence[str] = (),
    bins: int = 80,
) -> Figure:
    """Distances of electrons from each nucleus and from each other, all in bohr, as numbers of electrons and of pairs.

    The areas are the number of electrons, and of pairs of the same and of different spins.

    Parameters
    ----------
    up
        Number of electrons with spin up, which come first.
    """
    positions, nuclei = np.asarray(positions), np.asarray(nuclei)
    figure, (left, right) = _panels(SIZE, 2)
    count, electrons = positions.shape[:2]
    for place, nucleus in enumerate(nuclei):
        name = f"{symbols[place]} {place + 1}" if len(symbols) else f"nucleus {place + 1}"
        away = np.linalg.norm(positions - nucleus, axis=-1).ravel()
        _counted(left, away, count, bins, COLOURS[place % len(COLOURS)], name)
    left.set(xlabel="distance from the nucleus (bohr)", ylabel="electrons per bohr")
    first, second = np.triu_indices(electrons, 1)
    apart = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    same = (first < up) == (second < up)
    for chosen, colour, name in ((~same, GOOD, "different spins"), (same, BAD, "same spin")):
        if chosen.any():
            _counted(right, apart[:, chosen].ravel(), count, bins, colour, name)
    if electrons == 1:
        right.text(0.5, 0.5, "one electron", ha="center", transform=right.transAxes)
    right.set(xlabel="distance of two electrons (bohr)", ylabel="pairs per bohr")
    for panel in (left, right):
        panel.set(xlim=(0, None), ylim=(0, None))
        if panel.get_legend_handles_labels()[1]:
            panel.legend(fontsize=7)
    return figure


def cusps(
    distances: Float[np.ndarray, " points"], slopes: Mapping[str, tuple[Float[np.ndarray, " points"], float]]
) -> Figure:
    r"""Slope of :math:`\ln|\psi|` near points where two particles meet, beside what it must be there.

    Parameters
    ----------
    distances
        In bohr, ascending.
    slopes
        Slope in 1/bohr at each distance and its exact limit at zero, by the name of the pair.
    """
    figure, panels = _panels((2.4 * max(len(slopes), 2), 2.9), len(slopes))
    for panel, (name, (slope, limit)) in zip(panels, slopes.items(), strict=True):
        panel.plot(distances, slope, color=GOOD, marker=".", markersize=3, linewidth=1)
        panel.axhline(limit, color=INK, linewidth=1, linestyle="--", label=f"exact at 0: {limit:g}")
        panel.set(xscale="log", xlabel="distance (bohr)")
        panel.set_title(name, fontsize=9)
        panel.margins(y=0.2)
        panel.legend(fontsize=7)
    panels[0].set_ylabel(r"slope of $\ln|\psi|$ (1/bohr)")
    return figure


def autocorrelation(energy: Energy) -> Figure:
    """Autocorrelation of the local energy along the walkers, and its standard error from blocks of growing length."""
    rho = correlations(energy.local.double()).cpu().numpy()
    figure, (left, right) = _panels(SIZE, 2)
    below = np.flatnonzero(rho < 0.02)
    shown = min(len(rho), max(10, 3 * int(below[0]) if len(below) else len(rho)))
    left.axhline(0, color=INK, linewidth=0.8)
    left.plot(np.arange(shown) * energy.steps, rho[:shown], color=GOOD, marker=".", markersize=4, linewidth=1)
    left.set(xlabel="moves", ylabel="autocorrelation of the local energy")
    left.set_title(f"time {energy.autocorrelation_time * energy.steps:.3g} moves", fontsize=9)
    lengths, errors, noise = _reblocked(energy.local.mean(0).double().cpu().numpy())
    style = {"fmt": ".", "color": GOOD, "capsize": 2, "elinewidth": 0.8}
    right.errorbar(lengths * energy.steps, errors, yerr=noise, label="blocks of the mean", **style)
    named = {
        "between walkers": energy.errors.between_walkers,
        "effective sample size": energy.errors.effective_sample_size,
    }
    for (name, one), colour in zip(named.items(), (BAD, OTHER), strict=True):
        if np.isfinite(one.value):
            right.axhline(one.value, color=colour, linewidth=1, linestyle="--", label=name)
    right.set(xscale="log", xlabel="length of a block (moves)", ylabel=f"standard error ({energy.unit})")
    right.set_ylim(bottom=0)
    right.legend(fontsize=7)
    return figure


def _panels(size: tuple[float, float], columns: int) -> tuple[Figure, Any]:
    """Empty panels side by side, of a figure of this size in inches."""
    from matplotlib.figure import Figure

    if columns < 1:
        raise DataError(expected("panels", "at least one", columns))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    for panel in panels:
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _lines(draw: Callable[..., Any], lines: Mapping[str, float] | None) -> None:
    """One broken line at each energy; an energy has the same colour in all plots."""
    colours = {"Hartree–Fock": OTHER, "exact": BAD}
    for (name, value), colour in zip((lines or {}).items(), COLOURS[3:] * 9, strict=False):
        draw(value, color=colours.get(name, colour), linewidth=1, linestyle="--", label=name)


def _running(values: Float[np.ndarray, " iterations"]) -> Float[np.ndarray, " iterations"]:
    """Mean of the last tenth of the values up to each."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    last = np.arange(1, len(values) + 1)
    first = last - np.maximum(last // 10, 1)
    return (total[last] - total[first]) / (last - first)


def _counted(panel: Any, distances: np.ndarray, configurations: int, bins: int, colour: str, name: str) -> None:
    """Mean number of distances in each bin, per bohr; the last per mille lies beyond the axis."""
    edges = np.linspace(0, np.quantile(distances, 0.999), bins + 1)
    heights = np.histogram(distances, edges)[0] / configurations / np.diff(edges)
    panel.stairs(heights, edges, color=colour, label=name)


def _reblocked(series: Float[np.ndarray, " draws"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lengths of blocks, standard errors of the mean from them, and the noise of these."""
    rows, length = [], 1
    while len(series) >= 8:
        error = series.std(ddof=1) / np.sqrt(len(series))
        rows.append((length, error, error / np.sqrt(2 * (len(series) - 1))))
        series, length = series[: len(series) // 2 * 2].reshape(-1, 2).mean(1), 2 * length
    lengths, errors, noise = np.array(rows).reshape(-1, 3).T
    return lengths, errors, noise
