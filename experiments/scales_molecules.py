"""Labels to kinetics: n-butane by GFN2-xTB, populations and rate of its torsion, with one error bar.

Every step hands on a distribution: labels, the posterior of the potential, draws of its density and of its dynamics,
and labels of some of these draws, which say what the potential has wrong.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scales_molecules_chain import Chain, chain
from scales_molecules_plots import plots
from scales_molecules_reference import Truth
from scales_molecules_stages import Settings
from torch import Tensor

from bayesmol.progress import progress
from bayesmol.report import Study, proportion

__all__ = ["LEVEL", "molecules", "plots"]

LEVEL = 0.9


def molecules(
    study: Study, folder: Path, settings: Settings, *, repeats: int, known: Truth | None, seed: int
) -> list[Chain]:
    """Fill in results of the first chain, and how many of all agree with the reference."""
    if known is not None:
        known.check(settings.temperature)
    found = []
    with study.stage("chains"), progress("chains", repeats) as advance:
        for k in range(repeats):
            found.append(chain(folder / f"{k:03d}", settings, seed=seed + k))
            advance()
    _results(study, found[0])
    _costs(study, found, known)
    if known is not None:
        _judged(study, found, known)
    return found


def _results(study: Study, one: Chain) -> None:
    """Values of a chain, and the shares of what is uncertain in them."""
    kt, rates = one.fact["kt"], one.timescale.log()
    results = {
        "free_energy": (one.free_energy, one.energies, one.posterior[0], "kT"),
        "timescale": (rates, one.times.log(), one.posterior[1], ""),
    }
    study.add("free_energy", float(one.free_energy.mean()), "kT", error=float(one.free_energy.std()))
    study.add("free_energy_mev", 1000 * kt * float(one.free_energy.mean()), "meV")
    study.add("timescale", float(one.timescale.mean()), "ps", error=float(one.timescale.std()))
    for name, (total, sampling, posterior, unit) in results.items():
        study.add(f"{name}_error", float(total.std()), unit)
        study.add(f"{name}_error_of_sampling", float(sampling.std()), unit)
        study.add(f"{name}_share_of_labels", share_of_labels(total, sampling))
        study.add(f"{name}_error_by_posterior_alone", float(posterior), unit)
    lower, upper = ends(one.timescale)
    study.notes.append(f"relaxation time {lower:.2f} to {upper:.2f} ps, 90 %; its errors above are of its logarithm")


def share_of_labels(total: Tensor, sampling: Tensor) -> float:
    """Share of the variance that the labels have, through what they say of the potential; the rest is sampling."""
    return 1 - min(1.0, float(sampling.var() / total.var()))


def _costs(study: Study, found: list[Chain], known: Truth | None) -> None:
    facts = found[0].fact
    study.add("reference_calls", facts["calls"])
    study.add("reference_calls_ratio", facts["calls"] / (facts["moves"] if known is None else known.calls))
    study.add("ess_fraction", facts["effective"])
    study.add("dynamics_inside_domain", facts["inside"])
    study.add("force_mae", facts["force_error"], "eV/Å")
    study.add("energy_scatter", facts["energy_error"], "eV")
    study.add("force_conformal_90", facts["covered"])
    trusted = sum(one.fact["trusted"] > 0 for one in found)
    study.notes.append(f"reports of the flows: {trusted} of {len(found)} not red")
    longest, shortest = (end(one.fact["moves"] for one in found) for end in (max, min))
    if longest > shortest:
        study.notes.append(f"dynamics went on for up to {longest / shortest:g} times the steps, for too few events")


def _judged(study: Study, found: list[Chain], known: Truth) -> None:
    """How many intervals hold what the reference says, the reference's own error included."""
    kinds = {
        "free_energy": ([one.free_energy for one in found], known.free_energy),
        "timescale": ([one.timescale.log() for one in found], known.timescale.log()),
        "free_energy_by_posterior_alone": ([_believed(one, 0) for one in found], known.free_energy),
        "timescale_by_posterior_alone": ([_believed(one, 1) for one in found], known.timescale.log()),
    }
    for name, (ours, theirs) in kinds.items():
        held = sum(holds(one, theirs) for one in ours)
        off = np.array([float((one.mean() - theirs.mean()) / (one.var() + theirs.var()).sqrt()) for one in ours])
        study.add(f"{name}_inside_90", proportion(held, len(found)))
        study.add(f"{name}_z_rms", float(np.sqrt((off**2).mean())))
        study.notes.append(f"{name}: {held} of {len(found)} intervals hold the reference; z {off.round(2).tolist()}")
    for name, values in {"free_energy": known.free_energy, "timescale": known.timescale}.items():
        study.notes.append(f"{name} of the reference: {float(values.mean()):.3f} ± {float(values.std()):.3f}")


def _believed(one: Chain, place: int) -> Tensor:
    """Result of the learned surface, with the error that its posterior gives and no labels of draws."""
    sampling = (one.energies, one.times.log())[place]
    normal = torch.randn(len(sampling), generator=torch.Generator().manual_seed(place), dtype=torch.float64)
    return sampling + one.posterior[place] * normal


def holds(ours: Tensor, theirs: Tensor) -> bool:
    """Whether the interval of the difference of two independent results holds zero."""
    source = torch.Generator().manual_seed(0)
    picks = [torch.randint(len(part), (10_000,), generator=source) for part in (ours, theirs)]
    lower, upper = ends(ours[picks[0]] - theirs[picks[1]])
    return lower <= 0 <= upper


def ends(draws: Tensor) -> tuple[float, float]:
    """Of the interval of equal tails."""
    lower, upper = draws.quantile(draws.new_tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])).tolist()
    return lower, upper
