"""Markov chains that leave a density as it is: many walkers as rows of one batch, and independence chains."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.inference.trajectories import Place, Surface, Unnormalised, centred, move, started, surface, tuned
from bayesmol.posterior import Draws
from bayesmol.progress import progress

__all__ = ["MALA", "HamiltonianMonteCarlo", "IndependenceChain", "Walk", "independence_chain"]


@dataclass(frozen=True)
class HamiltonianMonteCarlo:
    r"""Hamiltonian Monte Carlo of a batch of walkers.

    Momenta are drawn anew, ``leapfrogs`` steps of length h are made, and the end is accepted with probability
    :math:`\min(1, e^{-\Delta H})`. Each walker's h is the step times its own random number from 0.8 to 1.2, so that no
    trajectory closes on itself. Ends with infinite energy are rejected.

    Attributes
    ----------
    step
        h, in units of the scales; the start of its adaptation during the warm-up.
    leapfrogs
        Leapfrog steps of a trajectory.
    target
        Mean acceptance that the warm-up aims at.
    warmup, draws, thin
        Trajectories that are dropped, draws that are kept of each walker, and trajectories from one to the next.
    diagonal
        Whether the second half of the warm-up takes as scales of the coordinates their deviations in the first half,
        over all walkers.

    References
    ----------
    Duane, Kennedy, Pendleton, Roweth, Phys. Lett. B 195, 216 (1987); Neal, Handbook of Markov Chain Monte Carlo (2011),
    chapter 5 (arXiv:1206.1901).
    """

    step: float = 0.1
    leapfrogs: int = 10
    target: float = 0.7
    warmup: int = 200
    draws: int = 100
    thin: int = 1
    diagonal: bool = False

    def __post_init__(self) -> None:
        if not (self.step > 0 and 0 < self.target < 1):
            raise DataError(expected("step, target", "a positive number and one between 0 and 1", self))
        if min(self.leapfrogs, self.draws, self.thin) < 1 or self.warmup < 0:
            raise DataError(expected("leapfrogs, draws, thin, warmup", "positive counts", self))

    def fit(
        self,
        target: Unnormalised,
        start: Float[Tensor, "walkers dimension"],
        *,
        scales: Float[Tensor, " dimension"] | None = None,
        seed: int | torch.Generator,
    ) -> Walk:
        """Chains of all walkers; with ``warmup=0`` each step leaves the density exactly as it is.

        Parameters
        ----------
        scales
            Typical deviation of each coordinate; all one by default. They change the speed and no result.

        Raises
        ------
        ShapeError, DataError
            If a row does not fit, has no finite energy, or an energy is NaN.
        ConvergenceError
            If no trajectory after the warm-up is accepted.
        """
        place, evaluated = started(target, start), surface(target)
        source, space = generator(seed, start.device), getattr(target, "space", 0)
        scales = torch.ones_like(start[0]) if scales is None else scales
        if scales.shape != start.shape[1:] or not bool((scales > 0).all()):
            raise ShapeError(expected("scales", f"{start.shape[1]} positive numbers", tuple(scales.shape)))
        with progress("Markov chains", self.warmup + self.draws * self.thin) as advance:
            place, step, scales = self._warmed(evaluated, place, scales, source, advance)
            kept, energies, accepted = [], [], 0.0
            for _ in range(self.draws):
                for _ in range(self.thin):
                    place, share = move(evaluated, place, step * scales, self.leapfrogs, source)
                    accepted += float(share.mean())
                    advance()
                kept.append(centred(place.rows, space))
                energies.append(place.energy)
        if accepted == 0:
            raise ConvergenceError(expected("acceptance", "above 0", 0, "give a shorter step or a longer warm-up"))
        trajectories = self.warmup + self.draws * self.thin
        evaluations = len(start) * (1 + trajectories * self.leapfrogs)
        rate = accepted / (self.draws * self.thin)
        return Walk(torch.stack(kept, 1), torch.stack(energies, 1), rate, step, scales, evaluations)

    def _warmed(
        self, evaluated: Surface, place: Place, scales: Tensor, source: torch.Generator, advance: Callable[..., None]
    ) -> tuple[Place, float, Tensor]:
        step, seen = self.step, []
        for k in range(self.warmup):
            place, share = move(evaluated, place, step * scales, self.leapfrogs, source)
            step = float(tuned(step, share.mean(), self.target, k))
            if self.diagonal and self.warmup // 4 <= k < self.warmup // 2:
                seen.append(place.rows)
            if self.diagonal and seen and k == self.warmup // 2:
                found = torch.cat(seen).std(0).clamp_min(torch.finfo(scales.dtype).tiny)
                # The product of step and scales stays about what was accepted so far.
                step, scales, seen = step * float((scales.log() - found.log()).mean().exp()), found, []
            advance()
        return place, step, scales


@dataclass(frozen=True)
class MALA(HamiltonianMonteCarlo):
    r"""Metropolis-adjusted Langevin algorithm: Hamiltonian Monte Carlo with one leapfrog step.

    .. math:: x' = x - \tfrac{h^2}{2} \nabla u(x) + h\,\xi, \qquad \xi \sim \mathcal{N}(0, 1),

    accepted by Metropolis and Hastings.

    References
    ----------
    Roberts, Tweedie, Bernoulli 2, 341 (1996); Roberts, Rosenthal, J. R. Stat. Soc. B 60, 255 (1998) (acceptance 0.574).
    """

    leapfrogs: int = field(default=1, init=False)
    target: float = 0.574


@dataclass(frozen=True, eq=False)
class Walk:
    """Chains of a batch of walkers.

    Attributes
    ----------
    values, energies
        Draws of each walker and their reduced energies.
    acceptance
        Mean probability of acceptance after the warm-up.
    step, scales
        Step that was used after the warm-up, and scales of the coordinates.
    evaluations
        Energies with gradients that were evaluated, over all walkers.
    """

    values: Float[Tensor, "walkers draws dimension"]
    energies: Float[Tensor, "walkers draws"]
    acceptance: float
    step: float
    scales: Float[Tensor, " dimension"]
    evaluations: int

    @property
    def rows(self) -> Float[Tensor, "walkers dimension"]:
        """Where the walkers ended."""
        return self.values[:, -1]

    def draws(self, unit: str = "") -> Draws:
        """All draws, each walker a chain, with error bars that know the autocorrelation."""
        return Draws(self.values, unit=unit)


@dataclass(frozen=True, eq=False)
class IndependenceChain:
    """Markov chain over the draws of a proposal.

    Attributes
    ----------
    indices
        Draw at which the chain is after each step.
    acceptance
        Share of accepted steps.
    longest
        Longest run of rejections: where it is long, one draw has too large a weight, or the proposal misses a region.
    """

    indices: Int[Tensor, " steps"]
    acceptance: float
    longest: int


def independence_chain(log_weights: Float[Tensor, " draws"], *, seed: int | torch.Generator) -> IndependenceChain:
    r"""Independence Metropolis over independent draws of a proposal, known by their log-weights alone.

    The next draw is accepted with probability :math:`\min(1, w_{t+1} / w)`, w the weight at which the chain is. It
    starts at the first draw with a positive weight, which is not distributed as the target.

    Raises
    ------
    DataError
        If a weight is NaN or infinite, or none is positive.

    References
    ----------
    Tierney, Ann. Statist. 22, 1701 (1994), section 2.3.3.
    """
    usable = torch.isfinite(log_weights)
    if bool((torch.isnan(log_weights) | (log_weights == math.inf)).any()) or not bool(usable.any()):
        raise DataError(expected("log_weights", "numbers or −∞, not all −∞", "NaN, +∞ or no weight at all"))
    first = int(usable.int().argmax())
    source = generator(seed, log_weights.device)
    chance = torch.rand(len(log_weights), generator=source, device=log_weights.device, dtype=torch.float64)
    # Each step asks the running weight, so the scan is sequential; on lists it costs less than a tensor operation.
    weights, reach = log_weights.tolist(), (log_weights.double() - chance.log()).tolist()
    here, indices, run, longest, accepted = first, [first], 0, 0, 0
    for t in range(first + 1, len(weights)):
        if reach[t] > weights[here]:
            here, run, accepted = t, 0, accepted + 1
        else:
            run += 1
            longest = max(longest, run)
        indices.append(here)
    steps = max(len(indices) - 1, 1)
    return IndependenceChain(torch.tensor(indices, device=log_weights.device), accepted / steps, longest)
