"""Draws of reversible transition matrices, kept as the flows of the pairs of states that have counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.leading_spectrum import SubspaceIteration
from bayesmol.dynamics.reversible import TransitionEstimate
from bayesmol.errors import DataError, expected
from bayesmol.inference.chains import r_hat
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import effective_sample_size

__all__ = ["Agreement", "ReversibleSamples"]

_SHOWN = 64  # draws whose mean is the reference of the eigenvalues
_MEMORY = 2**24  # entries of the transition matrices that are held at once


class Agreement(NamedTuple):
    """How far draws of several chains can be trusted, one entry a timescale.

    Attributes
    ----------
    r_hat
        Potential scale reduction: 1 if the chains agree.
    effective_sample_size
        Number of independent draws that they are worth.
    """

    r_hat: Float[Tensor, " count"]
    effective_sample_size: Float[Tensor, " count"]


@dataclass(frozen=True, eq=False)
class ReversibleSamples:
    r"""Draws of the symmetric flows :math:`x_{ij} = \pi_i p_{ij}`.

    Attributes
    ----------
    states
        Their number.
    pairs
        Rows i ≤ j of the flows that are not zero.
    flows
        One number a pair; all flows, each :math:`x_{ij}` and :math:`x_{ji}`, sum to one.
    acceptance
        Share of the accepted moves of the sampler.
    """

    states: int
    pairs: Int[Tensor, "2 pairs"]
    flows: Float[Tensor, "chain draw pairs"]
    acceptance: float

    @cached_property
    def stationary(self) -> Float[Tensor, "chain draw states"]:
        """Stationary distributions."""
        first, second = self.pairs
        result = self.flows.new_zeros(*self.flows.shape[:2], self.states).index_add_(2, first, self.flows)
        apart = first != second
        result.index_add_(2, second[apart], self.flows[..., apart])
        return result / result.sum(-1, keepdim=True)

    def transitions(self, rows: slice = slice(None)) -> TransitionEstimate:
        """Transition matrices of some draws, all chains in one row, first chain first."""
        dense = self._dense(self.flows.flatten(0, 1)[rows])
        weights = dense.sum(-1)
        return TransitionEstimate(dense.div_(weights[..., None]), weights / weights.sum(-1, keepdim=True))

    def evaluate(self, function: Callable[[TransitionEstimate], Tensor], unit: str = "") -> Draws:
        """Distribution of any function of a batch of transition matrices; not all are in memory at once."""
        chains, draws, _ = self.flows.shape
        size = max(1, _MEMORY // self.states**2)
        starts = range(0, chains * draws, size)
        values = torch.cat([function(self.transitions(slice(start, start + size))) for start in starts])
        return Draws(values.unflatten(0, (chains, draws)), unit=unit)

    def eigenvalues(self, count: int) -> Draws:
        """Largest eigenvalues in size without the stationary one.

        Raises
        ------
        DataError
            If there are not so many.
        """
        if not 1 <= count < self.states:
            raise DataError(expected("count", f"from 1 to {self.states - 1}", count))
        rows, root = self.flows.flatten(0, 1), self.stationary.flatten(0, 1).sqrt()
        reference = SubspaceIteration.near(self._symmetric(rows[:_SHOWN], root[:_SHOWN]), count + 1)
        size = reference.batch(rows.device)
        parts = zip(rows.split(size), root.split(size), strict=True)
        values = torch.cat([reference(self._symmetric(part, scale), scale)[0] for part, scale in parts])
        return Draws(values[:, 1:].unflatten(0, self.flows.shape[:2]), unit="")

    def _symmetric(self, flows: Tensor, root: Tensor) -> Tensor:
        r"""Matrices :math:`x_{ij} / \sqrt{\pi_i \pi_j}`, without a detour by P."""
        first, second = self.pairs
        return self._dense(flows / (root.index_select(1, first) * root.index_select(1, second)))

    def _dense(self, values: Tensor) -> Tensor:
        padded = torch.cat([values, torch.zeros_like(values[:, :1])], 1)
        return padded.index_select(1, self._places).unflatten(1, (self.states, self.states))

    @cached_property
    def _places(self) -> Tensor:
        """Which number of a draw stands where in its matrix; the one after the last is zero."""
        first, second = self.pairs
        result = torch.full((self.states, self.states), self.pairs.shape[1], device=first.device)
        order = torch.arange(len(first), device=first.device)
        result[first, second], result[second, first] = order, order
        return result.flatten()

    def timescales(self, count: int, *, lag: float = 1, unit: str = "frames") -> Draws:
        r"""Implied timescales :math:`-\tau / \ln |\lambda|`, from the longest on, in the ``unit`` of ``lag``."""
        return Draws(-lag / self.eigenvalues(count).values.abs().log(), unit=unit)

    def agreement(self, count: int = 3) -> Agreement:
        """Whether the chains agree on the leading timescales; ranks and decay rates do not depend on the lag.

        Raises
        ------
        DataError
            If there are fewer than four draws a chain.
        """
        rates = -self.eigenvalues(min(count, self.states - 1)).values.abs().log()
        return Agreement(r_hat(rates), effective_sample_size(rates))
