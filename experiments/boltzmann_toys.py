"""Energy-only training on densities with exact answers, with one setting for all; and the same of other packages.

The setting was chosen by short runs with seed 0 on the double well and on a many-well of eight dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow import Flow
from bayesmol.flows.model_densities import double_well as double_well_density
from bayesmol.flows.model_densities import many_well as many_well_density
from bayesmol.flows.model_densities import mueller_brown as mueller_brown_density
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.transport import ConstrainedMassTransport
from bayesmol.inference.importance import (
    effective_size,
    forward_effective_size,
    log_partition,
    populations,
    smoothed_weights,
)
from bayesmol.inference.random import generator
from bayesmol.progress import progress
from bayesmol.report import Study, cpu_seconds

ARCHITECTURE = Couplings(layers=2, width=64)
CHUNK = 20_000
DRAWS = 1_000_000
GRID = 1500
PEERS = ("zuko", "normflows")

Sampler = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def objective(minutes: float) -> ConstrainedMassTransport:
    """The setting of all runs, within a budget of CPU minutes."""
    return ConstrainedMassTransport(Optimisation(steps=None, minutes=minutes, batch=256, rate=5e-3))


def double_well(study: Study, minutes: float = 1.0, seed: int = 0, draws: int = DRAWS) -> Flow:
    """Two wells in a plane."""
    return trained(study, double_well_density(), minutes, seed, draws)


def mueller_brown(study: Study, minutes: float = 1.0, seed: int = 0, draws: int = DRAWS) -> Flow:
    """Three wells on a bent path in a plane."""
    return trained(study, mueller_brown_density(), minutes, seed, draws)


def many_well(study: Study, minutes: float = 1.0, seed: int = 0, draws: int = DRAWS, dimension: int = 32) -> Flow:
    """Independent pairs of coordinates with two wells each."""
    return trained(study, many_well_density(dimension=dimension), minutes, seed, draws)


def trained(study: Study, density: BoltzmannDensity, minutes: float, seed: int, draws: int) -> Flow:
    """Train on the energy alone, and fill in the figures."""
    flow = ARCHITECTURE.build(torch.zeros(density.dimension, dtype=torch.bool), seed=seed)
    with study.stage("training", f"training on {density.name}"):
        training = objective(minutes).fit(flow, density, seed=seed)
    with study.stage("judging"):
        judge(study, density, _drawn(flow), draws, seed + 1)
        forward_figure(study, density, flow.log_prob, seed + 2)
    study.add("energy_evaluations", training.energy_evaluations)
    study.notes.append(f"{training.steps} steps of training; {training.reason}")
    return flow


def _drawn(flow: Flow) -> Sampler:
    return lambda size, source: flow.sample(size, seed=source)


@torch.no_grad()
def judge(
    study: Study, density: BoltzmannDensity, sample: Sampler, draws: int, seed: int, prefix: str = ""
) -> Float[Tensor, " draws"]:
    """Figures of independent draws against what is known: effective size, tail index, partition function, states."""
    source, rows = generator(seed), []
    for start in range(0, draws, CHUNK):
        x, log_q = sample(min(CHUNK, draws - start), source)
        x = x.double()
        rows.append((-density.reduced_energy(x) - log_q.double(), density.states(x)))
    log_weights, labels = (torch.cat(columns) for columns in zip(*rows, strict=True))
    exact = density.known()
    study.add(f"{prefix}ess_fraction", effective_size(log_weights).fraction)
    study.add(f"{prefix}k_hat", smoothed_weights(log_weights[:100_000]).pareto_k)
    total = log_partition(log_weights)
    study.add(
        f"{prefix}log_partition_error", float(total.value) - exact.log_partition, error=float(total.standard_error)
    )
    found = populations(labels, log_weights, states=len(exact.populations))
    shares = torch.tensor(exact.populations, dtype=torch.float64)
    first, second = (int(i) for i in shares.topk(2).indices.sort().values)
    if bool((found.shares.value[[first, second]] == 0).any()):
        study.add(f"{prefix}free_energy_error_kt", math.inf)
    else:
        difference = found.free_energy_difference(first, second)
        error = float(difference.value) + float((shares[second] / shares[first]).log())
        study.add(f"{prefix}free_energy_error_kt", error, error=float(difference.standard_error))
    study.add(f"{prefix}population_distance", float((found.shares.value - shares).abs().sum() / 2))
    return log_weights


@torch.no_grad()
def forward_figure(
    study: Study, density: BoltzmannDensity, log_prob: Callable[[Tensor], Tensor], seed: int, size: int = 100_000
) -> None:
    """Forward effective sample size on independent draws of the density."""
    rows = exact_rows(density, size, seed)
    log_q = torch.cat([log_prob(part.float()).double() for part in rows.split(CHUNK)])
    value = forward_effective_size(-density.reduced_energy(rows) - log_q)
    study.add("forward_ess_fraction", value.fraction)


def exact_rows(density: BoltzmannDensity, size: int, seed: int) -> Float[Tensor, "size dimension"]:
    """Draws of a density of independent planes of two coordinates, each plane from the cells of a fine grid."""
    source, reach = generator(seed), 4.0
    step = 2 * reach / GRID
    line = (torch.arange(GRID, dtype=torch.float64) + 0.5) * step - reach
    plane = torch.cartesian_prod(line, line)
    rest = torch.zeros(density.dimension - 2, dtype=torch.float64)
    parts = [density.reduced_energy(torch.cat([p, rest.expand(len(p), -1)], 1)) for p in plane.split(100_000)]
    heights = (-torch.cat(parts)).softmax(0).cumsum(0)
    pairs = density.dimension // 2
    chance = torch.rand(size * pairs, generator=source, dtype=torch.float64) * heights[-1]
    cells = plane[torch.searchsorted(heights, chance).clamp_max(len(plane) - 1)]
    jitter = torch.rand(cells.shape, generator=source, dtype=torch.float64) - 0.5
    return (cells + step * jitter).reshape(size, density.dimension)


def seeds(study: Study, name: str, seconds: float, count: int, draws: int = 200_000) -> None:
    """The same training with many seeds: smallest effective size, largest errors, and how often a mode was missed."""
    found: dict[str, list[float]] = {}
    runs = {"double-well": double_well, "mueller-brown": mueller_brown, "many-well": many_well}
    with progress(f"{name}, seeds", count) as advance:
        for seed in range(count):
            one = Study(study.study, study.command)
            runs[name](one, seconds / 60, seed, draws)
            for key in ("ess_fraction", "forward_ess_fraction", "free_energy_error_kt", "population_distance"):
                found.setdefault(key, []).append(one.figures[key].value)
            advance()
    study.add("ess_fraction_smallest", min(found["ess_fraction"]))
    study.add("ess_fraction_median", float(torch.tensor(found["ess_fraction"]).median()))
    study.add("forward_ess_fraction_smallest", min(found["forward_ess_fraction"]))
    study.add("free_energy_error_kt_largest", max(abs(value) for value in found["free_energy_error_kt"]))
    study.add("missed_modes", sum(value > 0.05 for value in found["population_distance"]))


def peers(study: Study, seconds: float = 30.0, seed: int = 0, draws: int = 200_000) -> None:
    """Double well: ours beside the splines of other packages, trained by the reverse divergence as they document it."""
    density = double_well_density()
    one = Study(study.study, study.command)
    double_well(one, seconds / 60, seed, draws)
    for name, figure in one.figures.items():
        study.add(f"bayesmol_{name}", figure.value, error=figure.standard_error)
    for name in PEERS:
        try:
            sampler, parameters, log_prob = PEER_MODELS[name](seed)
        except ImportError:
            study.notes.append(f"{name} is not installed and was not measured")
            continue
        with study.stage(name, f"training with {name}"):
            evaluations = reverse_trained(density, sampler, parameters, seconds, seed)
        judge(study, density, sampler, draws, seed + 1, prefix=f"{name}_")
        study.add(f"{name}_energy_evaluations", evaluations)
        one.figures.clear()
        forward_figure(one, density, log_prob, seed + 2)
        study.add(f"{name}_forward_ess_fraction", one.figures["forward_ess_fraction"].value)


def reverse_trained(
    density: BoltzmannDensity, sample: Sampler, parameters: list[Tensor], seconds: float, seed: int
) -> int:
    """Adam on the reverse divergence, batches of 512, rate 2e-3, for CPU seconds; returns the evaluations."""
    adam, source, steps, start = torch.optim.Adam(parameters, 2e-3), generator(seed), 0, cpu_seconds()
    while cpu_seconds() - start < seconds:
        x, log_q = sample(512, source)
        loss = (density.reduced_energy(x) + log_q).mean()
        adam.zero_grad()
        if bool(torch.isfinite(loss)):
            loss.backward()
            adam.step()
        steps += 1
    return 512 * steps


def _zuko(seed: int) -> tuple[Sampler, list[Tensor], Callable[[Tensor], Tensor]]:
    import zuko

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = zuko.flows.NSF(2, transforms=4, bins=8, hidden_features=(64, 64))

    def sample(size: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=source)))
            return flow().rsample_and_log_prob((size,))

    return sample, list(flow.parameters()), lambda x: flow().log_prob(x)


def _normflows(seed: int) -> tuple[Sampler, list[Tensor], Callable[[Tensor], Tensor]]:
    import normflows

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers: list[Any] = []
        for _ in range(4):
            layers += [normflows.flows.CoupledRationalQuadraticSpline(2, 2, 64, num_bins=8, tail_bound=5.0)]
            layers += [normflows.flows.LULinearPermute(2)]
        flow = normflows.NormalizingFlow(normflows.distributions.DiagGaussian(2, trainable=False), layers)

    def sample(size: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(int(torch.randint(2**62, (), generator=source)))
            return flow.sample(size)

    return sample, list(flow.parameters()), flow.log_prob


PEER_MODELS = {"zuko": _zuko, "normflows": _normflows}
