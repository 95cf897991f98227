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
from harness import labelled, relative_width
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
    """Intervals of one package: the share that holds, the exact band of that share if they are true, and their width.

    Attributes
    ----------
    width
        Over the one that the errors, or the scatter of the estimates, ask for.
    peer
        Share and width of another package.
    """

    observed: float
    lower: float
    upper: float
    width: float
    peer: tuple[float, float] | None = None
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
            study.add(f"relative_width_{row.name}", one.width)
            if one.peer is not None:
                study.add(f"coverage_{100 * row.level:.0f}_{row.name}_{one.package}", one.peer[0])
                study.add(f"relative_width_{row.name}_{one.package}", one.peer[1])
            mark = "inside" if one.lower <= one.observed <= one.upper else "outside"
            study.notes.append(
                f"{row.name}: {mark} its {100 * CONFIDENCE:.0f} % band {one.lower:.3f} to {one.upper:.3f}"
            )
            advance()
    study.add("rows_outside", sum(not one.lower <= one.observed <= one.upper for one in found.values()))
    return found


def _binomial(
    observed: float, width: float, trials: int, peer: tuple[float, float] | None = None, package: str = ""
) -> Counted:
    """With the band of so many independent trials; several quantities of one run count once, so it is rather wide."""
    law = stats.binom(trials, 0.95)
    lower, upper = (float(law.ppf(q)) / trials for q in ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Counted(observed, lower, upper, width, peer, package)


def _certified(repeats: int, seed: int) -> Counted:
    """Energies of ethanol by a Bayesian ACE: 50 structures to learn, 150 to calibrate, 50 to judge."""
    data = labelled("rmd17/ethanol")
    order = torch.randperm(250, generator=torch.Generator().manual_seed(seed))
    certified = bayesmol.certify(BayesianACE().fit(data[order[:50]], seed=seed), data[order[50:200]])
    test = data[order[200:]]
    energy = certified.predict(test.structures).energy
    interval = energy.interval(0.9)
    held = interval.contains(test.energies).double().mean()
    width = relative_width(energy.mean - test.energies, interval.lower, interval.upper, level=0.9)
    return Counted(float(held), *coverage_band(150, 50, 0.9, CONFIDENCE), width)


def _diatomic(repeats: int, seed: int) -> Counted:
    """Bond lengths from ten noisy energies of a Morse curve."""
    rows = []
    for k in range(repeats):
        length = DiatomicGP(draws=500).fit(_morse(seed + k), seed=k).bond_length()
        interval = length.interval(0.95)
        rows.append((float(length.mean), float(interval.lower), float(interval.upper)))
    held = sum(lower <= BOND <= upper for _, lower, upper in rows)
    return _binomial(held / repeats, relative_width(*zip(*rows, strict=True)), repeats)


def _morse(seed: int, error: float = 3e-3) -> Labelled:
    x = np.array([0.42, 0.5, 0.58, 0.66, 0.74, 0.82, 0.93, 1.06, 1.27, 1.59])
    energies = 4.75 * (1 - np.exp(-1.9426 * (x - BOND))) ** 2 + error * np.random.default_rng(seed).standard_normal(10)
    frames = [Atoms("H2", [[0, 0, 0], [0, 0, float(r)]]) for r in x]
    errors = torch.full((10,), error, dtype=torch.float64)
    return Labelled(Structures.from_ase(frames), energies=torch.from_numpy(energies), energy_errors=errors)


def _densities(repeats: int, seed: int) -> Counted:
    own = Study("calibration", "densities")
    boltzmann_coverage.coverage(own, repeats=repeats, only=("double_well", "mueller_brown"), seed=seed)
    return _binomial(*_pair(own), repeats)


def _wavefunctions(repeats: int, seed: int) -> Counted:
    own = Study("calibration", "wavefunctions")
    only = ("screened_helium", "He")
    wavefunctions_coverage.coverage(own, repeats=repeats, walkers=32, draws=400, only=only, seed=seed)
    return _binomial(*_pair(own), repeats)


def _timescales(repeats: int, seed: int) -> Counted:
    """Of the Prinz potential at lag 25; deeptime sees the first twenty trajectories."""
    own, other = Study("calibration", "timescales"), Study("calibration", "deeptime")
    options = {"frames": 50_000, "draws": 400, "seed": seed}
    kinetics_coverage.coverage(own, repeats=repeats, lags=(25,), only=("prinz",), **options)
    if importlib.util.find_spec("deeptime") is None:
        return _binomial(*_pair(own), repeats)
    kinetics_peers.peers(other, name="prinz", repeats=min(repeats, 20), lag=25, count=3, **options)
    return _binomial(*_pair(own), repeats, _pair(other, end="_deeptime"), "deeptime")


def _modes(repeats: int, seed: int) -> Counted:
    own = Study("calibration", "modes")
    kinetics_dmd.dmd(own, repeats=repeats, sigmas=(0.1,), seed=seed)
    if "dmd_coverage_95_pydmd" not in own.figures:
        return _binomial(*_pair(own, "dmd_"), repeats)
    return _binomial(*_pair(own, "dmd_"), repeats, _pair(own, "dmd_", "_pydmd"), "pydmd")


def _pair(study: Study, start: str = "", end: str = "") -> tuple[float, float]:
    """Coverage and relative width that a study has found."""
    return study.figures[f"{start}coverage_95{end}"].value, study.figures[f"{start}relative_width{end}"].value


ROWS = (
    Row("certified_energies", 0.9, _certified),
    Row("bond_lengths_of_curves", 0.95, _diatomic),
    Row("boltzmann_densities", 0.95, _densities),
    Row("wavefunctions", 0.95, _wavefunctions),
    Row("timescales", 0.95, _timescales),
    Row("dynamic_modes", 0.95, _modes),
)


def plot(found: dict[str, Counted]) -> Figure:
    """Left the observed coverage of each family over its band, right the widths; with the nominal level and peers."""
    figure = Figure(figsize=(7.6, 0.45 * len(found) + 1.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    levels = {row.name: row.level for row in ROWS}
    for k, (name, one) in enumerate(found.items()):
        left.plot([one.lower, one.upper], [k, k], color="#2f6fb3", linewidth=8, alpha=0.25, solid_capstyle="butt")
        left.plot([levels[name]] * 2, [k - 0.25, k + 0.25], color="#222222", linewidth=1)
        for panel, own, other in zip((left, right), (one.observed, one.width), one.peer or (None, None), strict=True):
            panel.plot(own, k, "o", color="#2f6fb3", markersize=5)
            if other is not None:
                panel.plot(other, k, "x", color="#d1495b", markersize=6)
                panel.annotate(one.package, (other, k), (6, 0), textcoords="offset points", fontsize=7, va="center")
    left.set_yticks(range(len(found)), [name.replace("_", " ") for name in found], fontsize=8)
    left.set(xlabel="coverage: nominal | observed • band if true", xlim=(None, 1.01))
    right.axvline(1.0, color="#222222", linewidth=0.6)
    right.set(xlabel="relative width", xlim=(-0.05, None))
    left.invert_yaxis()
    for panel in (left, right):
        panel.spines[["top", "right"]].set_visible(False)
    return figure
