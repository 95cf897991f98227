"""Estimation of hidden Markov models: expectation–maximisation, and how its result answers to reweighted data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.discrete_emissions import DiscreteFamily
from bayesmol.dynamics.gaussian_emissions import GaussianFamily
from bayesmol.dynamics.hidden_chain import HiddenPaths, Subsequences, smoothed
from bayesmol.dynamics.reversible import TransitionEstimate, nonreversible_estimate, reversible_estimate
from bayesmol.errors import ConvergenceError, expected

__all__ = ["HiddenEstimation", "HiddenParameters"]

_TOLERANCE = 1e-6  # nats of the whole likelihood, between two iterations
_ITERATIONS = 1000  # each of three passes
_TRIAL = 30  # iterations after which the best start is chosen
_LEAP = 3.0  # largest change of a coordinate, so that no expected number is far off
_STEP = 1e-4  # of a coordinate, for differences
_MEMORY = 2e7  # entries of the passes of all models that run at once
_SLOWEST = 0.9999  # share of missing information beyond which the data do not tell the states apart


@dataclass(frozen=True, eq=False)
class HiddenParameters:
    r"""Parameters of hidden Markov models, for each of several models.

    Attributes
    ----------
    transition
        Between the hidden states, at the lag.
    initial
        Probabilities :math:`\mu_i` of the state of the first frame of a chain.
    emissions
        Of each state.
    """

    transition: TransitionEstimate
    initial: Float[Tensor, "models states"]
    emissions: Any  # those of the family


@dataclass(frozen=True, eq=False)
class HiddenEstimation:
    r"""Penalised maximum likelihood of hidden Markov models from chains at one lag.

    .. math:: \max_\theta \sum_{\text{chains}} \ln p_\theta(x) + \ln p(\theta)

    The τ chains of a trajectory count as if they were independent: the estimate is consistent, but the curvature of
    this sum says nothing about its error. The prior is that of frames added: so many transitions from each state
    spread evenly over all states, and so many frames in each state that look like all frames together.

    Coordinates of a model are the logarithms of its expected transitions and first states, and those of the emissions.

    Attributes
    ----------
    chains
        Order of the frames.
    frames
        In the order of the chains, as the family prepares them.
    family
        Of the emissions.
    states
        Number of hidden states.
    prior
        Frames that the prior adds to each state.
    reversible
        Whether transitions have detailed balance.
    """

    chains: Subsequences
    frames: Tensor
    family: DiscreteFamily | GaussianFamily
    states: int
    prior: float
    reversible: bool

    def parameters(self, coordinates: Float[Tensor, "models coordinates"]) -> HiddenParameters:
        """The M-step: parameters of largest likelihood for expected numbers."""
        size = self.states
        counts, first, rest = coordinates.tensor_split([size**2, size**2 + size], 1)
        matrices = counts.exp().unflatten(1, (size, size))
        transition = (reversible_estimate if self.reversible else nonreversible_estimate)(matrices)
        return HiddenParameters(transition, first.softmax(1), self.family.emissions(rest))

    def paths(self, model: HiddenParameters) -> HiddenPaths:
        """The E-step."""
        density = self.family.log_density(model.emissions, self.frames)
        return smoothed(density, model.transition.transition, model.initial, self.chains.first)

    def coordinates(
        self, transitions: Float[Tensor, "models states states"], first: Tensor, sums: Tensor
    ) -> Float[Tensor, "models coordinates"]:
        """Coordinates of expected numbers, to which the prior is added."""
        even = self.prior / self.states
        logs = [(transitions + even).log().flatten(1), (first + even).log()]
        return torch.cat([*logs, self.family.coordinates(sums + self.family.prior(self.prior))], 1)

    def start(self, memberships: Float[Tensor, "models frames states"]) -> Float[Tensor, "models coordinates"]:
        """Coordinates from a guess of the states of all frames, in the order of the chains."""
        early, late = memberships.roll(1, 1)[:, ~self.chains.first], memberships[:, ~self.chains.first]
        first = memberships[:, self.chains.first].sum(1)
        return self.coordinates(early.mT @ late, first, self.family.sums(self.frames, memberships))

    def improved(self, coordinates: Float[Tensor, "models coordinates"]) -> tuple[Tensor, Tensor]:
        """Coordinates after one iteration, and the logarithm of posterior density (models,) before it."""
        model = self.parameters(coordinates)
        paths = self.paths(model)
        after = self.coordinates(*self._expected(model, paths))
        return after, paths.predictive.sum(1) + self._log_prior(model)

    def _expected(self, model: HiddenParameters, paths: HiddenPaths) -> tuple[Tensor, Tensor, Tensor]:
        """Expected transitions, first states and sums of the emissions."""
        moved = paths.transitions(model.transition.transition, self.chains.first)
        first = paths.probabilities[:, self.chains.first].sum(1)
        return moved, first, self.family.sums(self.frames, paths.probabilities)

    def _log_prior(self, model: HiddenParameters) -> Float[Tensor, " models"]:
        logs = model.transition.transition.log().sum((1, 2)) + model.initial.log().sum(1)
        return self.prior / self.states * logs + self.family.log_prior(model.emissions, self.prior)

    def maximum(self, starts: Float[Tensor, "models coordinates"]) -> Float[Tensor, "1 coordinates"]:
        """The best of several starts after 30 iterations, carried on until the likelihood does not grow.

        Raises
        ------
        ConvergenceError
            If it still grows after 1000 accelerated ones, or a state dies on the way or has a single value.
        """
        place, value = starts, starts.new_full((len(starts),), -torch.inf)
        for _ in range(_TRIAL):
            place, value = self.improved(place)
        place, best = place[[int(value.argmax())]], float(value.max())
        for _ in range(_ITERATIONS):
            place, reached = self._accelerated(place)
            if reached - best < _TOLERANCE * self.chains.lag:
                self._check(place)
                return place
            best = reached
        remedy = "take fewer states"
        raise ConvergenceError(expected("likelihood", f"a maximum within {_ITERATIONS} iterations", "none", remedy))

    def _accelerated(self, place: Float[Tensor, "1 coordinates"]) -> tuple[Tensor, float]:
        """Two iterations and a leap in their direction, unless it loses; and the density before.

        References
        ----------
        Varadhan, Roland, Scand. J. Stat. 35, 335 (2008), scheme S3.
        """
        one, value = self.improved(place)
        two, _ = self.improved(one)
        first, bend = one - place, two - 2 * one + place
        stretch = max(1.0, float(first.norm() / bend.norm().clamp_min(1e-300)))
        far = place + 2 * stretch * first + stretch**2 * bend
        if float((far - two).abs().max()) < _LEAP:
            after, reached = self.improved(far)
            two = after if float(reached) >= float(value) else two
        return two, float(value)

    def _check(self, place: Tensor) -> None:
        """Refuse a state that has lost its frames, or whose frames are all the same."""
        gamma = self.paths(self.parameters(place)).probabilities
        alive = gamma[0].sum(0) / self.chains.lag
        if float(alive.min()) < 1:
            got = f"state {int(alive.argmin())} with {float(alive.min()):.2g}"
            remedy = "take fewer states"
            raise ConvergenceError(expected("states", "at least one independent frame in each", got, remedy))
        self.family.check(self.family.sums(self.frames, gamma)[0], self.prior)

    def ordered(self, place: Float[Tensor, "1 coordinates"]) -> Float[Tensor, "1 coordinates"]:
        """The same model with its states by falling stationary probability."""
        model = self.parameters(place)
        order = model.transition.stationary[0].argsort(descending=True)
        moved, first, sums = self._expected(model, self.paths(model))
        return self.coordinates(moved[:, order][:, :, order], first[:, order], sums[:, order])

    def response(self, place: Float[Tensor, "1 coordinates"]) -> Float[Tensor, "coordinates coordinates"]:
        r"""How far the maximum y moves for what one iteration moves, :math:`A = (1 - \partial F / \partial y)^{-1}`.

        F is one iteration. Its derivative is the share of information that is missing because the states are hidden;
        A is the identity where they are known. By differences.

        Raises
        ------
        ConvergenceError
            If hardly any information is left along some direction.

        References
        ----------
        Dempster, Laird, Rubin, J. R. Stat. Soc. B 39, 1 (1977), section 3; Meng, Rubin, J. Am. Stat. Assoc. 86, 899
        (1991).
        """
        size = place.shape[1]
        moved = place + _STEP * torch.eye(size).to(place)
        models = max(1, int(_MEMORY / (len(self.frames) * self.states * 6)))
        base = self.improved(place)[0]
        missing = torch.cat([self.improved(part)[0] - base for part in moved.split(models)]).mT / _STEP
        largest = float(torch.linalg.eigvals(missing).real.max())
        if largest > _SLOWEST:
            remedy = "take fewer states, or sample longer"
            got = f"a share {largest:.6f} of the information missing"
            raise ConvergenceError(expected("trajectories", "frames that tell the hidden states apart", got, remedy))
        return torch.linalg.inv(torch.eye(size).to(place) - missing)

    def reweighted(
        self, place: Float[Tensor, "1 coordinates"], block: Tensor, weights: Float[Tensor, "draws blocks"]
    ) -> HiddenParameters:
        r"""Maxima for weighted blocks of frames, to first order.

        .. math:: y_w = \hat y + A \big( F_w(\hat y) - F(\hat y) \big)

        with :math:`F_w` one iteration in which block b counts :math:`w_b` times. Where the states are known this is
        exact. Every y is a model: no draw leaves the set of stochastic matrices, or that of reversible ones.
        """
        parts = self._block_expected(place, block, weights.shape[1])
        weighted = self.coordinates(*(torch.tensordot(weights, part, 1) for part in parts))
        change = weighted - self.coordinates(*(part.sum(0, keepdim=True) for part in parts))
        return self.parameters(place + change @ self.response(place).mT)

    def _block_expected(self, place: Tensor, block: Tensor, blocks: int) -> tuple[Tensor, Tensor, Tensor]:
        """Expected numbers by block: (blocks, …)."""
        model, starts = self.parameters(place), self.chains.first
        paths = self.paths(model)
        gamma = paths.probabilities[0]
        moved = paths.block_transitions(model.transition.transition, starts, block, blocks)
        first = gamma.new_zeros(blocks, self.states).index_add_(0, block[starts], gamma[starts])
        return moved, first, self.family.block_sums(self.frames, gamma, block, blocks)
