"""Hidden Markov models whose every quantity is a distribution that takes the correlation of the data into account."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.discrete_emissions import DiscreteFamily
from bayesmol.dynamics.gaussian_emissions import GaussianFamily
from bayesmol.dynamics.hidden_chain import Subsequences, viterbi
from bayesmol.dynamics.hidden_estimation import HiddenEstimation, HiddenParameters
from bayesmol.dynamics.hidden_starts import starting_memberships
from bayesmol.dynamics.leading_spectrum import leading_eigenvalues
from bayesmol.dynamics.passage import mean_first_passage_time
from bayesmol.dynamics.weights import BlockWeights, bandwidth, block_weights
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws

__all__ = ["FittedHiddenMarkovModel", "HiddenMarkovModel"]

_BLOCKS = 1000
_FAMILIES: dict[str, type[DiscreteFamily] | type[GaussianFamily]] = {
    "discrete": DiscreteFamily,
    "gaussian": GaussianFamily,
}


@dataclass(frozen=True)
class HiddenMarkovModel:
    r"""A Markov chain of a few hidden states, each of which emits symbols or features by a law of its own.

    .. math:: p(x_1, x_2, \ldots) = \sum_s \mu_{s_1} b_{s_1}(x_1) \prod_t T_{s_{t-1} s_t} b_{s_t}(x_t)

    for every τ-th frame. The estimate is the maximum over all τ chains that a trajectory gives. The posterior is that
    of :class:`~bayesmol.dynamics.MarkovStateModel`: blocks of time are weighted at random
    (:func:`~bayesmol.dynamics.weights.block_weights`), and the maximum follows to first order in coordinates in which
    every point is a model. Its spread is the sandwich :math:`H^{-1} J H^{-1}` of the observed information H and of the
    long-run variance J of the score, which holds for correlated chains and where the emissions are not quite
    right; where the model is right at lag 1 it is that of Bayes' theorem.

    The states come by falling stationary probability of the estimate. Draws keep its labels: each is a small change
    of the estimate, so labels cannot switch.

    Attributes
    ----------
    states
        Number of hidden states.
    lag
        τ, in frames.
    emissions
        ``"discrete"`` for trajectories of states, ``"gaussian"`` for features (full covariances).
    reversible
        Whether every transition matrix has detailed balance.
    draws
        Of the posterior.
    starts
        Of the estimation: one from metastable sets, the others disturbed at random; the best wins.
    pseudocount
        Frames, τ apart, that the prior adds to each state: transitions to all states alike, and emissions that look
        like all frames.
    block
        Frames of a block; by default a thousandth of all, and not less than the lag.

    References
    ----------
    Noé, Wu, Prinz, Plattner, J. Chem. Phys. 139, 184114 (2013) (hidden Markov models of kinetics); Varin, Reid, Firth,
    Stat. Sinica 21, 5 (2011), section 2.3 (the sandwich for sums of likelihoods that are not independent).
    """

    states: int
    lag: int = 1
    emissions: Literal["discrete", "gaussian"] = "discrete"
    reversible: bool = True
    draws: int = 1000
    starts: int = 4
    pseudocount: float = 1.0
    block: int | None = None

    def __post_init__(self) -> None:
        counts = (self.lag, self.draws, self.starts, self.block or 1, self.states - 1)
        if min(counts) < 1:
            raise DataError(expected("HiddenMarkovModel", "positive counts and at least two states", self))
        if self.emissions not in _FAMILIES:
            raise DataError(expected("emissions", " or ".join(_FAMILIES), self.emissions))
        if not 0 < self.pseudocount < math.inf:
            raise DataError(expected("pseudocount", "a positive number", self.pseudocount))

    def fit(self, data: Any, *, seed: int | torch.Generator) -> FittedHiddenMarkovModel:
        """Estimate from trajectories of states or of features.

        Raises
        ------
        ShapeError, DataError
            If they are no trajectories, do not suit the emissions, or one is not longer than the lag; if all frames
            are the same, or a feature is constant.
        ConvergenceError
            If a state dies or keeps a single value, the likelihood has no maximum, or the trajectories are too short
            for the slowest timescale or to tell the states apart.
        """
        trajectories = self.checked(data)
        source = generator(seed, trajectories.parts[0].device)
        problem, place = self.maximum(trajectories, self.family(trajectories), seed=source)
        weights, block = self.weights(trajectories, problem.chains, problem.parameters(place), seed=source)
        draws = problem.reweighted(place, block, weights.values)
        time = trajectories.time_step, trajectories.unit
        return FittedHiddenMarkovModel(self, problem.family, problem.parameters(place), draws, weights, *time)

    def checked(self, data: Any) -> Trajectories:
        """The trajectories, if they suit the emissions and the lag."""
        trajectories = Trajectories.of(data)
        if trajectories.discrete != (self.emissions == "discrete"):
            wanted = {"discrete": "indices of states", "gaussian": "features"}[self.emissions]
            raise DataError(expected("trajectories", f"{wanted} for {self.emissions} emissions", "others"))
        if min(trajectories.lengths) <= self.lag:
            remedy = "leave it out, or take a shorter lag"
            got = f"one of {min(trajectories.lengths)}"
            raise DataError(expected("trajectories", f"more frames than the lag of {self.lag}", got, remedy))
        return trajectories

    def family(self, trajectories: Trajectories) -> DiscreteFamily | GaussianFamily:
        """Family of the emissions, for these trajectories."""
        return _FAMILIES[self.emissions].of(torch.cat(trajectories.parts), self.states)

    def problem(self, trajectories: Trajectories, family: DiscreteFamily | GaussianFamily) -> HiddenEstimation:
        """Likelihood of trajectories."""
        chains = Subsequences.of(trajectories, self.lag)
        frames = family.prepared(torch.cat(trajectories.parts))[chains.order]
        return HiddenEstimation(chains, frames, family, self.states, self.pseudocount * self.lag, self.reversible)

    def maximum(
        self, trajectories: Trajectories, family: DiscreteFamily | GaussianFamily, *, seed: torch.Generator
    ) -> tuple[HiddenEstimation, Float[Tensor, "1 coordinates"]]:
        """Likelihood and its maximum, the states by falling stationary probability."""
        problem = self.problem(trajectories, family)
        guesses = starting_memberships(trajectories, self.lag, self.states, self.starts, seed=seed)
        place = problem.maximum(problem.start(guesses[:, problem.chains.order]))
        return problem, problem.ordered(place)

    def weights(
        self, trajectories: Trajectories, chains: Subsequences, estimate: HiddenParameters, *, seed: torch.Generator
    ) -> tuple[BlockWeights, Int[Tensor, " frames"]]:
        """Weights of blocks of time, and the block of each frame of the chains."""
        size = self.block or max(self.lag, -(-trajectories.frames // _BLOCKS))
        block, owner = chains.blocks(size)
        first = float(leading_eigenvalues(estimate.transition, 2)[0, 1].abs())
        slowest = -self.lag / math.log(min(first, 1 - 1e-12)) if first > 0 else 0.0
        wide = bandwidth(self.lag, slowest, trajectories.frames - self.lag * len(trajectories))
        return block_weights(owner, size, wide, self.draws, seed=seed), block


@dataclass(frozen=True, eq=False)
class FittedHiddenMarkovModel:
    """A hidden Markov model and its posterior; the states come by falling stationary probability.

    Attributes
    ----------
    spec
        What was estimated.
    family
        Of the emissions: names of the symbols, or units of the features.
    estimate, draws
        Parameters from all blocks (one model), and of each draw.
    weights
        Of the blocks, one row a draw.
    time_step, unit
        Of a frame.
    """

    spec: HiddenMarkovModel
    family: DiscreteFamily | GaussianFamily
    estimate: HiddenParameters
    draws: HiddenParameters
    weights: BlockWeights
    time_step: float
    unit: str

    @property
    def transition_matrix(self) -> Float[Tensor, "states states"]:
        """The estimate, at the lag."""
        return self.estimate.transition.transition[0]

    def posterior(self, function: Callable[[HiddenParameters], Tensor], unit: str = "") -> Draws:
        """Distribution of any function of the parameters of a batch of models."""
        return Draws(function(self.draws)[None], unit=unit)

    def timescales(self, count: int | None = None) -> Draws:
        r"""Implied timescales :math:`-\tau / \ln |\lambda|`, from the longest on, in ``unit``."""
        count = self.spec.states - 1 if count is None else count
        if not 1 <= count < self.spec.states:
            raise DataError(expected("count", f"from 1 to {self.spec.states - 1}", count))
        values = leading_eigenvalues(self.draws.transition, count + 1)[:, 1:].abs()
        return Draws((-self._lag / values.log())[None], unit=self.unit)

    def stationary(self) -> Draws:
        """Equilibrium populations of the hidden states."""
        return self.posterior(lambda model: model.transition.stationary)

    def lifetimes(self) -> Draws:
        r"""Time constants :math:`-\tau / \ln T_{ii}` with which the states are left, in ``unit``."""
        return self.posterior(
            lambda model: -self._lag / model.transition.transition.diagonal(dim1=1, dim2=2).log(), self.unit
        )

    def mean_first_passage_time(self, start: Sequence[int], target: Sequence[int]) -> Draws:
        """Mean time from one set of hidden states to another, in ``unit``, for a clock that looks every lag."""
        matrices = self.draws.transition.transition
        return Draws(self._lag * mean_first_passage_time(matrices, start, target)[None], unit=self.unit)

    def emissions(self) -> dict[str, Draws]:
        """Parameters of the emissions by name: ``probabilities``, or ``means`` and ``covariances``."""
        laws = self.family.natural(self.draws.emissions)
        return {field.name: Draws(getattr(laws, field.name)[None], unit="") for field in fields(laws)}

    def paths(self, data: Any) -> tuple[Int[Tensor, " frames"], ...]:
        """Most probable hidden states of each trajectory by the estimate; each chain at the lag has its own."""
        problem = self._problem(data)
        density = self.family.log_density(self.estimate.emissions, problem.frames)[0]
        found = viterbi(density, self.transition_matrix, self.estimate.initial[0], problem.chains.first)
        return problem.chains.parts(found)

    def probabilities(self, data: Any) -> tuple[Float[Tensor, "frames states"], ...]:
        """Probability of each hidden state in each frame given its whole chain, by the estimate."""
        problem = self._problem(data)
        return problem.chains.parts(problem.paths(self.estimate).probabilities[0])

    def log_likelihood(self, data: Any) -> float:
        """Of the estimate: mean over the τ chains of a trajectory, summed over the trajectories, in nats."""
        return float(self._problem(data).paths(self.estimate).predictive.sum()) / self.spec.lag

    @property
    def _lag(self) -> float:
        return self.spec.lag * self.time_step

    def _problem(self, data: Any) -> HiddenEstimation:
        return self.spec.problem(Trajectories.of(data), self.family)
