"""What people look at: the Ramachandran map with its uncertainty, profiles with bands, energies, the trust report."""

import math

import numpy as np
import torch
from boltzmann_alanine import torsions
from matplotlib.figure import Figure
from torch import Tensor

from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.weighted import BoltzmannDraws
from bayesmol.inference.profiles import free_energy_profile

__all__ = ["plots"]

DEGREES = 180 / math.pi
CELLS = 48


def plots(generator: FittedGenerator, draws: BoltzmannDraws, reference: Tensor | None) -> dict[str, Figure]:
    """Figures by name."""
    return {
        "ramachandran": ramachandran(draws),
        "profile": profile(draws, reference),
        "energies": energies(generator, draws, reference),
        "trust": generator.trust.plot(),
    }


def ramachandran(draws: BoltzmannDraws) -> Figure:
    """Free energy of the two torsions, and its standard error; cells with fewer than five effective draws are blank."""
    angles = torsions(draws.values[0].flatten(1)) * DEGREES
    weights = draws.weights[0].double()
    cell = ((angles + 180) / 360 * CELLS).long().clamp(0, CELLS - 1)
    place = cell[:, 0] * CELLS + cell[:, 1]
    first, second = (torch.zeros(CELLS**2).double().index_add(0, place, w) for w in (weights, weights.square()))
    known = first.square() / second.clamp_min(1e-300) >= 5
    energy = torch.where(known, -first.log(), math.nan)
    error = torch.where(known, ((second - first.square() / len(weights)).clamp_min(0)).sqrt() / first, math.nan)
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    panels = zip(figure.subplots(1, 2, sharey=True), (energy - energy.nan_to_num(math.inf).min(), error), strict=True)
    for (axes, values), label in zip(panels, ("free energy (kT)", "standard error (kT)"), strict=True):
        grid = values.reshape(CELLS, CELLS).T.numpy()
        image = axes.imshow(grid, origin="lower", extent=(-180, 180, -180, 180), cmap="viridis")
        figure.colorbar(image, ax=axes, label=label, shrink=0.9)
        axes.set(xlabel="φ (°)", xticks=range(-180, 181, 90), yticks=range(-180, 181, 90))
    figure.axes[0].set_ylabel("ψ (°)")
    return figure


def profile(draws: BoltzmannDraws, reference: Tensor | None) -> Figure:
    """Free energy along each torsion with a band that holds at all angles together, beside the reference."""
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    for k, (axes, name) in enumerate(zip(figure.subplots(1, 2, sharey=True), ("φ", "ψ"), strict=True)):
        found = draws.profile(lambda x, k=k: torsions(x)[:, k], bins=60, periodic=True, span=(-math.pi, math.pi))
        centres = np.degrees(np.linspace(-math.pi, math.pi, 61)[:-1] + math.pi / 60)
        band = found.simultaneous(0.95)
        value = found.free_energy.value.numpy()
        finite = np.isfinite(band.lower.numpy()) & np.isfinite(band.upper.numpy())
        low, high = (np.where(finite, end.numpy(), np.nan) for end in (band.lower, band.upper))
        axes.fill_between(centres, low, high, alpha=0.4, label="flow, 95 % band")
        axes.plot(centres, np.where(finite, value, np.nan), lw=0.8)
        if reference is not None:
            theirs = torsions(reference)[:, k]
            other = free_energy_profile(theirs, None, bins=60, periodic=True, span=(-math.pi, math.pi))
            axes.plot(centres, other.free_energy.value.numpy(), "k.", ms=2.5, label="reference")
        axes.set(xlabel=f"{name} (°)", xlim=(-180, 180), ylim=(-0.5, 10), xticks=range(-180, 181, 90))
    figure.axes[0].set_ylabel("free energy (kT)")
    figure.axes[0].legend(fontsize="small", frameon=False)
    return figure


def energies(generator: FittedGenerator, draws: BoltzmannDraws, reference: Tensor | None) -> Figure:
    """Energies of draws of the flow, of the same with their weights, and of the reference."""
    figure = Figure(figsize=(3.6, 2.8), layout="constrained")
    axes = figure.subplots()
    energy = generator.density.reduced_energy(draws.values[0].flatten(1)).double()
    low, high = (float(energy.quantile(p)) for p in (0.001, 0.98))
    edges = np.linspace(low, high, 80)
    shown = {"flow": (energy, None), "flow, weighted": (energy, draws.weights[0])}
    if reference is not None:
        shown["reference"] = (generator.density.reduced_energy(reference), None)
    for name, (values, weights) in shown.items():
        own = None if weights is None else weights.numpy()
        axes.hist(values.numpy(), bins=edges, weights=own, density=True, histtype="step", label=name)
    axes.set(xlabel="energy (kT)", ylabel="density", yscale="log")
    axes.legend(fontsize="small", frameon=False)
    return figure
