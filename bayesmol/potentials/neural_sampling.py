"""Posteriors over all weights of a network: deep ensemble, mean-field variational, SWAG, stochastic-gradient HMC."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.langevin import StochasticHamiltonian
from bayesmol.inference.random import generator
from bayesmol.inference.swag import SwagMoments
from bayesmol.parallel import parallel
from bayesmol.potentials.neural_member import Member
from bayesmol.potentials.neural_run import Run
from bayesmol.potentials.neural_weights import WeightPosterior, certain
from bayesmol.progress import progress


@dataclass(frozen=True)
class DeepEnsemble:
    """Networks of other seeds, trained on the same data: one after the other, or wherever joblib is told to
    (:mod:`bayesmol.parallel`).

    Attributes
    ----------
    networks
        Their number; the spread is a sample deviation, so fewer than four say little.

    Raises
    ------
    DataError
        If there are fewer than two.

    References
    ----------
    Lakshminarayanan, Pritzel, Blundell, NeurIPS 30 (2017), arXiv:1612.01474.
    """

    networks: int = 4

    def __post_init__(self) -> None:
        if self.networks < 2:
            raise DataError(expected("networks", "two or more", self.networks, "one network has no spread"))

    def members(self, run: Run) -> tuple[Member, ...]:
        """All networks, each without uncertainty of its own."""
        seeds = [run.seed + number for number in range(1, self.networks)]
        others = parallel(run.again, seeds, description="networks of other seeds")
        return certain([run.energy, *others])


@dataclass(frozen=True)
class MeanField:
    """Independent normal distributions of all weights that maximise the evidence bound (Pyro).

    The search starts at the trained weights with deviations of the size that the curvature there asks for.

    Attributes
    ----------
    steps, rate
        Of the search, on weights in units of their prior deviations.
    draws
        Networks drawn from the distribution.

    Raises
    ------
    DataError
        If there are fewer than two draws.
    """

    steps: int = 1500
    rate: float = 5e-3
    draws: int = 20

    def __post_init__(self) -> None:
        _check_draws("draws", self.draws)

    def members(self, run: Run) -> tuple[Member, ...]:
        """Networks drawn from the variational distribution."""
        from bayesmol.inference.svi import Variational

        posterior = WeightPosterior.of(run)
        initial = float((posterior.deviations / posterior.target.prior.scale).log().mean().exp())
        search = Variational(steps=self.steps, rate=self.rate, initial=initial)
        found = search.fit(posterior.target, posterior.start, seed=run.seed).posterior
        return posterior.drawn(found.sample(self.draws, seed=run.seed))


@dataclass(frozen=True)
class WeightAveraging:
    """Stochastic weight averaging, Gaussian (SWAG): the iterates of Adam at a constant rate.

    Attributes
    ----------
    rate
        Length of a step in units of the posterior deviation that the curvature gives each weight.
    steps, every, warmup
        Steps that count, how many lie between two iterates that are kept, and steps before.
    rank
        Number of iterates whose directions are kept.
    draws
        Networks drawn from the normal distribution of the iterates.

    Raises
    ------
    DataError
        If there are fewer than two draws or two iterates, or the rank is 1.

    References
    ----------
    Maddox et al., NeurIPS 32 (2019), arXiv:1902.02476.
    """

    rate: float = 0.03
    steps: int = 1000
    every: int = 10
    warmup: int = 200
    rank: int = 20
    draws: int = 20

    def __post_init__(self) -> None:
        _check_draws("draws", self.draws)
        if not 1 <= self.every <= self.steps // 2 or self.warmup < 0 or self.rank < 0 or self.rank == 1:
            raise DataError(expected("steps, every, warmup, rank", "two or more iterates, and no rank of one", self))

    def members(self, run: Run) -> tuple[Member, ...]:
        """Networks drawn from the normal distribution of the iterates.

        Raises
        ------
        ConvergenceError
            If the rate is too large.
        """
        posterior = WeightPosterior.of(run)
        scale, moments = posterior.deviations, SwagMoments.empty(posterior.start, self.rank)
        white = torch.zeros_like(posterior.start, requires_grad=True)
        optimiser = torch.optim.Adam([white], lr=self.rate)
        batches = posterior.target.batches(generator(run.seed, white.device))
        with progress("stochastic weight averaging", self.warmup + self.steps) as advance:
            for step in range(self.warmup + self.steps):
                place = posterior.start + scale * white.detach()
                white.grad = -scale * posterior.target.gradient(place, next(batches))
                optimiser.step()
                if step >= self.warmup and (step - self.warmup + 1) % self.every == 0:
                    moments = moments.updated(posterior.start + scale * white.detach())
                advance()
        if not bool(torch.isfinite(moments.squares).all()):
            raise ConvergenceError(expected("iterates", "finite numbers", "NaN or infinity", "lower the rate"))
        return posterior.drawn(moments.posterior().sample(self.draws, seed=run.seed))


@dataclass(frozen=True)
class Hamiltonian:
    """Stochastic-gradient Hamiltonian Monte Carlo of all weights from the trained network.

    A chain that leaves all bounds, because the posterior is narrower elsewhere than at the trained weights, is begun
    again with half the step.

    Attributes
    ----------
    sampler
        Its step is in units of the shortest posterior deviation, by the curvature at the trained weights.

    Raises
    ------
    DataError
        If there are fewer than two draws of all chains.
    """

    sampler: StochasticHamiltonian = field(
        default_factory=lambda: StochasticHamiltonian(step=0.1, momentum=0.98, warmup=500, draws=20, thin=100, chains=1)
    )

    def __post_init__(self) -> None:
        _check_draws("sampler", self.sampler.draws * self.sampler.chains)

    def members(self, run: Run) -> tuple[Member, ...]:
        """The draws as networks.

        Raises
        ------
        ConvergenceError
            If a step of a sixteenth is too long, too.
        """
        posterior = WeightPosterior.of(run)
        for halvings in range(5):
            sampler = replace(self.sampler, step=self.sampler.step * posterior.shortest / 2**halvings)
            try:
                chains = sampler.fit(posterior.target, posterior.start, scales=posterior.deviations, seed=run.seed)
                return posterior.drawn(chains.values.flatten(0, 1))
            except ConvergenceError as error:
                failed = error
        raise failed


def _check_draws(name: str, draws: int) -> None:
    if draws < 2:
        raise DataError(expected(name, "two or more draws", draws, "one network has no spread"))
