"""From a proposal to a target by a ladder of densities: annealed importance sampling, sequential Monte Carlo."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.particles import Particles, Schedule
from bayesmol.inference.random import generator, numpy_generator
from bayesmol.inference.trajectories import Place, Surface, Unnormalised, differentiated, move, surface
from bayesmol.posterior.estimate import kish
from bayesmol.progress import progress

__all__ = ["AnnealedImportance", "SequentialMonteCarlo"]

_RUNGS = 2000


@runtime_checkable
class Normalised(Protocol):
    """Where annealing starts: a normalised density that can be sampled."""

    def log_prob(self, x: Tensor) -> Tensor: ...

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class SequentialMonteCarlo:
    r"""Sequential Monte Carlo from a proposal q to a target along :math:`\ln\pi_\beta = (1-\beta)\ln q - \beta u`.

    The particles are independent islands, moved in one batch. On each rung their weights take the factor
    :math:`(\pi_{\beta'}/\pi_\beta)(x)`, islands whose effective size has fallen are resampled (systematically), and all
    particles make Hamiltonian trajectories that leave :math:`\pi_{\beta'}` as it is. Without a schedule the next
    :math:`\beta'` is the largest at which the conditional effective size is ``overlap`` of the particles, steps follow
    the acceptance and scales are the deviations of the particles.

    Attributes
    ----------
    particles, islands
        Number in all, and in how many islands; the standard errors are those of the spread of the islands.
    overlap
        Conditional effective size of a rung, as a share.
    resample
        An island is resampled when its effective size falls below this share.
    leapfrogs, trajectories
        Steps of a trajectory (1: Langevin moves, MALA) and trajectories on each rung.
    acceptance
        Mean acceptance that the steps are tuned to.
    batch
        Rows that are evaluated at once.

    References
    ----------
    Del Moral, Doucet, Jasra, J. R. Stat. Soc. B 68, 411 (2006); Zhou, Johansen, Aston, J. Comput. Graph. Stat. 25, 701
    (2016) (conditional effective size).
    """

    particles: int = 4096
    islands: int = 32
    overlap: float = 0.9
    resample: float = 0.5
    leapfrogs: int = 5
    trajectories: int = 2
    acceptance: float = 0.7
    batch: int = 16384

    def __post_init__(self) -> None:
        if not (0 < self.overlap < 1 and 0 <= self.resample <= 1 and 0 < self.acceptance < 1):
            raise DataError(expected("overlap, resample, acceptance", "shares", self))
        if self.islands < 4 or self.particles % self.islands:
            raise DataError(expected("particles", "a multiple of islands, which are at least 4", self))
        if min(self.leapfrogs, self.batch) < 1 or self.trajectories < 0:
            raise DataError(expected("leapfrogs, trajectories, batch", "positive counts", self))

    def fit(
        self,
        proposal: Normalised,
        target: Unnormalised,
        *,
        schedule: Schedule | None = None,
        seed: int | torch.Generator,
    ) -> Particles:
        """Weighted particles of the target.

        Parameters
        ----------
        schedule
            Ladder and steps fixed in advance, such as those of an earlier run: the mean weight is then unbiased.

        Raises
        ------
        DataError
            If no draw of the proposal has a finite energy, or a number is NaN.
        ConvergenceError
            If the ladder needs too many rungs.
        """
        first, second = (int(number) for number in numpy_generator(seed).integers(2**62, size=2))
        x, log_q = (part.detach() for part in proposal.sample(self.particles, seed=first))
        source, ratio = generator(second, x.device), self._log_ratio(x, log_q, target)
        log_weights = ratio.new_zeros(self.islands, self.particles // self.islands)
        # Of deviations 1 in d dimensions, this is about the step that half of the trajectories survive.
        found: list[tuple[float, float, Tensor]] = []
        accepted: list[float] = []
        effective: list[float] = []
        beta, step = 0.0, x.shape[1] ** -0.25
        with progress("annealing") as advance:
            while beta < 1:
                rung = len(found)
                new = self._next(ratio, log_weights, beta) if schedule is None else float(schedule.ladder[rung])
                log_weights, beta = log_weights + (new - beta) * ratio.reshape(log_weights.shape), new
                effective.append(float(kish(log_weights)) / self.particles)
                if beta < 1:
                    x, log_weights = self._resampled(x, log_weights, source)
                if schedule is not None:
                    step, scales = float(schedule.steps[rung]), schedule.scales[rung]
                else:
                    scales = _deviation(x, log_weights)
                place, share = self._moved(_bridge(proposal, target, beta, self.batch), x, step * scales, source)
                found.append((beta, step, scales))
                accepted.append(share)
                x, ratio = place.rows, place.parts[:, 0].double()
                step = step * math.exp(2 * (share - self.acceptance))
                advance(note=f"β = {beta:.4f}")
        return self._finished(x, log_weights, found, accepted, effective, fixed=schedule is not None)

    def _log_ratio(self, x: Tensor, log_q: Tensor, target: Unnormalised) -> Tensor:
        energy = torch.cat([target.reduced_energy(part).detach() for part in x.split(self.batch)])
        ratio = -energy.double() - log_q.double()
        if bool((torch.isnan(ratio) | (ratio == math.inf)).any()) or not bool((ratio > -math.inf).any()):
            raise DataError(expected("proposal", "draws with finite energies, none NaN", "others", "train it"))
        return ratio

    def _next(self, ratio: Tensor, log_weights: Tensor, beta: float) -> float:
        """Largest next rung at which the conditional effective size of those that can live is ``overlap``."""
        weights, alive = log_weights.flatten().softmax(0), torch.isfinite(ratio)
        weights, ratio = weights[alive] / weights[alive].sum(), ratio[alive]

        def share(step: float) -> float:
            factor = weights.log() + step * ratio
            return float((2 * factor.logsumexp(0) - (factor + step * ratio).logsumexp(0)).exp())

        lower, upper = 0.0, 1 - beta
        if share(upper) >= self.overlap:
            return 1.0
        for _ in range(50):
            middle = (lower + upper) / 2
            lower, upper = (middle, upper) if share(middle) >= self.overlap else (lower, middle)
        if lower < 1 / _RUNGS**2:
            raise ConvergenceError(expected("ladder", f"rungs wider than {1 / _RUNGS**2}", lower, "train the proposal"))
        return beta + lower

    def _resampled(self, x: Tensor, log_weights: Tensor, source: torch.Generator) -> tuple[Tensor, Tensor]:
        """Islands of small effective size resampled systematically; all their weights become the mean."""
        islands, size = log_weights.shape
        total = log_weights.logsumexp(1, keepdim=True)
        ess = (2 * total - (2 * log_weights).logsumexp(1, keepdim=True)).exp()
        poor = torch.isfinite(total) & (ess < self.resample * size)
        shift = torch.rand(islands, 1, generator=source, dtype=log_weights.dtype, device=x.device)
        places = (torch.arange(size, device=x.device) + shift) / size
        reached = (log_weights - total).nan_to_num(0.0).exp().cumsum(1)
        parents = torch.searchsorted(reached / reached[:, -1:], places).clamp_max(size - 1)
        parents = torch.where(poor, parents, torch.arange(size, device=x.device))
        origin = (parents + size * torch.arange(islands, device=x.device).unsqueeze(1)).flatten()
        return x[origin], torch.where(poor, (total - math.log(size)).expand_as(log_weights), log_weights)

    def _moved(self, evaluated: Surface, x: Tensor, steps: Tensor, source: torch.Generator) -> tuple[Place, float]:
        place, shares = evaluated(x), []
        for _ in range(self.trajectories):
            place, share = move(evaluated, place, steps, self.leapfrogs, source)
            shares.append(float(share.mean()))
        return place, sum(shares) / len(shares) if shares else self.acceptance

    def _finished(
        self,
        x: Tensor,
        log_weights: Tensor,
        found: list[tuple[float, float, Tensor]],
        accepted: list[float],
        effective: list[float],
        *,
        fixed: bool,
    ) -> Particles:
        ladder, steps, scales = zip(*found, strict=True)
        numbers: dict[str, Any] = {"dtype": torch.float64, "device": x.device}
        schedule = Schedule(torch.tensor(ladder, **numbers), torch.tensor(steps, **numbers), torch.stack(scales))
        evaluations = self.particles * (1 + len(ladder) * (1 + self.trajectories * self.leapfrogs))
        shares = (torch.tensor(accepted, **numbers), torch.tensor(effective, **numbers))
        return Particles(x.unflatten(0, log_weights.shape), log_weights, schedule, *shares, evaluations, fixed)


@dataclass(frozen=True)
class AnnealedImportance:
    r"""Annealed importance sampling: independent paths from a proposal to a target, each with the weight of its path.

    .. math:: \ln w = \sum_k (\beta_{k+1} - \beta_k) \left(-u(x_k) - \ln q(x_k)\right)

    so that :math:`-\ln w` is the reduced work of a nonequilibrium path and :math:`\langle w \rangle = Z` is
    Jarzynski's identity. The attributes are those of :class:`SequentialMonteCarlo`, without islands and resampling.

    References
    ----------
    Neal, Stat. Comput. 11, 125 (2001); Jarzynski, Phys. Rev. Lett. 78, 2690 (1997).
    """

    particles: int = 4096
    overlap: float = 0.9
    leapfrogs: int = 5
    trajectories: int = 1
    acceptance: float = 0.7
    batch: int = 16384

    def __post_init__(self) -> None:
        self._islands()

    def _islands(self) -> SequentialMonteCarlo:
        """Each particle is an island of its own, which nothing resamples."""
        return SequentialMonteCarlo(islands=self.particles, resample=0.0, **vars(self))

    def fit(
        self,
        proposal: Normalised,
        target: Unnormalised,
        *,
        schedule: Schedule | None = None,
        seed: int | torch.Generator,
    ) -> Particles:
        """Weighted ends of independent paths; see :meth:`SequentialMonteCarlo.fit`."""
        return self._islands().fit(proposal, target, schedule=schedule, seed=seed)


def _bridge(proposal: Normalised, target: Unnormalised, beta: float, batch: int) -> Surface:
    """Energy of a rung, with the log-ratio of target and proposal carried along."""
    end = surface(target)

    def evaluated(rows: Tensor) -> Place:
        there = end(rows)
        log_q, slope = differentiated(proposal.log_prob, there.rows)
        if bool(torch.isnan(log_q).any()):
            raise DataError(expected("proposal", "a log-density for each row", "NaN"))
        energy = beta * there.energy - (1 - beta) * log_q
        ratio = -there.energy.double() - log_q.double()
        # Outside the support of the proposal the ratio is infinite; such rows have no density on any rung below 1.
        ratio = torch.where(torch.isfinite(log_q), ratio, -math.inf)
        return Place(there.rows, energy, beta * there.gradient - (1 - beta) * slope, ratio.unsqueeze(1))

    def chunked(rows: Tensor) -> Place:
        return Place(*(torch.cat(parts) for parts in zip(*map(evaluated, rows.split(batch)), strict=True)))

    return chunked


def _deviation(x: Tensor, log_weights: Tensor) -> Tensor:
    weights = log_weights.flatten().softmax(0).to(x)
    mean = weights @ x
    variance = weights @ (x - mean).square()
    return variance.sqrt().clamp_min(torch.finfo(x.dtype).eps)
