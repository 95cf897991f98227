"""Electrons to densities: Monte-Carlo energies of H2, the curve through them, its constants, and the warm molecule.

Every step hands on a distribution: labels with standard errors, draws of the curve, expectations over these draws.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from matplotlib.figure import Figure
from scales_plots import clean, shares
from torch import Tensor
from wavefunctions_curve import MASS

from bayesmol.data import Labelled, Structures
from bayesmol.flows import BoltzmannDensity, BoltzmannGenerator
from bayesmol.flows.surface_errors import SurfaceError, surface_error
from bayesmol.posterior import Draws
from bayesmol.potentials import DiatomicGP, DiatomicPotential
from bayesmol.progress import progress
from bayesmol.report import Study, proportion
from bayesmol.units import convert
from bayesmol.wavefunctions import PauliNet, Training
from bayesmol.wavefunctions.curves import curve
from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["DISTANCES", "TRUTH", "Chain", "chain", "electrons", "plots"]

DISTANCES = (1.4, 1.25, 1.1, 0.95, 0.8, 1.55, 1.75, 2.0, 2.4, 3.0)  # bohr, from the middle outwards
TRUTH = {"bond_length_bohr": 1.401, "well_depth_hartree": 0.174474, "frequency": 4401.2}
"""Kolos, Wolniewicz, J. Chem. Phys. 49, 404 (1968), for the first two; Huber, Herzberg (1979) for the wave number."""
WIDEST = {"bond_length_bohr": 0.01, "well_depth_hartree": 1e-3, "frequency": 0.03 * 4401.2}
ATOMS = -1.0  # Ha, of two hydrogen atoms
UNITS = {"bond_length_bohr": "bohr", "well_depth_hartree": "Ha", "frequency": "1/cm"}
DRAWN = 20_000
FLOW_MINUTES = 0.1


@dataclass(frozen=True, eq=False)
class Chain:
    """One way from electrons to a density: labels, curve, its constants, and the same without noise of the labels."""

    labels: Labelled
    fitted: DiatomicPotential
    constants: dict[str, Draws]
    noise_shares: dict[str, float]
    thermal: SurfaceError
    lengths: Tensor


def electrons(
    study: Study, folder: Path, *, minutes: float, minutes_each: float, draws: int, repeats: int, seed: int
) -> list[Chain]:
    """Fill in constants of the first chain, and how many of all have them inside their intervals."""
    found = []
    with study.stage("chains"), progress("chains", repeats) as advance:
        for k in range(repeats):
            options = {"minutes": minutes, "minutes_each": minutes_each, "draws": draws}
            found.append(chain(folder / f"{k:03d}", seed=seed + k, **options))
            advance()
    for name, truth in TRUTH.items():
        first = found[0].constants[name]
        study.add(name, float(first.mean), UNITS[name], error=float(first.stddev))
        study.add(f"{name}_share_of_label_noise", found[0].noise_shares[name])
        intervals = [one.constants[name].interval(0.95) for one in found]
        held = sum(bool(interval.contains(torch.tensor(truth))) for interval in intervals)
        study.add(f"{name}_inside_95", proportion(held, repeats))
        study.add(f"{name}_interval_width", float(np.mean([float(one.width) for one in intervals])), UNITS[name])
        study.notes.append(f"{name}: {held} of {repeats} intervals hold {truth} {UNITS[name]}")
    thermal = found[0].thermal
    study.add("thermal_bond_length", thermal.total)
    share = float(thermal.epistemic.square() / (thermal.epistemic.square() + thermal.sampling.square()))
    study.add("thermal_bond_length_share_of_curve", share)
    return found


def chain(folder: Path, *, minutes: float, minutes_each: float, draws: int, seed: int) -> Chain:
    """From electrons to the density at 300 K; the folder keeps every geometry that is done."""
    folder.mkdir(parents=True, exist_ok=True)
    ansatz = PauliNet(determinants=2, width=16, layers=1, training=Training(walkers=128))
    options = {"minutes": minutes, "minutes_each": minutes_each, "draws": draws, "checkpoint": folder}
    labels = curve(Molecule.named("H2"), DISTANCES, ansatz, seed=seed, **options)
    fitted = DiatomicGP().fit(labels, seed=seed)
    constants = spectroscopy(fitted)
    quiet = replace(labels, energy_errors=labels.energy_errors / 100)
    quiet = replace(quiet, energies=torch.from_numpy(_smoothed(fitted, labels)))
    rest = spectroscopy(DiatomicGP().fit(quiet, seed=seed))
    shares = {name: 1 - min(1.0, float(rest[name].variance / constants[name].variance)) for name in constants}
    return Chain(labels, fitted, constants, shares, *_thermal(fitted, seed))


def spectroscopy(fitted: DiatomicPotential) -> dict[str, Draws]:
    """Bond length, well depth and harmonic wave number."""
    return {
        "bond_length_bohr": fitted.bond_length().apply(lambda q: convert(q, "Å", "bohr"), "bohr"),
        "well_depth_hartree": fitted.least_energy().apply(lambda q: ATOMS - convert(q, "eV", "Ha"), "Ha"),
        "frequency": fitted.frequency((MASS, MASS)),
    }


def _smoothed(fitted: DiatomicPotential, labels: Labelled) -> np.ndarray:
    """Energies of the mean curve where the labels are: labels as they would be without noise."""
    return fitted.surface(labels.structures).energies.numpy()


def _thermal(fitted: DiatomicPotential, seed: int) -> tuple[SurfaceError, Tensor]:
    """Mean bond length of classical nuclei at 300 K by a flow on the mean curve, and the lengths that were drawn."""
    molecule = Structures.from_ase([Atoms("H2", [[0, 0, 0], [0, 0, float(fitted.bond_length().mean)]])])
    density = BoltzmannDensity.from_potential(fitted, molecule, 300.0)
    generator = BoltzmannGenerator(minutes=FLOW_MINUTES).fit(density, seed=seed)
    drawn = generator.sample(DRAWN, seed=seed)
    return surface_error(density, drawn, bond, seed=seed, unit="Å"), bond(drawn.sample(4000, seed=seed))


def bond(x: Tensor) -> Tensor:
    """Distance of the two atoms of each configuration."""
    return (x[..., 1, :] - x[..., 0, :]).norm(dim=-1)


def plots(found: list[Chain]) -> dict[str, Figure]:
    """The chain in three pictures: curve, constants of all repetitions, shares of the variance."""
    return {"curve": _curve(found[0]), "constants": _constants(found), "shares": _shares(found[0])}


def _curve(one: Chain) -> Figure:
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    place = convert(one.fitted.grid, "Å", "bohr").numpy()
    curves = convert(one.fitted.curves, "eV", "Ha")
    lower, mean, upper = torch.quantile(curves, torch.tensor([0.025, 0.5, 0.975]).double(), dim=0).numpy()
    energies, errors = (convert(q, "eV", "Ha").numpy() for q in (one.labels.energies, one.labels.energy_errors))
    left.plot(place, mean, color="#2f6fb3", linewidth=1, label="curve")
    left.errorbar(DISTANCES, energies, yerr=1.96 * errors, fmt="o", color="#222222", markersize=3, label="Monte Carlo")
    left.set(xlabel="distance (bohr)", ylabel="energy (Ha)")
    left.legend(fontsize=7, frameon=False)
    right.fill_between(place, 1000 * (lower - mean), 1000 * (upper - mean), color="#2f6fb3", alpha=0.3, linewidth=0)
    off = energies - np.interp(DISTANCES, place, mean)
    right.errorbar(DISTANCES, 1000 * off, yerr=1960 * errors, fmt="o", color="#222222", markersize=3)
    right.set(xlabel="distance (bohr)", ylabel="from the curve (mHa), 95 %")
    return clean(figure)


def _constants(found: list[Chain]) -> Figure:
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    for panel, (name, truth) in zip(figure.subplots(1, 3), TRUTH.items(), strict=True):
        for k, one in enumerate(found):
            interval = one.constants[name].interval(0.95)
            inside = bool(interval.contains(torch.tensor(truth)))
            colour = "#2f6fb3" if inside else "#d1495b"
            panel.plot([float(interval.lower), float(interval.upper)], [k, k], color=colour, linewidth=1.5)
        panel.axvline(truth, color="#222222", linewidth=0.8)
        panel.set(xlabel=f"{name.rsplit('_', 1)[0].replace('_', ' ')} ({UNITS[name]})", yticks=[])
    return clean(figure)


def _shares(one: Chain) -> Figure:
    return shares(one.noise_shares, ("noise and scatter of the labels", "curve between the labels"))
