"""Stages of a chain of n-butane: labels and potential, dynamics, density, and the labels of draws that correct them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from scales_molecules_sampling import Motion, equivalent, like, motion, scan, torsion
from torch import Tensor

import bayesmol as bm
from bayesmol.acquisition import Campaign
from bayesmol.certified import CertifiedModel
from bayesmol.data import Structures
from bayesmol.data.label_cache import Cached
from bayesmol.data.reference import TBLite
from bayesmol.errors import DataError, expected
from bayesmol.flows import BoltzmannDensity, BoltzmannGenerator, diagnose
from bayesmol.flows.corrections import label_correction
from bayesmol.flows.discovery import Discovery
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.objectives import ForwardKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.surface_errors import surface_error
from bayesmol.flows.weighted import BoltzmannDraws
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.report import write_text

__all__ = [
    "BINS",
    "Settings",
    "audited",
    "believed",
    "density_of",
    "draws_of",
    "flow",
    "gauche_free_energy",
    "learned",
    "moved",
    "same",
    "some",
    "unsigned",
]

POTENTIAL = BayesianACE(cutoffs=(4.0,), channels=(8, 8, 4), degrees=(3, 3, 2), mixing=MixingSchedule(steps=60))
SCANNED, CANDIDATES, HEATED = 48, 600, 1.3  # labels of the scan; steps of the dynamics that finds candidates; its heat
GAUCHE, BARRIER = 120.0, (110.0, 130.0)  # degrees: below, a torsion is gauche; and the region of the barrier
BINS, METHYL = 18, (4, 0, 1, 2)
DRAWN, REPORTED, REWEIGHTED = 8000, 2000, 2000  # draws of the flow; of its report; frames for the posterior's share
FAR = 2.0  # times the limit of the domain, beyond which a replica is stopped
DISTRIBUTION = 1000  # draws of each result


@dataclass(frozen=True)
class Settings:
    """Temperature (K), labels chosen, labels of draws of each state, replicas, ps of each, steps of the flow."""

    temperature: float = 400.0
    labels: int = 128
    audits: int = 96
    replicas: int = 48
    picoseconds: float = 6.0
    training: int = 300


def same(folder: Path, settings: dict[str, Any]) -> None:
    """See that what a folder keeps was made with these settings, or write them down in a new one."""
    path, told = folder / "settings.json", json.dumps(settings, sort_keys=True)
    if not path.exists():
        write_text(path, told)
    if (known := path.read_text(encoding="utf-8")) != told:
        raise DataError(expected("folder", f"a run with {told}", known, "take another folder"))


def stored(path: Path, made: Callable[[], Any]) -> Any:
    """The model of a file, made and written first where there is none."""
    if not path.exists():
        bm.save(made(), path)
    return bm.load(path)


def learned(folder: Path, settings: Settings, seed: int) -> tuple[CertifiedModel, Structures]:
    """Certified potential, and geometries of the whole circle from which dynamics can start."""
    reference, geometries = TBLite(), scan(SCANNED, seed)
    first = Cached(reference, folder / "labels").label(geometries).labelled
    rough = replace(POTENTIAL, mixing=MixingSchedule(steps=0))
    crude = stored(folder / "crude.bm", lambda: rough.fit(first, seed=seed))
    options = {"temperature": settings.temperature, "heated": HEATED, "steps": CANDIDATES, "seed": 10 * seed}
    wandered = motion(folder / "candidates", crude, geometries, **options)
    pool = like(geometries[0], wandered.settled[::4].flatten(0, 1))
    campaign = Campaign(
        folder / "campaign", POTENTIAL, pool, reference, first, budget=settings.labels, size=settings.labels, seed=seed
    )

    def certified() -> CertifiedModel:
        campaign.run()
        return bm.certify(campaign.fitted())

    chosen = torch.arange(settings.replicas) % len(geometries)
    return stored(folder / "potential.bm", certified), wandered.structures[chosen]


def moved(folder: Path, model: CertifiedModel, start: Structures, settings: Settings, seed: int) -> Motion:
    """Dynamics on the mean surface; where a replica loses a bond or is far outside of the domain there is no result."""
    limit = FAR * model.domain.threshold
    run = motion(
        folder / "dynamics",
        model.model,
        start,
        temperature=settings.temperature,
        steps=round(1000 * settings.picoseconds),
        seed=10 * seed + 1,
        gate=lambda structures: model.strangeness(structures) > limit,
    )
    if run.stopped:
        wanted, got = "dynamics that keeps bonds and domain", f"replicas stopped {run.stopped} times in pieces of 1 ps"
        raise DataError(expected("labels", wanted, got, "take another seed, in another folder"))
    return run


def density_of(model: CertifiedModel, start: Structures, temperature: float) -> BoltzmannDensity:
    """Density of the mean surface, with the posterior of the potential."""
    return BoltzmannDensity.from_potential(model, start[0], temperature)


def flow(folder: Path, density: BoltzmannDensity, frames: Tensor, steps: int, seed: int) -> FittedGenerator:
    """Boltzmann generator that learned frames of the dynamics, each as the four that are equivalent."""
    rows = equivalent(frames.flatten(0, 1)).double().flatten(1)
    optimisation = Optimisation(steps=steps, rate=4e-3, batch=512, marginal=1.0)
    made = BoltzmannGenerator(objective=ForwardKL(optimisation=optimisation))
    return stored(folder / "generator.bm", lambda: made.fit(density, rows, seed=seed)).on(density)


def draws_of(fitted: FittedGenerator, density: BoltzmannDensity, size: int, seed: int) -> BoltzmannDraws:
    """Weighted draws with the verdict of a report; its chains are few, because the scan has seen the whole circle."""
    few = Discovery(walkers=8, trajectories=20)
    report = diagnose(fitted.proposal, density, draws=REPORTED, discovery=few, seed=seed)
    rows, log_weights = fitted.weighted(size, seed=seed)
    return BoltzmannDraws(rows.unflatten(1, (-1, 3))[None], log_weights[None], unit="Å", report=report)


def gauche_free_energy(drawn: BoltzmannDraws, seed: int) -> Float[Tensor, " draws"]:
    """Free energy of gauche less trans in kT: normal draws with the error of sampling."""
    found = drawn.free_energy_difference(0, 1, lambda x: (unsigned(x.unflatten(1, (-1, 3))) < GAUCHE).long())
    normal = torch.randn(DISTRIBUTION, generator=generator(seed), dtype=torch.float64)
    return found.value + found.standard_error * normal


def audited(
    folder: Path, model: CertifiedModel, frames: Tensor, settings: Settings, seed: int
) -> tuple[Draws, list[float]]:
    """Correction of populations by labels of frames of each state; how many, scatter, force error, share covered."""
    x, states = _of_states(frames, settings.audits, seed)
    structures = like(model.model.training.structures[0], x)
    labels = Cached(TBLite(), folder / "labels").label(structures).labelled
    prediction = model.predict(structures)
    off, error = labels.energies - prediction.energy.mean, (labels.forces - prediction.forces.mean).abs().mean()
    covered = prediction.forces.interval(0.9).covered(labels.forces)
    kt = density_of(model, structures, settings.temperature).kt
    shifts = label_correction(off, states, kt, seed=seed, draws=DISTRIBUTION)
    return shifts, [len(x), float(off.std()), float(error), float(covered)]


def _of_states(frames: Tensor, size: int, seed: int) -> tuple[Float[Tensor, "labels atoms 3"], Int[Tensor, " labels"]]:
    """So many frames of each of trans, gauche and the barrier, by chance, and which they are of."""
    x, source = frames.flatten(0, 1).double(), generator(seed)
    chosen = []
    for inside in _populations(x).bool().unbind(1):
        places = inside.nonzero()[:, 0]
        chosen.append(places[torch.randperm(len(places), generator=source)[:size]])
    counts = torch.tensor([len(part) for part in chosen])
    return x[torch.cat(chosen)], torch.arange(3).repeat_interleave(counts)


def believed(
    density: BoltzmannDensity, drawn: BoltzmannDraws, frames: Tensor, seed: int
) -> tuple[Float[Tensor, " 2"], Float[Tensor, " bins"]]:
    """Errors of free energy and logarithm of the time, and of the profile, by the posterior of the potential alone.

    They are infinite where the draws do not reach a surface of the posterior.
    """
    weighted = Draws(drawn.values[:, :REWEIGHTED], drawn.log_weights[:, :REWEIGHTED], unit="Å")
    bins = _surfaces(density, weighted, _binned, seed)
    energy = (bins[:, BINS * 2 // 3 :].sum(1) / bins[:, : BINS * 2 // 3].sum(1)).log().std()
    every = max(1, frames.shape[0] * frames.shape[1] // REWEIGHTED)
    parts = _surfaces(density, Draws(frames[:, ::every].double(), unit="Å"), _populations, seed)
    time = (parts[:, 0] * parts[:, 1] / parts[:, 2]).log().std()
    band = bins.clamp_min(torch.finfo(bins.dtype).tiny).log().std(0)
    return torch.stack([energy, time]).nan_to_num(torch.inf), band.nan_to_num(torch.inf)


def _surfaces(
    density: BoltzmannDensity, draws: Draws, observable: Callable[[Tensor], Tensor], seed: int
) -> Float[Tensor, "surfaces values"]:
    """Expectations on surfaces of the posterior; no numbers if the draws do not reach one of them."""
    found = surface_error(density, draws, observable, seed=seed)
    reached = bool(torch.isfinite(found.total.standard_error).all())
    return found.expectations if reached else torch.full_like(found.expectations, torch.nan)


def unsigned(x: Float[Tensor, "*shape atoms 3"]) -> Float[Tensor, "*shape"]:
    """Torsion of the carbons without its sign, in degrees."""
    return torsion(x).abs()


def _binned(x: Tensor) -> Tensor:
    place = (unsigned(x) * BINS / 180).long().clamp_max(BINS - 1)
    return torch.nn.functional.one_hot(place, BINS).double()


def _populations(x: Tensor) -> Tensor:
    angle = unsigned(x)
    barrier = (angle > BARRIER[0]) & (angle < BARRIER[1])
    return torch.stack([angle >= GAUCHE, angle < GAUCHE, barrier], -1).double()


def some(frames: Tensor, size: int, seed: int) -> Tensor:
    """So many frames, by chance."""
    x = frames.flatten(0, 1)
    return x[torch.randperm(len(x), generator=generator(seed))[:size]]
