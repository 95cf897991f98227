"""Clusters of identical particles by a continuous equivariant flow: training, raw weights, and annealed weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.continuous import Continuous, ContinuousFlow, integration
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow_matching import FlowMatching
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.particle_densities import dw4, lennard_jones
from bayesmol.inference.importance import effective_size, forward_effective_size, log_partition
from bayesmol.inference.metropolis import MALA, HamiltonianMonteCarlo
from bayesmol.inference.particles import family_mean
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import kish
from bayesmol.report import Study

__all__ = ["annealed", "dw4_continuous", "energy_w2", "lj13", "weighed"]

_TRAINING = 8000
_LEAPFROGS = 10


def lj13(
    study: Study, data: Path, *, minutes: float, seed: int, draws: int = 2000, steps: int = 16, moves: int = 200
) -> ContinuousFlow:
    """LJ13 from the first 8000 rows of a file of reference configurations; the others are held out."""
    density = lennard_jones(particles=13)
    train, held_out = split(torch.from_numpy(np.load(data)), density.dimension, study)
    flow = Continuous(radial=64, hidden=64, steps=steps).build(13, 3, seed=seed)
    matching = FlowMatching(Optimisation(steps=None, minutes=minutes, batch=128, rate=3e-3, average=500.0))
    with study.stage("training", "flow matching"):
        training = matching.fit(flow, density, train, seed=seed)
    study.add("steps", training.steps)
    flow.requires_grad_(False)
    with study.stage("weights", "draws and densities"):
        x, log_q = weighed(study, flow, density, held_out[:draws], draws, seed, name="raw_ess_fraction")
    with study.stage("annealing", "annealing"):
        x, log_w = annealed(study, density, x, log_q, moves=moves, seed=seed)
    _against(study, density, x, log_w, held_out, train)
    with study.stage("chains", "chains alone, at as many energies"):
        length = int(study.figures["smc_energy_evaluations"].value) // draws
        sampler = HamiltonianMonteCarlo(step=0.02, leapfrogs=_LEAPFROGS, warmup=length // _LEAPFROGS, draws=1)
        chains = sampler.fit(density, density.start.repeat(draws, 1), seed=seed)
    study.add("chains_energy_w2", energy_w2(density.reduced_energy(chains.rows), density.reduced_energy(held_out)))
    return flow


def dw4_continuous(study: Study, *, minutes: float, seed: int, draws: int = 10_000) -> ContinuousFlow:
    """DW4 from chains of our own, by flow matching; the partition function is known."""
    density = dw4()
    flow = Continuous(radial=64, hidden=64, steps=16).build(4, 2, seed=seed)
    matching = FlowMatching(Optimisation(steps=None, minutes=minutes, batch=256, rate=3e-3, average=500.0))
    with study.stage("training", "chains and flow matching"):
        training = matching.fit(flow, density, seed=seed)
    study.add("steps", training.steps)
    study.add("energy_evaluations", training.energy_evaluations)
    flow.requires_grad_(False)
    held_out = MALA(warmup=1000, draws=4, thin=100).fit(density, density.start.repeat(125, 1), seed=seed + 1)
    with study.stage("weights", "draws and densities"):
        x, log_q = weighed(study, flow, density, held_out.values.flatten(0, 1), draws, seed)
    log_w = -density.reduced_energy(x) - log_q
    found = log_partition(log_w)
    study.add(
        "log_partition_error", float(found.value) - density.known().log_partition, error=float(found.standard_error)
    )
    return flow


def split(rows: Tensor, dimension: int, study: Study) -> tuple[Tensor, Tensor]:
    """Rows to train on, and those held out that are not among them."""
    if rows.ndim != 2 or rows.shape[1] != dimension or len(rows) <= _TRAINING:
        raise DataError(expected("data", f"more than {_TRAINING} rows of {dimension}", tuple(rows.shape)))
    rows = rows.double()
    seen = {row.tobytes() for row in rows[:_TRAINING].numpy()}
    fresh = torch.tensor([row.tobytes() not in seen for row in rows[_TRAINING:].numpy()])
    study.notes.append(f"{int((~fresh).sum())} held-out rows that are also training rows were left out")
    return rows[:_TRAINING], rows[_TRAINING:][fresh]


def weighed(
    study: Study,
    flow: ContinuousFlow,
    density: BoltzmannDensity,
    held_out: Tensor,
    draws: int,
    seed: int,
    *,
    name: str = "ess_fraction",
) -> tuple[Float[Tensor, "draws dimension"], Float[Tensor, " draws"]]:
    """Draws of the flow with their log-density; effective sample sizes, and errors of the integration, as figures."""
    x, log_q = (part.double() for part in flow.sample(draws, seed=seed))
    log_w = -density.reduced_energy(x) - log_q
    study.add(name, effective_size(log_w).fraction)
    with torch.no_grad():
        log_held = flow.log_prob(held_out.to(flow.dtype)).double()
    log_forward = -density.reduced_energy(held_out) - log_held
    study.add("forward_ess_fraction", forward_effective_size(log_forward).fraction)
    study.add("negative_log_density", float(-log_held.mean()))
    study.add("log_partition_above", float(log_forward.mean()))
    errors = integration(flow, draws=min(draws, 200), seed=seed)
    study.add("round_trip", errors.round_trip)
    study.add("centre", errors.centre)
    study.add("log_density_error", errors.log_density)
    study.notes.append(f"effective sample sizes of {draws} draws; forward ones of {len(held_out)} held-out rows")
    return x, log_q


def annealed(
    study: Study,
    density: BoltzmannDensity,
    x: Float[Tensor, "draws dimension"],
    log_q: Float[Tensor, " draws"],
    *,
    overlap: float = 0.9,
    moves: int = 200,
    seed: int,
) -> tuple[Float[Tensor, "draws dimension"], Float[Tensor, " draws"]]:
    r"""Sequential Monte Carlo from draws of a flow to the density, over :math:`e^{-\beta u}` at rising :math:`\beta`.

    The first :math:`\beta` is the one at which the draws weigh most evenly; the density of the flow is needed for
    these weights alone, which is what makes it affordable when each costs an integration.
    """
    source, energy = generator(seed), density.reduced_energy(x)
    grid = torch.logspace(-2, 0, 81, dtype=torch.float64)
    beta = float(grid[torch.stack([kish(-b * energy - log_q) for b in grid]).argmax()])
    log_w, rungs = -beta * energy - log_q, 1
    first, evaluations, walk = float(kish(log_w)), 0, None
    ancestors = torch.arange(len(x))
    while True:
        if float(kish(log_w)) < 0.5 * len(x):
            chosen = torch.multinomial(log_w.softmax(0), len(x), replacement=True, generator=source)
            x, ancestors, log_w = x[chosen], ancestors[chosen], torch.zeros_like(log_w)
        step = walk.step if walk else 0.02
        sampler = HamiltonianMonteCarlo(step=step, leapfrogs=_LEAPFROGS, warmup=moves, draws=1)
        walk = sampler.fit(density.at(density.temperature / beta), x, seed=source)
        x, evaluations = walk.rows, evaluations + walk.evaluations
        if beta == 1:
            break
        energy = density.reduced_energy(x)
        new = next_rung(energy, log_w, beta, overlap)
        log_w, beta, rungs = log_w - (new - beta) * energy, new, rungs + 1
    study.add("smc_first_ess_fraction", first / len(x))
    shares = torch.zeros_like(log_w).index_add(0, ancestors, log_w.softmax(0))
    study.add("smc_families", float(1 / shares.square().sum()))
    found = family_mean(shapes(density, x), log_w, ancestors, "")
    study.add("ess_fraction", float(found.effective_sample_size.min()) / len(x))
    study.add("smc_rungs", rungs)
    study.add("smc_energy_evaluations", evaluations)
    study.add("virial", family_mean(virial(density, x), log_w, ancestors, ""))
    study.add("mean_energy", family_mean(density.reduced_energy(x), log_w, ancestors, ""))
    study.notes.append(
        "ess_fraction is that after annealing, of the worst known among the means of energy, virial, radius of "
        "gyration and sorted distances from the centre, by the scatter between first ancestors"
    )
    return x, log_w


def shapes(density: BoltzmannDensity, x: Float[Tensor, "draws dimension"]) -> Float[Tensor, "draws observables"]:
    """Energy, virial, radius of gyration and sorted distances from the centre."""
    radii = x.unflatten(1, (-1, max(density.space, 1))).norm(dim=2).sort(1)[0]
    return torch.cat([torch.stack([density.reduced_energy(x), virial(density, x), radii.norm(dim=1)], 1), radii], 1)


def virial(density: BoltzmannDensity, x: Float[Tensor, "draws dimension"]) -> Float[Tensor, " draws"]:
    """Sum of coordinates times slopes of the reduced energy, whose mean is the number of degrees of freedom."""
    return (x * density.reduced_gradient(x)[1]).sum(1)


def next_rung(energy: Float[Tensor, " draws"], log_w: Float[Tensor, " draws"], beta: float, overlap: float) -> float:
    """Largest next inverse temperature at which the conditional effective size is ``overlap`` of the draws."""
    weights = log_w.log_softmax(0)

    def share(new: float) -> float:
        step = (new - beta) * -energy
        return float((2 * (weights + step).logsumexp(0) - (weights + 2 * step).logsumexp(0)).exp())

    if share(1.0) >= overlap:
        return 1.0
    lower, upper = beta, 1.0
    for _ in range(40):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if share(middle) >= overlap else (lower, middle)
    return lower


def energy_w2(first: Float[Tensor, " n"], second: Float[Tensor, " m"], points: int = 2000) -> float:
    """Wasserstein distance of order 2 between two samples of energies, over mid-quantiles."""
    levels = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    quantiles = (torch.quantile(part.double(), levels) for part in (first, second))
    return float((next(quantiles) - next(quantiles)).square().mean().sqrt())


def _against(
    study: Study, density: BoltzmannDensity, x: Tensor, log_w: Tensor, held_out: Tensor, train: Tensor
) -> None:
    """Distribution of the energy of weighted draws, beside what the reference has by chance."""
    draws = Draws(x[None], log_w[None], unit="")
    study.add("reference_mean_energy", float(density.reduced_energy(held_out).mean()))
    size = min(len(x), len(train))
    equal = draws.sample(len(x), seed=0)
    reference = density.reduced_energy(held_out)
    study.add("energy_w2", energy_w2(density.reduced_energy(equal), reference))
    floors = [energy_w2(density.reduced_energy(part), reference) for part in train.split(size) if len(part) == size]
    study.add("energy_w2_floor", sum(floors) / len(floors))
    study.notes.append(f"the floor of the energy distance is the mean of {len(floors)} sets of {size} reference rows")
    study.notes.append(f"the virial is {density.degrees_of_freedom} exactly")
