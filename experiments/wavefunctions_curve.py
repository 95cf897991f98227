"""H2 at eight distances: labels with standard errors, a potential fitted to them, and what it says of the molecule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from bayesmol.potentials import DiatomicGP, DiatomicPotential
from bayesmol.report import Study
from bayesmol.units import convert
from bayesmol.wavefunctions.curves import curve as labels
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet

__all__ = ["DISTANCES", "EXPECTATIONS", "compare", "curve", "full_ci"]

DISTANCES = (0.9, 1.1, 1.3, 1.4, 1.5, 1.75, 2.2, 3.0)  # bohr
BOND, FREQUENCY = 1.401, 4401.0  # bohr, 1/cm: Huber, Herzberg, Constants of Diatomic Molecules (1979)
MASS = 1.00782503  # u, of hydrogen-1
EXPECTATIONS = {
    "largest_error_mha": {"upper": 1.0},
    "bond_length_bohr": {"reference": f"spectroscopy: {BOND}"},
    "frequency": {"reference": f"spectroscopy: {FREQUENCY:.0f}"},
    "bond_length_inside_95": {"lower": 1.0},
    "frequency_inside_95": {"lower": 1.0},
}


def curve(
    study: Study,
    *,
    minutes: float,
    minutes_each: float | None,
    determinants: int | None,
    draws: int,
    checkpoint: Path | None,
    seed: int,
) -> dict[str, Figure]:
    """Fill in errors against full CI and the constants of the molecule; returns the plot of the curve."""
    ansatz = PauliNet() if determinants is None else PauliNet(determinants=determinants)
    options = {"draws": draws, "minutes": minutes, "minutes_each": minutes_each, "checkpoint": checkpoint}
    with study.stage("curve"):
        found = labels(Molecule.named("H2"), DISTANCES, ansatz, seed=seed, **options)
    with study.stage("full_ci"):
        exact = np.array([full_ci(distance) for distance in DISTANCES])
    energies, errors = (convert(part, "eV", "Ha").numpy() for part in (found.energies, found.energy_errors))
    compare(study, energies, errors, exact)
    with study.stage("potential"):
        fitted = DiatomicGP().fit(found, seed=seed)
    _constants(study, fitted)
    return {"curve": _plot(energies, errors, exact, fitted)}


def compare(study: Study, energies: np.ndarray, errors: np.ndarray, exact: np.ndarray) -> None:
    """Figures of the energies in Ha beside exact ones."""
    off = 1000 * (energies - exact)
    worst = int(np.argmax(np.abs(off)))
    study.add("largest_error_mha", abs(float(off[worst])), "mHa", error=1000 * float(errors[worst]))
    study.add("mean_error_mha", float(off.mean()), "mHa", error=1000 * float(np.sqrt((errors**2).sum()) / len(off)))
    study.add("standard_error_hartree", float(np.median(errors)), "Ha")
    below = int((off < -3000 * errors - 0.3).sum())
    study.add("below_bound", below)
    for distance, one, error, reference in zip(DISTANCES, off, errors, exact, strict=True):
        study.notes.append(f"{distance:g} bohr: {one:+.3f} ± {1000 * error:.3f} mHa from {reference:.6f} Ha (full CI)")


def full_ci(distance: float) -> float:
    """Energy of H2 in Ha: Hartree–Fock in cc-pVQZ, correlation as X^-3 from cc-pVTZ and cc-pVQZ; good to 0.3 mHa."""
    from pyscf import fci, gto, scf

    parts = {}
    for cardinal, basis in ((3, "cc-pvtz"), (4, "cc-pvqz")):
        molecule = gto.M(atom=f"H 0 0 0; H 0 0 {distance}", unit="Bohr", basis=basis, verbose=0)
        field = scf.RHF(molecule).run(conv_tol=1e-11)
        parts[cardinal] = field.e_tot, fci.FCI(field).kernel()[0] - field.e_tot
    correlation = (64 * parts[4][1] - 27 * parts[3][1]) / 37
    return float(parts[4][0] + correlation)


def _constants(study: Study, fitted: DiatomicPotential) -> None:
    bond = fitted.bond_length().apply(lambda q: convert(q, "Å", "bohr"), "bohr")
    for name, found, truth in (("bond_length", bond, BOND), ("frequency", fitted.frequency((MASS, MASS)), FREQUENCY)):
        interval = found.interval(0.95)
        lower, upper = float(interval.lower), float(interval.upper)
        figure = f"{name}_bohr" if found.unit == "bohr" else name
        study.add(figure, float(found.mean), found.unit, error=float(found.stddev))
        study.add(f"{name}_inside_95", float(lower <= truth <= upper))
        study.notes.append(f"{name}: {lower:.4f} to {upper:.4f} {found.unit} (95 %)")


def _plot(energies: np.ndarray, errors: np.ndarray, exact: np.ndarray, fitted: DiatomicPotential) -> Figure:
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = np.array(DISTANCES)
    curves = convert(fitted.curves, "eV", "Ha")
    lower, mean, upper = torch.quantile(curves, torch.tensor([0.025, 0.5, 0.975]).double(), dim=0).numpy()
    place = convert(fitted.grid, "Å", "bohr").numpy()
    left.fill_between(place, lower, upper, color="#2f6fb3", alpha=0.3, linewidth=0, label="95 % band")
    left.plot(place, mean, color="#2f6fb3", linewidth=1, label="potential")
    left.errorbar(x, energies, yerr=errors, fmt="o", color="#222222", markersize=3, capsize=2, label="VMC")
    left.plot(x, exact, "x", color="#d1495b", markersize=5, label="full CI")
    left.set(xlabel="distance (bohr)", ylabel="energy (Ha)", ylim=(energies.min() - 0.01, energies.max() + 0.05))
    left.legend(fontsize=7)
    right.axhline(0, color="#222222", linewidth=0.8)
    style = {"fmt": "o", "color": "#2f6fb3", "markersize": 4, "capsize": 2}
    right.errorbar(x, 1000 * (energies - exact), yerr=1960 * errors, **style)
    right.set(xlabel="distance (bohr)", ylabel="VMC − full CI (mHa), 95 % intervals")
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=8)
    return figure
