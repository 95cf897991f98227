"""One flow for a range of temperatures beside a dedicated flow for each, and the heat capacity that it gives."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.flow import Flow
from bayesmol.flows.generator import BoltzmannGenerator
from bayesmol.flows.model_densities import double_well, mueller_brown
from bayesmol.flows.molecule import alanine_dipeptide
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Target
from bayesmol.flows.steerable import Steered
from bayesmol.flows.steered import SteerableGenerator
from bayesmol.flows.steering import TemperatureSteering
from bayesmol.flows.systems import Exploration
from bayesmol.flows.tempering import heated
from bayesmol.flows.transport import ConstrainedMassTransport
from bayesmol.inference.importance import effective_size
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate
from bayesmol.report import Study
from bayesmol.representation.internal import dihedral

__all__ = ["RATIOS", "alanine_steering", "heat_capacity", "slope", "steering"]

RATIOS = (1.0, 1.5, 2.2, 3.3)
HOTTEST = 10 / 3  # of 300 K
TEMPERATURES = 4
SHARE = 0.5  # of the minutes of all dedicated generators together, for the one that replaces them
AMIDES = ((1, 4, 6, 8), (8, 14, 16, 18))  # CH3-C-N-CA and CA-C-N-CH3 in Amber's order of atoms
ARCHITECTURE = Couplings(layers=4, width=64)
_CHUNK = 20_000
_DENSITIES = {"double_well": double_well, "mueller_brown": mueller_brown}


def steering(
    study: Study,
    *,
    minutes: float,
    seed: int,
    draws: int = 200_000,
    targets: tuple[str, ...] = tuple(_DENSITIES),
    ratios: tuple[float, ...] = RATIOS,
) -> dict[str, Flow]:
    """Densities in a plane, from their energy alone: each training, steered or dedicated, has the same CPU minutes."""
    flows = {}
    for name in targets:
        flows[name] = _compared(study, name, _DENSITIES[name](), minutes, seed, draws, ratios)
    study.notes.append("dedicated flows: same layers, trained by constrained mass transport at their temperature")
    _least(study)
    return flows


def alanine_steering(
    study: Study, *, minutes: float, seed: int, draws: int = 100_000, dedicated: bool = True
) -> FittedGenerator:
    """Alanine dipeptide from 300 K to 1000 K, energies alone: one generator beside one for each of four temperatures.

    Each dedicated one has so many CPU minutes, exploration included, and the one for all of them half of what they
    take together. All explore to 2000 K, since amide bonds turn around at 1000 K already (6 % are cis) and hardly ever
    do so there.
    """
    density, whole, exploring = alanine_dipeptide(300.0), SHARE * TEMPERATURES * minutes, 0.2 * minutes
    spec = SteerableGenerator(exploration=_exploration(HOTTEST * 2, 12, 0.2 * whole), minutes=0.8 * whole)
    with study.stage("steered", "one flow for all temperatures"):
        generator = spec.fit(density, seed=seed)
    study.add("energy_evaluations_alanine", generator.trainings[0].energy_evaluations)
    for k in range(TEMPERATURES):
        ratio = HOTTEST ** (k / (TEMPERATURES - 1))
        label, steered = f"alanine_{300 * ratio:.0f}", generator.at(300.0 * ratio)
        fraction = _judged(study, f"ess_fraction_{label}", steered, draws, seed + 1)
        if dedicated:
            own = BoltzmannGenerator(
                exploration=_exploration(HOTTEST * 2 / ratio, max(12 - 2 * k, 4), exploring),
                minutes=minutes - exploring,
            )
            with study.stage("dedicated", f"a flow for {300 * ratio:.0f} K"):
                trained = own.fit(steered.density, seed=seed)
            study.add(
                f"ess_ratio_{label}", fraction / _judged(study, f"ess_dedicated_{label}", trained, draws, seed + 2)
            )
    if dedicated:
        study.notes.append(f"CPU minutes: {whole:g} for one flow, {minutes:g} for each of {TEMPERATURES} others")
        _least(study)
    return generator


def _exploration(hottest: float, rungs: int, minutes: float) -> Exploration:
    """Tempering, and chains for 0.4 of the time, that take so many CPU minutes at 18 000 energies a second."""
    walkers, leapfrogs, chains, evaluations = 48, 10, 1024, 60 * minutes * 18_000
    sweeps = max(int(0.6 * evaluations / (walkers * rungs * leapfrogs)), 40)
    length = max(int(0.4 * evaluations / (chains * leapfrogs)) - 20, 10)
    return Exploration(hottest, rungs, walkers, sweeps // 5, sweeps - sweeps // 5, 1, leapfrogs, chains, length)


def _judged(study: Study, figure: str, generator: FittedGenerator, draws: int, seed: int) -> float:
    """Share of the draws that count, and the share of turned amide bonds with its error."""
    with study.stage("judging"):
        x, log_weights = generator.weighted(draws, seed=seed)
        fraction = effective_size(log_weights).fraction
        study.add(figure, fraction)
        angles = dihedral(x, torch.tensor(AMIDES))
        turned = (angles.abs() < math.pi / 2).any(1)
        study.add(f"cis_{figure.removeprefix('ess_')}", _mean(turned.double(), log_weights))
    return fraction


def _compared(
    study: Study,
    name: str,
    target: Any,
    minutes: float,
    seed: int,
    draws: int,
    ratios: tuple[float, ...],
) -> Flow:
    """One flow for all ratios of temperatures, and one for each."""
    circular = getattr(target, "circular", torch.zeros(target.dimension, dtype=torch.bool))
    flow = ARCHITECTURE.build(circular, seed=seed, context=1)
    objective = TemperatureSteering(_budget(minutes), coldest=ratios[0], hottest=ratios[-1])
    with study.stage("steered", f"{name}: one flow for all temperatures"):
        training = objective.fit(flow, target, seed=seed)
    study.add(f"energy_evaluations_{name}", training.energy_evaluations)
    for ratio in ratios:
        label, there = f"{name}_{ratio:.3g}", heated(target, ratio)
        dedicated = ARCHITECTURE.build(circular, seed=seed)
        with study.stage("dedicated", f"{name}: a flow for {ratio:.3g} of the lowest temperature"):
            ConstrainedMassTransport(_budget(minutes), rounds=30).fit(dedicated, there, seed=seed)
        with study.stage("judging"):
            steered = _drawn(Steered(flow, ratio), there, draws, seed + 1)[1]
            own = _drawn(dedicated, there, draws, seed + 2)[1]
            fractions = [effective_size(log_w).fraction for log_w in (steered, own)]
            study.add(f"ess_fraction_{label}", fractions[0])
            study.add(f"ess_dedicated_{label}", fractions[1])
            study.add(f"ess_ratio_{label}", fractions[0] / fractions[1])
            _capacities(study, label, flow, target, ratio, ratios, draws, seed + 3)
    return flow


def _capacities(
    study: Study, label: str, flow: Flow, target: Any, ratio: float, ratios: tuple[float, ...], draws: int, seed: int
) -> None:
    """Heat capacity by fluctuations and by differences of independent draws, and what is known of it."""
    energy, log_w = _weighted_energy(flow, target, ratio, ratios, draws, seed)
    fluctuation = heat_capacity(energy, log_w, ratio)
    ends = []
    for k, factor in enumerate((0.95, 1.05)):
        ends.append(_mean(*_weighted_energy(flow, target, factor * ratio, ratios, draws, seed + 10 * (k + 1))))
    difference = slope(ends[0], ends[1], 0.1 * ratio)
    study.add(f"heat_capacity_{label}", fluctuation)
    study.add(f"heat_capacity_differences_{label}", difference)
    apart = float(fluctuation.value - difference.value)
    study.add(f"heat_capacity_z_{label}", apart / math.hypot(fluctuation.standard_error, difference.standard_error))
    if isinstance(target, BoltzmannDensity) and target.exact is not None:
        known = [target.exact(t * target.temperature).mean_energy * t for t in (0.995 * ratio, 1.005 * ratio)]
        error = float(fluctuation.value) - (known[1] - known[0]) / (0.01 * ratio)
        study.add(f"heat_capacity_error_{label}", error, error=float(fluctuation.standard_error))


def heat_capacity(energy: Float[Tensor, " draws"], log_w: Float[Tensor, " draws"], ratio: float) -> Estimate:
    r"""Configurational heat capacity :math:`C / k = \mathrm{Var}(U) / (kT)^2` from weighted draws.

    Parameters
    ----------
    energy
        In units of the thermal energy of the reference.
    ratio
        Temperature by that of the reference.
    """
    weights = log_w.softmax(0)
    apart = energy - weights @ energy
    variance = weights @ apart.square()
    error = (weights * (apart.square() - variance)).square().sum().sqrt()
    return Estimate(variance / ratio**2, error / ratio**2, 1 / weights.square().sum(), "")


def slope(lower: Estimate, upper: Estimate, width: float) -> Estimate:
    """Difference quotient of two independent estimates."""
    error = torch.hypot(lower.standard_error, upper.standard_error) / width
    count = torch.minimum(lower.effective_sample_size, upper.effective_sample_size)
    return Estimate((upper.value - lower.value) / width, error, count, "")


def _mean(energy: Tensor, log_w: Tensor) -> Estimate:
    weights = log_w.softmax(0)
    mean = weights @ energy
    error = (weights * (energy - mean)).square().sum().sqrt()
    return Estimate(mean, error, 1 / weights.square().sum(), "")


def _weighted_energy(
    flow: Flow, target: Any, ratio: float, ratios: tuple[float, ...], draws: int, seed: int
) -> tuple[Float[Tensor, " draws"], Float[Tensor, " draws"]]:
    """Energies and log-weights at a ratio of temperatures, from the flow at the nearest one of its range."""
    there = heated(target, ratio)
    rows, log_w = _drawn(Steered(flow, min(max(ratio, ratios[0]), ratios[-1])), there, draws, seed)
    # The energy by the temperature: volumes of coordinates are the same at both and drop out.
    cold, hot = (_energies(heated(target, factor), rows) for factor in (1.0, 2.0))
    known = torch.isfinite(log_w)
    return 2 * (cold - hot)[known], log_w[known]


@torch.no_grad()
def _drawn(flow: Flow, target: Target, draws: int, seed: int) -> tuple[Tensor, Float[Tensor, " draws"]]:
    source, rows, logs = generator(seed), [], []
    for start in range(0, draws, _CHUNK):
        x, log_q = flow.sample(min(_CHUNK, draws - start), seed=source)
        rows.append(x.double())
        logs.append(-target.reduced_energy(rows[-1]).double() - log_q.double())
    return torch.cat(rows), torch.cat(logs)


@torch.no_grad()
def _energies(target: Target, rows: Tensor) -> Float[Tensor, " draws"]:
    return torch.cat([target.reduced_energy(part).double() for part in rows.split(_CHUNK)])


def _least(study: Study) -> None:
    """The worst of all ratios of effective sizes."""
    found = [figure.value for name, figure in study.figures.items() if name.startswith("ess_ratio_")]
    study.add("ess_ratio", min(found))


def _budget(minutes: float) -> Optimisation:
    return Optimisation(steps=None, minutes=minutes, batch=512, rate=5e-3)
