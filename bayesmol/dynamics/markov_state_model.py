"""Markov state models whose every quantity is a distribution that takes the correlation of the data into account."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.clustering import KMeans, Partition
from bayesmol.dynamics.counts import BlockCounts, block_counts
from bayesmol.dynamics.leading_spectrum import Frame, leading_eigenvalues
from bayesmol.dynamics.passage import forward_committor, mean_first_passage_time
from bayesmol.dynamics.pcca import MetastableStates, pcca
from bayesmol.dynamics.reversible import (
    TransitionEstimate,
    largest_connected_set,
    nonreversible_estimate,
    reversible_estimate,
    reversible_from_potentials,
    reversible_potentials,
)
from bayesmol.dynamics.weights import BlockWeights, bandwidth, block_weights, independent_events
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws

__all__ = ["FittedMarkovStateModel", "MarkovStateModel", "places"]

_MEMORY = 2**20  # entries of the transition matrices that are held at once: they stay in the cache
_DRAWS = 256  # whose counts are summed together


@dataclass(frozen=True)
class MarkovStateModel:
    """Transition probabilities between states at one lag.

    Attributes
    ----------
    lag
        In frames.
    states
        How features become states: the number of k-means clusters, or a specification such as
        :class:`~bayesmol.dynamics.clustering.Grid`. Trajectories of states are taken as they are.
    reversible
        Whether every transition matrix has detailed balance.
    draws
        Of the posterior.
    block
        Frames of a block; by default a thousandth of all, and not less than the lag.
    """

    lag: int = 1
    states: int | Any = 100
    reversible: bool = True
    draws: int = 1000
    block: int | None = None

    def __post_init__(self) -> None:
        counts = (self.lag, self.draws, self.block or 1, self.states if isinstance(self.states, int) else 2)
        if min(counts) < 1:
            raise DataError(expected("lag, draws, block, states", "positive counts", counts))

    def fit(self, data: Any, *, seed: int | torch.Generator) -> FittedMarkovStateModel:
        """Estimate from trajectories of features or of states.

        States that are not strongly connected with most others are left out; ``left_out`` says how many transitions.

        Raises
        ------
        ShapeError, DataError
            If they are no trajectories, or fewer than two states are connected.
        ConvergenceError
            If they are too short for the lag, or for the slowest timescale that they show.
        """
        trajectories = Trajectories.of(data)
        source = generator(seed, trajectories.parts[0].device)
        partition = None
        if not trajectories.discrete:
            spec = KMeans(self.states) if isinstance(self.states, int) else self.states
            partition = spec.fit(trajectories, seed=source)
            trajectories = partition.discretise(trajectories)
        counts = block_counts(trajectories, self.lag, block=self.block)
        kept = largest_connected_set(counts.total())
        if len(kept) < 2:
            raise DataError(expected("trajectories", "two states with transitions to and fro", "none", "sample longer"))
        return self.estimated(
            counts.restricted(kept), partition, counts.values.sum(), trajectories.time_step, trajectories.unit, source
        )

    def estimated(
        self,
        counts: BlockCounts,
        partition: Partition | None,
        total: Tensor,
        time_step: float,
        unit: str,
        seed: int | torch.Generator,
    ) -> FittedMarkovStateModel:
        """The same from counts of connected states; ``total`` is the number of transitions of all states."""
        estimate = self.transitions(counts.total())
        first = float(leading_eigenvalues(estimate, 2)[1].abs())
        slowest = -self.lag / math.log(min(first, 1 - 1e-12)) if first > 0 else 0.0
        wide = bandwidth(self.lag, slowest, int(total))
        weights = block_weights(counts.trajectory, counts.length, wide, self.draws, seed=seed)
        left = 1 - float(counts.values.sum() / total)
        return FittedMarkovStateModel(self, partition, counts, weights, estimate, left, time_step, unit)

    def transitions(self, counts: Float[Tensor, "*draws states states"], start: Any = None) -> TransitionEstimate:
        """Transition matrices of maximum likelihood."""
        return reversible_estimate(counts, start=start) if self.reversible else nonreversible_estimate(counts)


@dataclass(frozen=True, eq=False)
class FittedMarkovStateModel:
    """A Markov state model and its posterior; states are named as in the trajectories.

    Attributes
    ----------
    spec
        What was estimated.
    partition
        The states, if they were made from features.
    counts
        Of the connected states.
    weights
        Of the blocks, one row a draw.
    estimate
        From all blocks.
    left_out
        Share of the transitions from or to states that are not connected.
    time_step, unit
        Of a frame.
    """

    spec: MarkovStateModel
    partition: Partition | None
    counts: BlockCounts
    weights: BlockWeights
    estimate: TransitionEstimate
    left_out: float
    time_step: float
    unit: str

    @property
    def states(self) -> Int[Tensor, " states"]:
        """Names of the connected states, in the order of all matrices."""
        return self.counts.states

    @property
    def transition_matrix(self) -> Float[Tensor, "states states"]:
        """The estimate."""
        return self.estimate.transition

    def posterior(self, function: Callable[[TransitionEstimate], Tensor], unit: str = "") -> Draws:
        """Distribution of any function of a batch of transition matrices; not all are in memory at once."""
        parts = [function(batch) for batch in self._batches()]
        return Draws(torch.cat(parts)[None], unit=unit)

    def eigenvalues(self, count: int) -> Draws:
        """Largest eigenvalues in size without the stationary one (count,)."""
        self._check(count)
        return self.posterior(lambda batch: leading_eigenvalues(batch, count + 1, near=self._frame)[..., 1:])

    def timescales(self, count: int) -> Draws:
        r"""Implied timescales :math:`-\tau / \ln |\lambda|`, from the longest on, in ``unit``."""
        self._check(count)
        factor = -self.spec.lag * self.time_step

        def times(batch: TransitionEstimate) -> Tensor:
            return factor / leading_eigenvalues(batch, count + 1, near=self._frame)[..., 1:].abs().log()

        return self.posterior(times, self.unit)

    def stationary(self, states: Sequence[int] | None = None) -> Draws:
        """Equilibrium populations of the connected states; or of a set of them, as one number."""
        if states is None:
            return self.posterior(lambda batch: batch.stationary)
        inside = places(self, states, "states")
        return self.posterior(lambda batch: batch.stationary[:, inside].sum(1))

    def free_energies(self) -> Draws:
        r"""Free energies :math:`-\ln \pi_i` of the connected states, in kT."""
        return self.posterior(lambda batch: -batch.stationary.log(), "kT")

    def mean_first_passage_time(self, start: Sequence[int], target: Sequence[int]) -> Draws:
        """Mean time from one set of states to another, in ``unit``, for a clock that looks every lag."""
        a, b = places(self, start, "start"), places(self, target, "target")
        lag, step = self.spec.lag, self.time_step
        return self.posterior(lambda p: step * mean_first_passage_time(p.transition, a, b, lag=lag), self.unit)

    def committor(self, start: Sequence[int], target: Sequence[int]) -> Draws:
        """Probability of each connected state to reach one set before the other."""
        a, b = places(self, start, "start"), places(self, target, "target")
        return self.posterior(lambda batch: forward_committor(batch.transition, a, b))

    def support(self, found: Draws) -> Float[Tensor, "*shape"]:
        """On about how many independent events each number of ``found``, one of the posteriors above, rests.

        Below three its interval is not to be trusted: a rare event that was seen once or twice carries it alone.

        Raises
        ------
        DataError
            If ``found`` is of another model, or of fewer than 300 draws.
        """
        return independent_events(found.values.flatten(0, 1), self.weights, self.counts.length)

    def pcca(self, macrostates: int) -> MetastableStates:
        """Metastable states of the posterior, aligned with those of the estimate."""
        reference = pcca(self.transition_matrix, macrostates).memberships
        return pcca(self._transitions, macrostates, reference=reference)

    @cached_property
    def _transitions(self) -> Float[Tensor, "draws states states"]:
        return torch.cat([batch.transition for batch in self._batches()])

    def _batches(self) -> Iterator[TransitionEstimate]:
        size = max(1, _MEMORY // len(self.states) ** 2)
        for draws in torch.arange(len(self.weights.values)).split(_DRAWS):
            parts = map(self.counts.dense, self.counts.sums(self.weights.values[draws]).split(size))
            if self.spec.reversible:
                yield from map(reversible_from_potentials, parts, self._potentials[draws].split(size))
            else:
                yield from map(nonreversible_estimate, parts)

    @cached_property
    def _potentials(self) -> Float[Tensor, "draws states"]:
        """Of the reversible estimate of each draw."""
        start = self.estimate.potentials
        parts = map(self.counts.paired, self.weights.values.split(_DRAWS))
        return torch.cat([reversible_potentials(*part, start) for part in parts])

    @cached_property
    def _frame(self) -> Frame | None:
        return Frame.of(self.estimate) if self.spec.reversible else None

    def _check(self, count: int) -> None:
        if not 1 <= count < len(self.states):
            raise DataError(expected("count", f"from 1 to {len(self.states) - 1}", count))


def places(model: FittedMarkovStateModel, states: Sequence[int], name: str) -> Int[Tensor, " members"]:
    """Places of states in all matrices.

    Raises
    ------
    DataError
        If one is not among the connected states.
    """
    known = {int(state): place for place, state in enumerate(model.states)}
    wanted = [int(state) for state in states]
    if missing := [state for state in wanted if state not in known]:
        raise DataError(expected(name, "connected states", f"{missing[:5]} that are not", "see states"))
    return torch.tensor([known[state] for state in wanted], device=model.states.device)
