"""A Boltzmann generator for each target, trained and judged by the public interface."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import boltzmann_toys
import torch
from torch import Tensor

from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.generator import BoltzmannGenerator
from bayesmol.flows.model_densities import double_well, many_well, mueller_brown
from bayesmol.flows.particle_densities import dw4
from bayesmol.flows.systems import Exploration
from bayesmol.report import Study

__all__ = ["TOYS", "particles", "toy"]

TOYS: dict[str, Callable[[], BoltzmannDensity]] = {
    "double-well": double_well,
    "mueller-brown": mueller_brown,
    "many-well": many_well,
}


def toy(study: Study, target: str, *, minutes: float, draws: int, seed: int) -> FittedGenerator:
    """A density whose answers are known, from its energy alone."""
    density = TOYS[target]()
    generator = fitted(study, BoltzmannGenerator(minutes=minutes), density, seed=seed)
    with study.stage("judge", "draws"):
        boltzmann_toys.judge(study, density, sampler(generator), draws, seed + 1)
        boltzmann_toys.forward_figure(study, density, generator.log_prob, seed + 2)
    verdict(study, generator, seed=seed)
    return generator


def particles(study: Study, *, minutes: float, draws: int, seed: int) -> FittedGenerator:
    """Four particles in the plane: chains of our own, and a flow that is averaged over their 48 symmetries."""
    density = dw4()
    spec = BoltzmannGenerator(
        architecture=Autoregressive(width=64, bins=24),
        exploration=Exploration(hottest=3.0, rungs=4, walkers=64, warmup=300, draws=1500, thin=1, leapfrogs=5),
        minutes=minutes,
    )
    generator = fitted(study, spec, density, seed=seed)
    with study.stage("judge", "draws"):
        _, log_weights = generator.weighted(draws, seed=seed + 1)
    weighed(study, log_weights)
    total = study.figures["log_partition"].value - density.known().log_partition
    study.add("log_partition_error", total, error=study.figures["log_partition"].standard_error)
    verdict(study, generator, seed=seed)
    return generator


def fitted(
    study: Study, spec: BoltzmannGenerator, density: BoltzmannDensity, samples: Tensor | None = None, *, seed: int
) -> FittedGenerator:
    """Train, and say what it cost."""
    with study.stage("train", f"training on {density.name}"):
        generator = spec.fit(density, samples, seed=seed)
    study.add("energy_evaluations", sum(training.energy_evaluations for training in generator.trainings))
    study.notes += [training.reason for training in generator.trainings]
    return generator


def sampler(generator: FittedGenerator) -> boltzmann_toys.Sampler:
    """Draws and their log-density."""

    def draw(size: int, source: torch.Generator) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return generator.proposal.sample(size, seed=source)

    return draw


def weighed(study: Study, log_weights: Tensor) -> None:
    """Effective size, tail and partition function of draws."""
    from bayesmol.inference.importance import effective_size, log_partition, smoothed_weights

    study.add("ess_fraction", effective_size(log_weights).fraction)
    study.add("k_hat", finite(smoothed_weights(log_weights[:100_000]).pareto_k))
    study.add("log_partition", log_partition(log_weights))


def verdict(study: Study, generator: FittedGenerator, reference: Tensor | None = None, *, seed: int) -> Any:
    """What the trust report says, as figures and as text."""
    with study.stage("diagnose", "trust report"):
        report = generator.diagnose(reference, seed=seed)
    study.add("verdict", {"red": 0, "amber": 1, "green": 2}[report.verdict])
    for figure, check in (("forward_ess_fraction", "forward ESS"), ("virial_z", "virial z")):
        if figure not in study.figures and check in {one.name for one in report.checks}:
            study.add(figure, report[check].value)
    study.notes += [f"verdict: {report.verdict} (0 red, 1 amber, 2 green)", *str(report).splitlines()]
    return report


def finite(value: float) -> float:
    """Minus infinity, for weights without a tail, as 0."""
    return value if math.isfinite(value) else 0.0
