"""H2 at eight distances: labels with standard errors, a potential fitted to them, and what it says of the molecule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms, units
from matplotlib.figure import Figure
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.posterior import Gaussian
from bayesmol.potentials import PairGP
from bayesmol.report import Study
from bayesmol.units import convert
from bayesmol.wavefunctions.curves import curve as labels
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet

__all__ = ["DISTANCES", "EXPECTATIONS", "constants", "curve", "full_ci", "pair_gp", "surface"]

Posterior = Callable[[Tensor, int], Tensor]  # curves in eV, one a row, at distances in Å, drawn with a seed

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
SAMPLES = 2000


def curve(
    study: Study,
    *,
    minutes: float,
    minutes_each: float | None,
    determinants: int | None,
    draws: int,
    potential: str,
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
    posterior = None
    if potential != "none":
        with study.stage("potential"):
            posterior = surface(energies, errors) if potential == "gp" else pair_gp(PairGP().fit(found, seed=seed))
        _constants(study, posterior, seed)
    return {"curve": _plot(energies, errors, exact, posterior)}


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


def surface(energies: np.ndarray, errors: np.ndarray, distances: Sequence[float] = DISTANCES) -> Posterior:
    r"""Gaussian process of the electronic energy :math:`E - 1/r` given labels in Ha, with their errors as noise.

    A straight line with a wide prior and a squared-exponential process; length and amplitude are integrated over a grid
    by their evidence.
    """
    x, noise = np.asarray(distances), np.asarray(errors) ** 2
    centre = float(np.mean(energies - 1 / x))
    target = energies - 1 / x - centre
    nodes = [(length, size) for length in np.geomspace(0.7, 12, 20) for size in np.geomspace(0.03, 300, 20)]

    def joint(one: np.ndarray, other: np.ndarray, length: float, size: float) -> np.ndarray:
        line = 10 * (1 + np.outer(one - 1.4, other - 1.4))
        return line + size**2 * np.exp(-0.5 * ((one[:, None] - other) / length) ** 2)

    factors = [cho_factor(joint(x, x, *node) + np.diag(noise), lower=True) for node in nodes]
    evidence = [-np.log(np.diag(f[0])).sum() - 0.5 * target @ cho_solve(f, target) for f in factors]
    weights = np.exp(np.array(evidence) - max(evidence))

    def draws(grid: Tensor, seed: int) -> Tensor:
        place, source = convert(grid, "Å", "bohr").numpy(), np.random.default_rng(seed)
        counts, rows = source.multinomial(SAMPLES, weights / weights.sum()), []
        for node, factor, count in zip(nodes, factors, counts, strict=True):
            if count:
                across = joint(place, x, *node)
                mean = across @ cho_solve(factor, target) + 1 / place + centre
                rest = joint(place, place, *node) - across @ cho_solve(factor, across.T)
                values, vectors = np.linalg.eigh((rest + rest.T) / 2)
                spread = vectors * np.sqrt(values.clip(0))
                rows.append(mean + source.standard_normal((count, len(place))) @ spread.T)
        return convert(torch.from_numpy(np.concatenate(rows)), "Ha", "eV")

    return draws


def constants(values: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Bond lengths in bohr and harmonic frequencies in 1/cm of curves drawn from a posterior, NaN without a minimum.

    Parameters
    ----------
    values
        Curves in eV, one a row, at ``distances`` in Å, which are at equal steps.
    """
    step = float(distances[1] - distances[0])
    lowest = values[:, 2:-2].argmin(1) + 2
    nodes = torch.arange(-2, 3)
    near = values.gather(1, lowest[:, None] + nodes)
    # Fourth-degree polynomial through five points: its stationary point by Newton's method, and its curvature there.
    powers = torch.vander(nodes.double(), 5, increasing=True)
    c = torch.linalg.solve(powers, near.T).T
    x = torch.zeros(len(c), dtype=torch.float64)
    for _ in range(8):
        slope = c[:, 1] + 2 * c[:, 2] * x + 3 * c[:, 3] * x**2 + 4 * c[:, 4] * x**3
        x = x - slope / (2 * c[:, 2] + 6 * c[:, 3] * x + 12 * c[:, 4] * x**2)
    curvature = (2 * c[:, 2] + 6 * c[:, 3] * x + 12 * c[:, 4] * x**2) / step**2
    found = (x.abs() < 2) & (curvature > 0)
    bond = convert(distances[lowest] + x * step, "Å", "bohr")
    nothing = torch.full_like(x, math.nan)
    return torch.where(found, bond, nothing), torch.where(found, _frequency(curvature.clamp_min(0)), nothing)


def _frequency(curvature: Tensor) -> Tensor:
    """Wave number in 1/cm of a diatomic of hydrogen with this curvature in eV/Å²."""
    omega = (curvature / (MASS / 2)).sqrt()  # in ASE's unit of time
    return omega * units._hbar * units.J * units.s / units.invcm


def _constants(study: Study, posterior: Posterior, seed: int) -> None:
    distances = torch.linspace(0.55, 1.0, 24, dtype=torch.float64)
    draws = constants(posterior(distances, seed), distances)
    for name, values, unit, truth in zip(
        ("bond_length", "frequency"), draws, ("bohr", "1/cm"), (BOND, FREQUENCY), strict=True
    ):
        missing = float(values.isnan().double().mean())
        values = values[~values.isnan()]
        lower, upper = torch.quantile(values, torch.tensor([0.025, 0.975]).double()).tolist()
        figure = f"{name}_bohr" if unit == "bohr" else name
        study.add(figure, float(values.mean()), unit, error=float(values.std()))
        study.add(f"{name}_inside_95", float(lower <= truth <= upper))
        study.notes.append(f"{name}: {lower:.4f} to {upper:.4f} {unit} (95 %), {100 * missing:.1f} % without a minimum")


def pair_gp(fitted: Any) -> Posterior:
    """Curves of H2 drawn from a pair potential."""

    def draws(grid: Tensor, seed: int) -> Tensor:
        function = fitted.functions(grid, 1, 1)
        frames = [Atoms("H2", [[0, 0, 0], [0, 0, float(distance)]]) for distance in grid]
        mean = fitted.predict(Structures.from_ase(frames)).energy.mean
        joint = Gaussian(mean, function.variance, unit="eV", covariance=function.covariance)
        return joint.sample(SAMPLES, seed=seed)

    return draws


def _plot(energies: np.ndarray, errors: np.ndarray, exact: np.ndarray, posterior: Posterior | None) -> Figure:
    figure = Figure(figsize=(7.2, 3.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = np.array(DISTANCES)
    if posterior is not None:
        grid = torch.linspace(0.45, 1.65, 121, dtype=torch.float64)
        curves = convert(posterior(grid, 0), "eV", "Ha")
        lower, mean, upper = torch.quantile(curves, torch.tensor([0.025, 0.5, 0.975]).double(), dim=0).numpy()
        place = convert(grid, "Å", "bohr").numpy()
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
