"""What does a proposal miss? Markov chains, plain and heated, look for regions that it hardly ever draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.local_gaussians import LocalGaussians, clusters
from bayesmol.flows.proposal import Proposal
from bayesmol.inference.metropolis import HamiltonianMonteCarlo
from bayesmol.inference.random import generator

__all__ = ["Discovery", "Expedition", "Sample", "located", "missed", "sampled"]

_FACTOR = math.log(20.0)  # a region counts as missed where it is drawn more than 20 times too rarely
_MARGIN = 2.0  # and by this much more, in nats, than at the draws of the proposal themselves
_P_VALUE = 0.01
_WORTH = 20.0  # effective draws in the region that its mass must be known from


class Sample(NamedTuple):
    """Rows, their reduced energy, log-density of the proposal, and log-weight −u − ln q."""

    rows: Tensor
    energy: Tensor
    log_q: Tensor
    log_weights: Tensor

    @property
    def log_partition(self) -> float:
        """Of draws of the proposal: logarithm of the mean weight."""
        return float(self.log_weights.logsumexp(0)) - math.log(len(self.rows))


def sampled(proposal: Proposal, density: BoltzmannDensity, size: int, seed: int | torch.Generator) -> Sample:
    """Draws of a proposal with their weights; draws that are no configuration have weight zero and an infinite energy.

    Raises
    ------
    DataError
        If no draw has a finite energy, or a log-density is NaN.
    """
    with torch.no_grad():
        rows, log_q = proposal.sample(size, seed=seed)
    return located(rows.detach(), log_q.detach(), density)


def located(rows: Tensor, log_q: Tensor, density: BoltzmannDensity) -> Sample:
    """Energies and weights of rows whose log-density is known."""
    if bool(torch.isnan(log_q).any()):
        raise DataError(expected("log_prob", "numbers", "NaN", "the proposal is broken"))
    usable = torch.isfinite(rows).all(1) & (log_q < math.inf)
    if not bool(usable.any()):
        raise DataError(expected("proposal", "draws that are configurations", "none"))
    rows = torch.where(usable.unsqueeze(1), rows, rows[usable][0])
    with torch.no_grad():
        energy = torch.cat([density.reduced_energy(part) for part in rows.split(8192)]).double()
    energy = torch.where(usable, energy, math.inf)
    log_q = log_q.double()
    return Sample(rows, energy, log_q, torch.where(torch.isinf(energy), -math.inf, -energy - log_q))


@dataclass(frozen=True, eq=False)
class Expedition:
    """What the chains found.

    Attributes
    ----------
    plain
        Ends of chains at the temperature of the density that started at draws of the proposal, resampled by weight:
        about a sample of the density, as far as the proposal reaches.
    found
        Which of ``walkers``, the ends of all chains, plain and heated and cooled, lie in a missed region.
    missing
        Share of the density in missed regions, NaN if something was found and its mass is not known.
    above
        Median reduced energy of the finders minus the mean over the density as far as the proposal reaches.
    evaluations
        Energies with gradients.
    """

    plain: Sample
    walkers: Sample
    found: Bool[Tensor, " walkers"]
    missing: float
    above: float
    evaluations: int


@dataclass(frozen=True)
class Discovery:
    r"""Chains that look for what a proposal misses.

    Half of the walkers start at ``density.start``, if it is given, the others at draws of the proposal. They run at
    raised temperatures, are cooled in stages, and run on at the temperature of the density. A walker has found a missed
    region where :math:`-\ln q` is improbable among weighted draws (conformal p < 0.01) and p is more than 20 times what
    the proposal says, and more than at its draws. The mass of the region is then found by importance sampling from half
    the proposal and half Gaussians fitted to the finders.

    A region is not found if no walker reaches it: behind barriers much higher than the thermal energy at the raised
    temperature, or through passages so narrow that the chains do not hit them.

    Attributes
    ----------
    heats
        Factors of the temperature; ``None`` for 3 and 10, of molecules 2 and 4.
    walkers
        At each of these; there are four times as many plain chains.
    trajectories, leapfrogs
        Hamiltonian trajectories at the highest temperature (half as many in each later stage) and their steps.
    """

    heats: tuple[float, ...] | None = None
    walkers: int = 128
    trajectories: int = 40
    leapfrogs: int = 8

    def fit(
        self, proposal: Proposal, density: BoltzmannDensity, draws: Sample, *, seed: int | torch.Generator
    ) -> Expedition:
        """Run all chains."""
        source = generator(seed, draws.rows.device)
        scales = _deviations(draws)
        heats = self.heats or ((3.0, 10.0) if density.species is None else (2.0, 4.0))
        rows, evaluations = self._run(density, _resampled(draws, 4 * self.walkers, source), (1.0,), scales, source)
        plain = _weighed(rows, proposal, density)
        ends = []
        for heat in heats:
            ladder = (heat, math.sqrt(heat), 1.0)
            rows, count = self._run(density, self._starts(density, draws, source), ladder, scales, source)
            ends.append(rows)
            evaluations += count
        walkers = _weighed(torch.cat([plain.rows, *ends]), proposal, density)
        region = missed(draws)
        found, missing, above = region(walkers), 0.0, 0.0
        if bool(found.any()):
            missing = _mass(proposal, density, draws, walkers.rows[found], region, source)
            usual = draws.log_weights.softmax(0) @ torch.where(torch.isfinite(draws.energy), draws.energy, 0.0)
            above = float(walkers.energy[found].median() - usual)
        return Expedition(plain, walkers, found, missing, above, evaluations)

    def _starts(self, density: BoltzmannDensity, draws: Sample, source: torch.Generator) -> Tensor:
        usable = draws.rows[torch.isfinite(draws.energy)]
        picked = torch.randint(len(usable), (self.walkers,), generator=source, device=usable.device)
        rows = usable[picked]
        if density.start is not None:
            start = density.start.to(rows)
            rows[::2] = start[torch.arange(len(rows[::2]), device=rows.device) % len(start)]
        return rows

    def _run(
        self,
        density: BoltzmannDensity,
        rows: Tensor,
        ladder: tuple[float, ...],
        scales: Tensor,
        source: torch.Generator,
    ) -> tuple[Tensor, int]:
        """Ends of walkers after the stages of a ladder of temperatures; later stages are half as long."""
        count, step, evaluations = self.trajectories, 0.5 * len(scales) ** -0.25, 0
        for heat in ladder:
            hot = density.at(density.temperature * heat)
            # Tuned while it runs in all stages; the few trajectories after that leave the density exactly as it is.
            chain = HamiltonianMonteCarlo(
                step=step, leapfrogs=self.leapfrogs, warmup=count, draws=1, thin=max(count // 4, 2)
            )
            walk = chain.fit(hot, rows, scales=scales, seed=source)
            rows, step, evaluations = walk.rows, walk.step, evaluations + walk.evaluations
            count = max(self.trajectories // 2, 1)
        return rows, evaluations


class Missed(NamedTuple):
    """Region in which a proposal draws much too rarely, compared with its own draws.

    Attributes
    ----------
    scores, above
        :math:`-\\ln q` of draws, rising, and the weight of all that are at least as strange.
    excess
        Log-weight that a missed configuration exceeds.
    """

    scores: Float[Tensor, " draws"]
    above: Float[Tensor, " draws"]
    excess: float

    def __call__(self, sample: Sample) -> Bool[Tensor, " rows"]:
        """Which rows are in it."""
        place = torch.searchsorted(self.scores, -sample.log_q)
        p_value = torch.where(place < len(self.scores), self.above[place.clamp_max(len(self.scores) - 1)], 0.0)
        return (p_value < _P_VALUE) & (sample.log_weights > self.excess)


def missed(draws: Sample) -> Missed:
    """The region that a proposal with these draws misses."""
    weights = draws.log_weights.softmax(0)
    scores, order = (-draws.log_q).sort()
    above = weights[order].flip(0).cumsum(0).flip(0)
    usual, by_weight = draws.log_weights.sort()
    rank = int((weights[by_weight].cumsum(0) < 0.999).sum())
    largest = float(usual[min(rank, len(usual) - 1)])
    return Missed(scores, above, max(draws.log_partition + _FACTOR, largest + _MARGIN))


def _deviations(draws: Sample) -> Float[Tensor, " dimension"]:
    weights = draws.log_weights.softmax(0).to(draws.rows)
    mean = weights @ draws.rows
    # Of equally weighted draws too, so that a single heavy weight does not make the scales zero.
    both = (weights + 1 / len(weights)) / 2 @ (draws.rows - mean).square()
    return both.sqrt().clamp_min(torch.finfo(both.dtype).eps ** 0.5)


def _resampled(draws: Sample, size: int, source: torch.Generator) -> Tensor:
    return draws.rows[torch.multinomial(draws.log_weights.softmax(0), size, replacement=True, generator=source)]


def _weighed(rows: Tensor, proposal: Proposal, density: BoltzmannDensity) -> Sample:
    with torch.no_grad():
        log_q = proposal.log_prob(rows.to(getattr(proposal, "dtype", rows.dtype)))
    return located(rows, log_q.nan_to_num(nan=-math.inf, posinf=-math.inf, neginf=-math.inf), density)


def _mass(
    proposal: Proposal,
    density: BoltzmannDensity,
    draws: Sample,
    rows: Tensor,
    region: Missed,
    source: torch.Generator,
) -> float:
    """Share of the density in the missed region, NaN if too few weights tell; a system that turns freely has no
    Gaussian region."""
    if density.space or len(rows) < 2:
        return math.nan
    size = max(len(draws.rows) // 2, 1000)
    gaussians = LocalGaussians.of(clusters(rows.double()))
    drawn = gaussians.sample(size, source).to(rows)
    own = Sample(*(column[:size] for column in draws))
    local = _weighed(drawn, proposal, density)
    both = Sample(*(torch.cat(columns) for columns in zip(own, local, strict=True)))
    mixed = torch.logaddexp(
        both.log_q + math.log(len(own.rows)), gaussians.log_prob(both.rows.double()) + math.log(size)
    )
    log_weights = torch.where(torch.isinf(both.energy), -math.inf, -both.energy - mixed)
    inside = region(both)
    weights = log_weights.softmax(0)
    mass, square = float(weights[inside].sum()), float(weights[inside].square().sum())
    return mass if square > 0 and mass**2 / square >= _WORTH else math.nan
