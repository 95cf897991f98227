"""Draws of reversible transition matrices, kept as the flows of the pairs of states that have counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.leading_spectrum import Frame, leading_spectrum
from bayesmol.dynamics.reversible import TransitionEstimate
from bayesmol.errors import DataError, expected
from bayesmol.inference.chains import r_hat
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import effective_sample_size

__all__ = ["Agreement", "ReversibleSamples"]

_MEMORY = 2**20  # entries of the transition matrices that are held at once: they stay in the cache


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
        return self._dense(self.flows.flatten(0, 1)[rows])

    def _dense(self, part: Float[Tensor, "rows pairs"]) -> TransitionEstimate:
        first, second = self.pairs
        flat = part.new_zeros(len(part), self.states**2)
        flat[:, first * self.states + second] = part
        flat[:, second * self.states + first] = part
        dense = flat.unflatten(1, (self.states, self.states))
        weights = dense.sum(-1)
        return TransitionEstimate(dense / weights[..., None], weights / weights.sum(-1, keepdim=True))

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
        near = Frame.of(self._dense(self.flows.mean((0, 1))[None]))
        return self.evaluate(
            lambda p: leading_spectrum(p.transition, p.stationary, count + 1, near=near).values[..., 1:]
        )

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
