"""Does the interval of the extrapolated energy hold the exact one? Short trainings of many systems and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from bayesmol.progress import progress
from bayesmol.report import Study, proportion
from bayesmol.wavefunctions.exact_energies import EXACT_ENERGIES
from bayesmol.wavefunctions.extrapolation import Extrapolated, ZeroVarianceExtrapolation
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet

__all__ = ["SYSTEMS", "extrapolation"]

LEVEL = 0.95
SYSTEMS = ("He", "H2", "Li", "Be", "LiH", "Li2", "C", "N")
NEW = ("Li2", "C", "N")  # not among those whose ratios of error to variance made the prior of the slope
STEPS = (60, 240)


def extrapolation(
    study: Study,
    *,
    seeds: int,
    draws: int,
    steps: Sequence[int] = STEPS,
    only: Sequence[str] = (),
    seed: int = 0,
    spec: PauliNet | None = None,
) -> None:
    """Fill in how often intervals of one training hold the exact energy, and the upper bounds the same energy."""
    spec, hits, bounds = PauliNet() if spec is None else spec, {}, []
    systems = [name for name in SYSTEMS if name in (only or SYSTEMS)]
    with progress("extrapolation", len(systems) * seeds * len(steps)) as advance:
        for name in systems:
            with study.stage(name):
                for k in range(seeds):
                    for count in steps:
                        found, bound = _one(spec, name, count, draws, seed + k)
                        truth = torch.tensor(EXACT_ENERGIES[name].energy, dtype=torch.float64)
                        hits.setdefault(name, []).append(bool(found.interval(LEVEL).contains(truth)))
                        bounds.append(bool(truth <= bound))
                        _tell(study, name, count, seed + k, found)
                        advance()
    _summarise(study, hits, bounds)


def _one(spec: PauliNet, name: str, steps: int, draws: int, seed: int) -> tuple[Extrapolated, float]:
    """The extrapolated energy from one training, and its upper bound without extrapolation."""
    training = replace(spec.training, minutes=None, steps=steps, window=None)
    wavefunction = replace(spec, training=training).fit(Molecule.named(name), seed=seed)
    energy = wavefunction.energy(draws, seed=seed + 1000)
    return ZeroVarianceExtrapolation().of([energy]), float(energy.bound(LEVEL).upper)


def _tell(study: Study, name: str, steps: int, seed: int, found: Extrapolated) -> None:
    interval, exact = found.interval(LEVEL), EXACT_ENERGIES[name].energy
    ends = ", ".join(f"{1e3 * (float(end) - exact):+.2f}" for end in (interval.lower, interval.upper))
    off = 1e3 * (float(found.energies.value[0]) - exact) if len(found.energies.value) else float("nan")
    study.notes.append(f"{name}, {steps} steps, seed {seed}: energy {off:+.2f} mHa from the exact one, interval {ends}")


def _summarise(study: Study, hits: dict[str, list[bool]], bounds: list[bool]) -> None:
    every = [hit for name in hits for hit in hits[name]]
    study.add("extrapolated_coverage_95", proportion(sum(every), len(every)))
    fresh = [hit for name in hits if name in NEW for hit in hits[name]]
    if fresh:
        study.add("extrapolated_coverage_95_new", proportion(sum(fresh), len(fresh)))
    for name, own in hits.items():
        study.add(f"extrapolated_coverage_95_{name}", proportion(sum(own), len(own)))
    study.add("bound_coverage_95", proportion(sum(bounds), len(bounds)))
    study.notes.append(f"new: {', '.join(NEW)}, which had no part in the prior of the slope")
