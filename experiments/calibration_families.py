"""All families of the package in one table: what their intervals promise, what they hold, and the peers beside."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import boltzmann_coverage
import kinetics_coverage
import kinetics_dmd
import kinetics_peers
import numpy as np
import torch
import wavefunctions_coverage
from ase import Atoms
from harness import labelled
from matplotlib.figure import Figure
from scipy import stats

import bayesmol
from bayesmol.calibration import coverage_band
from bayesmol.data import Labelled, Structures
from bayesmol.potentials import BayesianACE, DiatomicGP
from bayesmol.progress import progress
from bayesmol.report import Study

__all__ = ["ROWS", "Row", "families", "plot"]

CONFIDENCE = 0.99
BOND = 0.7414  # Å, of the planted curve


class Counted(NamedTuple):
    """Share of intervals that hold, the exact band of that share if they are true, and that of a peer."""

    observed: float
    lower: float
    upper: float
    peer: float | None = None
    package: str = ""


@dataclass(frozen=True)
class Row:
    """One family: what is predicted, at which level, and how its coverage is counted."""

    name: str
    level: float
    count: Callable[[int, int], Counted]


def families(study: Study, *, repeats: int, seed: int) -> dict[str, Counted]:
    """Fill in coverage of each family; ``outside`` counts the rows that are not inside their band."""
    found = {}
    with progress("families", len(ROWS)) as advance:
        for row in ROWS:
            with study.stage(row.name):
                one = found[row.name] = row.count(repeats, seed)
            study.add(f"coverage_{100 * row.level:.0f}_{row.name}", one.observed)
            if one.peer is not None:
                study.add(f"coverage_{100 * row.level:.0f}_{row.name}_{one.package}", one.peer)
            mark = "inside" if one.lower <= one.observed <= one.upper else "outside"
            study.notes.append(
                f"{row.name}: {mark} its {100 * CONFIDENCE:.0f} % band {one.lower:.3f} to {one.upper:.3f}"
            )
            advance()
    study.add("rows_outside", sum(not one.lower <= one.observed <= one.upper for one in found.values()))
    return found


def _binomial(observed: float, trials: int, level: float, peer: float | None = None, package: str = "") -> Counted:
    """With the band of so many independent trials; several quantities of one run count once, so it is rather wide."""
    law = stats.binom(trials, level)
    lower, upper = (float(law.ppf(q)) / trials for q in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Counted(observed, lower, upper, peer, package)


def _certified(repeats: int, seed: int) -> Counted:
    """Energies of ethanol by a Bayesian ACE: 50 structures to learn, 150 to calibrate, 50 to judge."""
    data = labelled("rmd17/ethanol")
    order = torch.randperm(250, generator=torch.Generator().manual_seed(seed))
    certified = bayesmol.certify(BayesianACE().fit(data[order[:50]], seed=seed), data[order[50:200]])
    test = data[order[200:]]
    interval = certified.predict(test.structures).energy.interval(0.9)
    held = interval.contains(test.energies).double().mean()
    return Counted(float(held), *coverage_band(150, 50, 0.9, CONFIDENCE))


def _diatomic(repeats: int, seed: int) -> Counted:
    """Bond lengths from ten noisy energies of a Morse curve."""
    hits = 0
    for k in range(repeats):
        fitted = DiatomicGP(draws=500).fit(_morse(seed + k), seed=k)
        hits += bool(fitted.bond_length().interval(0.95).contains(torch.tensor(BOND)))
    return _binomial(hits / repeats, repeats, 0.95)


def _morse(seed: int, error: float = 3e-3) -> Labelled:
    x = np.array([0.42, 0.5, 0.58, 0.66, 0.74, 0.82, 0.93, 1.06, 1.27, 1.59])
    energies = 4.75 * (1 - np.exp(-1.9426 * (x - BOND))) ** 2 + error * np.random.default_rng(seed).standard_normal(10)
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, float(r)]]) for r in x]
    errors = torch.full((10,), error, dtype=torch.float64)
    return Labelled(Structures.from_ase(frames), energies=torch.from_numpy(energies), energy_errors=errors)


def _densities(repeats: int, seed: int) -> Counted:
    own = Study("calibration", "densities")
    boltzmann_coverage.coverage(own, repeats=repeats, only=("double_well", "mueller_brown"), seed=seed)
    return _binomial(own.figures["coverage_95"].value, repeats, 0.95)


def _wavefunctions(repeats: int, seed: int) -> Counted:
    own = Study("calibration", "wavefunctions")
    only = ("screened_helium", "He")
    wavefunctions_coverage.coverage(own, repeats=repeats, walkers=32, draws=400, only=only, seed=seed)
    return _binomial(own.figures["coverage_95"].value, repeats, 0.95)


def _timescales(repeats: int, seed: int) -> Counted:
    """Of the Prinz potential at lag 25; deeptime sees the first twenty trajectories."""
    own, other = Study("calibration", "timescales"), Study("calibration", "deeptime")
    options = {"frames": 50_000, "draws": 400, "seed": seed}
    kinetics_coverage.coverage(own, repeats=repeats, lags=(25,), only=("prinz",), **options)
    if importlib.util.find_spec("deeptime") is None:
        return _binomial(own.figures["coverage_95"].value, repeats, 0.95)
    kinetics_peers.peers(other, name="prinz", repeats=min(repeats, 20), lag=25, count=3, **options)
    return _binomial(
        own.figures["coverage_95"].value, repeats, 0.95, other.figures["coverage_95_deeptime"].value, "deeptime"
    )


def _modes(repeats: int, seed: int) -> Counted:
    own = Study("calibration", "modes")
    kinetics_dmd.dmd(own, repeats=repeats, sigmas=(0.1,), seed=seed)
    peer = own.figures.get("dmd_coverage_95_pydmd")
    value = own.figures["dmd_coverage_95"].value
    return _binomial(value, repeats, 0.95, None if peer is None else peer.value, "" if peer is None else "pydmd")


ROWS = (
    Row("certified_energies", 0.9, _certified),
    Row("bond_lengths_of_curves", 0.95, _diatomic),
    Row("boltzmann_densities", 0.95, _densities),
    Row("wavefunctions", 0.95, _wavefunctions),
    Row("timescales", 0.95, _timescales),
    Row("dynamic_modes", 0.95, _modes),
)


def plot(found: dict[str, Counted]) -> Figure:
    """Observed coverage of each family over its band, with the nominal level and the peers."""
    figure = Figure(figsize=(6.4, 0.45 * len(found) + 1.0), layout="constrained")
    panel = figure.subplots()
    levels = {row.name: row.level for row in ROWS}
    for k, (name, one) in enumerate(found.items()):
        panel.plot([one.lower, one.upper], [k, k], color="#2f6fb3", linewidth=8, alpha=0.25, solid_capstyle="butt")
        panel.plot([levels[name]] * 2, [k - 0.25, k + 0.25], color="#222222", linewidth=1)
        panel.plot(one.observed, k, "o", color="#2f6fb3", markersize=5)
        if one.peer is not None:
            panel.plot(one.peer, k, "x", color="#d1495b", markersize=6)
            panel.annotate(one.package, (one.peer, k), (6, 0), textcoords="offset points", fontsize=7, va="center")
    panel.set_yticks(range(len(found)), [name.replace("_", " ") for name in found], fontsize=8)
    panel.set(xlabel="coverage: nominal (line), observed (dot), 99 % band if true (bar)", xlim=(None, 1.005))
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    return figure
