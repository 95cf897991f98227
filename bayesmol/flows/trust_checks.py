"""Checks of a proposal against a density, each a number with a limit, a light and a sentence."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.discovery import Expedition, Sample
from bayesmol.flows.weighted import EFFECTIVE_GREEN, EFFECTIVE_RED, K_HAT_GREEN, tail_index
from bayesmol.flows.weighted_estimate import influenced
from bayesmol.inference.bridge import free_energy_difference
from bayesmol.inference.checks import Check
from bayesmol.inference.importance import (
    effective_size,
    forward_effective_size,
    k_hat_limit,
    log_partition,
    partition_bounds,
)
from bayesmol.inference.metropolis import independence_chain

__all__ = ["ORDER", "Evidence", "Light", "checks"]

Light = Literal["green", "amber", "red"]
ORDER: tuple[Light, ...] = ("green", "amber", "red")
_WORTHLESS = math.log(1e-6)  # of the mean weight: such a draw, a clash maybe, costs the flow nothing but itself
_HIGH = 7.0  # kT: a region of unknown mass this far above the others is not called a lost mode


class Evidence(NamedTuple):
    """What the checks look at.

    Attributes
    ----------
    draws
        Of the proposal.
    virial
        :math:`x \\cdot \\nabla u` of each draw; ``None`` where the theorem does not apply or there is no gradient.
    forward, block
        Log-weights at a sample of the density, and how many consecutive ones are about one independent one.
    origin
        Where that sample comes from.
    expedition
        What the chains found; ``None`` without a gradient.
    outside
        Share of the reference in missed regions, if there is a reference.
    members
        Log-weights of draws of each member of an ensemble against that member.
    """

    draws: Sample
    virial: Float[Tensor, " draws"] | None
    forward: Float[Tensor, " forward"] | None
    block: int
    origin: str
    expedition: Expedition | None
    outside: float | None
    members: tuple[Float[Tensor, " draws"], ...]


def checks(evidence: Evidence, density: BoltzmannDensity, *, seed: int | torch.Generator) -> tuple[Check[Light], ...]:
    """All checks that the evidence allows."""
    log_weights = evidence.draws.log_weights
    found = [_effective(log_weights), _tail(log_weights), _run(log_weights, seed)]
    found.append(_virial(evidence, density))
    if evidence.forward is not None:
        found += [judged(evidence, evidence.forward) for judged in (_forward, _gap, _partition)]
    found.append(_missing(evidence))
    if len(evidence.members) > 1:
        found.append(_members(evidence.members))
    return tuple(found)


def _light(value: float, amber: float, red: float) -> Light:
    """Light of a number that should be small; NaN is red."""
    return "green" if value <= amber else "amber" if value <= red else "red"


def _effective(log_weights: Tensor) -> Check[Light]:
    size = effective_size(log_weights)
    light = _light(-size.effective, -EFFECTIVE_GREEN, -EFFECTIVE_RED)
    sentence = f"{size} effective draws of the proposal; this number does not see what the proposal misses"
    return Check("effective sample size", size.effective, EFFECTIVE_GREEN, light, sentence)


def _tail(log_weights: Tensor) -> Check[Light]:
    k_hat, limit = tail_index(log_weights), k_hat_limit(len(log_weights))
    light = _light(k_hat, min(K_HAT_GREEN, limit), limit)
    says = {
        "green": "the weights have a light tail",
        "amber": "the tail of the weights is heavy enough to make intervals too short",
        "red": "the weights have so heavy a tail that their mean cannot be trusted",
    }
    return Check("k-hat", k_hat, min(K_HAT_GREEN, limit), light, f"k-hat is {k_hat:.2f}: {says[light]}")


def _run(log_weights: Tensor, seed: int | torch.Generator) -> Check[Light]:
    longest, draws = independence_chain(log_weights, seed=seed).longest, len(log_weights)
    amber, red = max(100.0, 0.01 * draws), max(200.0, 0.05 * draws)
    sentence = f"an independence chain over the {draws} draws rejects at most {longest} times in a row"
    return Check("rejection run", longest, amber, _light(longest, amber, red), sentence)


def _virial(evidence: Evidence, density: BoltzmannDensity) -> Check[Light]:
    name, limit = "virial z", 3.0
    if evidence.virial is None:
        text = "the virial theorem cannot be used: angles, walls of infinite energy, or no gradient"
        return Check(name, math.nan, limit, "green", text)
    weights = evidence.draws.log_weights.softmax(0)
    value = weights @ evidence.virial
    influence = len(weights) * weights * (evidence.virial - value)
    mean = influenced(value, influence, value, "", "")
    z = float((value - density.degrees_of_freedom) / mean.standard_error.clamp_min(1e-12))
    exact = density.degrees_of_freedom
    sentence = f"⟨x·∇u⟩ is {mean}, and {exact} if the draws are those of the density (z = {z:.1f})"
    return Check(name, z, limit, _light(abs(z), limit, 5.0), sentence)


def _forward(evidence: Evidence, log_weights: Tensor) -> Check[Light]:
    reverse, forward = effective_size(evidence.draws.log_weights), forward_effective_size(log_weights)
    limit = 0.5 * reverse.fraction
    light = _light(-forward.fraction, -limit, -0.2 * reverse.fraction)
    percent = f"{100 * forward.fraction:.3g} % at {forward.draws} {evidence.origin}"
    sentence = f"forward effective size is {percent}, {100 * reverse.fraction:.3g} % at draws of the proposal"
    return Check("forward ESS", forward.fraction, limit, light, sentence)


def _gap(evidence: Evidence, log_weights: Tensor) -> Check[Light]:
    every = evidence.draws.log_weights
    kept = every[torch.isfinite(every)]
    kept = kept[kept > kept.logsumexp(0) - math.log(len(every)) + _WORTHLESS]
    # A bound from a part of the draws holds with the logarithm of its share: the rest has some of Z, too.
    bounds = partition_bounds(kept + math.log(len(kept) / len(every)), log_weights, block=evidence.block)
    value = float(bounds.gap.value)
    sentence = f"log Z is between {bounds.lower} and {bounds.upper}"
    if lost := len(every) - len(kept):
        sentence += f"; the lower bound leaves out {lost} draws without weight"
    return Check("ELBO–EUBO gap", value, 3.0, _light(value, 3.0, 10.0), sentence)


def _partition(evidence: Evidence, log_weights: Tensor) -> Check[Light]:
    name, limit = "log Z by two ways, z", 3.0
    weights, size = evidence.draws.log_weights, len(log_weights) / evidence.block
    one = log_partition(weights)
    try:
        other = free_energy_difference(-weights, log_weights, effective=(len(weights), size))
    except ConvergenceError:
        text = "proposal and density do not overlap: Bennett's equation cannot be solved"
        return Check(name, math.inf, limit, "red", text)
    z = float((one.value + other.value) / torch.hypot(one.standard_error, other.standard_error).clamp_min(1e-9))
    sentence = (
        f"log Z is {one} by the weights, and {-float(other.value):.4g} by Bennett's method with {evidence.origin}"
    )
    return Check(name, z, limit, _light(abs(z), limit, 5.0), sentence)


def _missing(evidence: Evidence) -> Check[Light]:
    name, limit = "missing share", 1e-5
    expedition = evidence.expedition
    if expedition is None:
        share = evidence.outside
        text = "without gradients no chains can look for missed regions"
        if share is None:
            return Check(name, math.nan, limit, "amber", text)
        light = _light(share, limit, 1e-3) if share else "amber"
        return Check(name, share, limit, light, f"{_percent(share)} of the reference is in regions it misses; {text}")
    found, walkers = int(expedition.found.sum()), len(expedition.found)
    known = not math.isnan(expedition.missing)
    share = max(expedition.missing, evidence.outside or 0.0) if known else math.nan
    sentence = f"{found} of {walkers} chains ended in regions that the proposal misses"
    if not known:
        sentence += f", of unknown mass, {expedition.above:.1f} kT above the mean energy"
        return Check(name, share, limit, "amber" if expedition.above > _HIGH else "red", sentence)
    if found or share:
        sentence += f", that hold {_percent(share)} of the density"
    return Check(name, share, limit, _light(share, limit, 1e-3), sentence)


def _members(members: tuple[Tensor, ...]) -> Check[Light]:
    found = [log_partition(weights) for weights in members]
    values = torch.stack([estimate.value for estimate in found])
    errors = torch.stack([estimate.standard_error for estimate in found]).clamp_min(1e-9)
    weights = errors.square().reciprocal()
    mean = (weights * values).sum() / weights.sum()
    excess = float(((values - mean) / errors).square().sum()) - (len(found) - 1)
    value, limit = excess / math.sqrt(2 * (len(found) - 1)), 4.0
    sentence = f"log Z of the {len(found)} members alone spreads by {float(values.std()):.2g}, errors considered"
    return Check("spread of the ensemble", value, limit, _light(value, limit, math.inf), sentence)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
