"""Plots of a report: each panel shows the labels, and where they would be if the claim were true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesmol.calibration.local import Local, local, parts
from bayesmol.calibration.plots import BAD, GOOD, INK, OTHER, panels
from bayesmol.calibration.ranks import ascending
from bayesmol.calibration.reference import uniform_band
from bayesmol.inference.random import generator

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayesmol.calibration.report import Report

__all__ = ["overview"]

GRID = 200


def overview(report: Report) -> Figure:
    """Reliability, transforms, errors against deviations, discarding, and the scale along each condition."""
    conditions = list(report.local.values())
    rows = 2 + (len(conditions) + 2) // 3
    figure, axes = panels((9.6, 3.1 * rows), rows, 3)
    drawn = [_reliability, _transforms, _histogram, _spread, _discarding, _lengths]
    for panel, draw in zip(axes.flat, drawn, strict=False):
        draw(panel, report)
    for panel, part in zip(axes.flat[6:], conditions, strict=False):
        _along(panel, part)
    for panel in axes.flat[6 + len(conditions) :]:
        panel.set_axis_off()
    for panel in axes.flat:
        panel.title.set_fontsize(9)
        panel.xaxis.label.set_fontsize(8)
        panel.yaxis.label.set_fontsize(8)
    figure.suptitle(_wrapped(str(report.verdict())), fontsize=9)
    return figure


def _reliability(panel: Any, report: Report) -> None:
    central = ascending(report.scores.central)
    levels = torch.linspace(0, 1, GRID, dtype=torch.float64)
    observed = torch.searchsorted(central.cpu(), levels, right=True) / len(central)
    panel.plot(levels, observed, color=GOOD)
    panel.axline((0, 0), slope=1, color=INK, linewidth=0.8)
    area = report["miscalibration_area"]
    panel.set(xlabel="nominal coverage", ylabel="observed coverage", title=f"area {area.value:.3g}", xlim=(0, 1))
    panel.set(ylim=(0, 1))


def _transforms(panel: Any, report: Report) -> None:
    """Distribution function of the transforms minus the diagonal, and the band of as many independent ones."""
    pit = ascending(report.scores.pit).cpu()
    levels = torch.linspace(0, 1, GRID, dtype=torch.float64)
    panel.plot(levels, torch.searchsorted(pit, levels, right=True) / len(pit) - levels, color=GOOD)
    places, low, high = uniform_band(report.observed.structures)
    panel.fill_between(places, low - places, high - places, color=INK, alpha=0.12, linewidth=0)
    panel.axhline(0, color=INK, linewidth=0.8)
    alone = report.observed.structures == len(pit)
    title = "95 % band of the whole curve" if alone else "band of one entry a structure"
    panel.set(xlabel="probability transform u", ylabel="fraction below u, minus u", title=title, xlim=(0, 1))


def _histogram(panel: Any, report: Report) -> None:
    z = report.scores.normal.cpu()
    panel.hist(z.clamp(-5, 5), bins=60, range=(-5, 5), density=True, color=GOOD, alpha=0.5, log=True)
    grid = torch.linspace(-5, 5, GRID, dtype=torch.float64)
    panel.plot(grid, torch.exp(-grid.square() / 2) / (2 * torch.pi) ** 0.5, color=INK, linewidth=0.8, label="if true")
    panel.set(xlabel="normal score (±5: or beyond)", ylabel="density", title="normal scores")
    panel.set(ylim=(min(1e-4, 0.1 / len(z)), 1))
    panel.legend(fontsize=7)


def _spread(panel: Any, report: Report) -> None:
    """Root mean square error against deviation in parts of equal size, with 95 % intervals."""
    claim, owner = report.scores.claim, report.observed.owner
    found = parts("stddev", claim.stddev, report.observed.structures)
    judged = local(found, report.scores.z, owner, report.scores.inside(0.9))
    x = found.centres.cpu()
    ends = [(end.cpu() * x) for end in judged.scale_interval]
    y = judged.scale.cpu() * x
    panel.errorbar(x, y, yerr=torch.stack([y - ends[0], ends[1] - y]), fmt="o", color=GOOD, markersize=3, capsize=2)
    panel.axline((float(x[0]),) * 2, (float(x[-1]) * 1.001,) * 2, color=INK, linewidth=0.8)
    unit = f" ({report.unit})" if report.unit else ""
    panel.set(xlabel=f"standard deviation{unit}", ylabel=f"error{unit}", title="error against deviation")
    if float(x[-1]) > 10 * float(x[0]):
        panel.set(xscale="log", yscale="log")


def _discarding(panel: Any, report: Report) -> None:
    """Mean error of what is kept when the entries with the largest deviations are discarded."""
    scores, claim = report.scores, report.scores.claim
    simulated = claim.simulated(report.observed.groups, generator(report.seed, scores.values.device))
    curves = (
        ("by σ", _kept(scores.error.abs(), claim.order), GOOD, "-"),
        ("if true", _kept(simulated.error.abs(), claim.order), INK, "-"),
        ("oracle", _kept(scores.error.abs(), scores.order), OTHER, "--"),
    )
    for label, (fractions, errors), colour, style in curves:
        panel.plot(100 * (1 - fractions), errors, style, color=colour, label=label, linewidth=1)
    unit = f" ({report.unit})" if report.unit else ""
    title = f"sparsification {report['sparsification'].value:.2g}"
    panel.set(
        xlabel="discarded (%)", ylabel=f"mean |error| of the rest{unit}", title=title, xlim=(0, 100), ylim=(0, None)
    )
    panel.legend(fontsize=7)


def _kept(error: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
    means = error[order].cumsum(0) / torch.arange(1, len(order) + 1, device=error.device)
    chosen = torch.linspace(max(1, len(order) // 100), len(order), GRID).long() - 1
    return (chosen + 1) / len(order), means[chosen.to(means.device)].cpu()


def _lengths(panel: Any, report: Report) -> None:
    """Values relative to the reference, for all statistics that are expected to agree with it."""
    chosen = [one for one in report.statistics.values() if one.reference[1] > one.reference[0]]
    for row, one in enumerate(chosen):
        middle, half = sum(one.reference) / 2, (one.reference[1] - one.reference[0]) / 2
        place = max(-5.0, min(5.0, (one.value - middle) / half))
        panel.plot(place, row, "o" if abs(place) < 5 else "D", color=GOOD if one.expected else BAD, markersize=4)
    panel.axvspan(-1, 1, color=INK, alpha=0.12, linewidth=0)
    panel.set_yticks(range(len(chosen)), [one.name for one in chosen], fontsize=6)
    panel.set(xlim=(-5.3, 5.3), ylim=(len(chosen) - 0.5, -0.5), xlabel="half-widths of the reference band")
    panel.set(title="all statistics (grey: if true)")


def _along(panel: Any, part: Local) -> None:
    """Scale in each part, by its centre or, of categories, by name."""
    scale, (low, high) = part.scale.cpu(), (end.cpu() for end in part.scale_interval)
    x = torch.arange(len(scale)) if part.parts.categories else part.parts.centres.cpu()
    bars = torch.stack([scale - low, high - scale])
    panel.errorbar(x, scale, yerr=bars, fmt="o", color=GOOD, markersize=3, capsize=2)
    panel.axhline(1, color=INK, linewidth=0.8)
    if part.parts.categories:
        panel.set_xticks(x.tolist(), part.parts.labels)
    valid, least, most = part.fraction_valid
    panel.set(xlabel=part.parts.name, ylabel="scale (1 if true)")
    panel.set(title=f"right in {100 * valid:.0f} % [{100 * least:.0f}, {100 * most:.0f}] of parts")


def _wrapped(text: str, width: int = 120) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
