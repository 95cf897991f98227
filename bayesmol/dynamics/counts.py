"""Counts of transitions between states, block by block: all that Markov state models need of trajectories."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.multipliers import PairSums
from bayesmol.errors import ConvergenceError, DataError, expected

__all__ = ["BlockCounts", "block_counts"]

_BLOCKS = 1000
_MEMORY = 8e8  # bytes of all counts


@dataclass(frozen=True, eq=False)
class BlockCounts:
    """Transitions of all pairs of frames at one lag, by the block of the first frame.

    Attributes
    ----------
    values
        Number of transitions from the first to the second state of each pair that occurs.
    pairs
        Places of the two states in ``states``.
    states
        Indices of the states as they were given.
    trajectory
        Which trajectory each block is of.
    lag, length
        In frames; length is that of a block.
    """

    values: Float[Tensor, "blocks pairs"]
    pairs: Int[Tensor, "pairs 2"]
    states: Int[Tensor, " states"]
    trajectory: Int[Tensor, " blocks"]
    lag: int
    length: int

    def total(self, weights: Float[Tensor, "draws blocks"] | None = None) -> Float[Tensor, "*draws states states"]:
        """Matrix of counts, with blocks weighted by each row of ``weights``."""
        return self.dense(self.values.sum(0) if weights is None else self.sums(weights))

    def sums(self, weights: Float[Tensor, "draws blocks"]) -> Float[Tensor, "draws pairs"]:
        """Weighted ``values``; most pairs of states occur in few blocks, so many draws at once are faster."""
        return torch.sparse.mm(self._sparse, weights.mT.contiguous()).mT

    @cached_property
    def _sparse(self) -> Tensor:
        return self.values.mT.to_sparse()

    def dense(self, sums: Float[Tensor, "*draws pairs"]) -> Float[Tensor, "*draws states states"]:
        """Matrices with these sums at ``pairs``."""
        size = len(self.states)
        flat = sums.new_zeros(*sums.shape[:-1], size * size)
        flat[..., self.pairs[:, 0] * size + self.pairs[:, 1]] = sums
        return flat.unflatten(-1, (size, size))

    def paired(self, weights: Float[Tensor, "draws blocks"]) -> tuple[PairSums, Float[Tensor, "states draws"]]:
        """The same as symmetric counts of pairs of different states, and as counts that leave each state."""
        sums, states = self.sums(weights).mT, len(self.states)
        apart = self.pairs[:, 0] != self.pairs[:, 1]
        sums, pairs = sums[apart], self.pairs[apart]
        keys, which = (pairs.amin(1) * states + pairs.amax(1)).unique(return_inverse=True)
        both = sums.new_zeros(len(keys), len(weights)).index_add_(0, which, sums)
        leaving = sums.new_zeros(states, len(weights)).index_add_(0, pairs[:, 0], sums)
        return PairSums(keys // states, keys % states, both), leaving

    def like(self, other: BlockCounts) -> Float[Tensor, "blocks pairs"]:
        """Values by the blocks of ``other``, whose lag is shorter or the same: zero where no pair is left."""
        mine, theirs = self._numbered(), other._numbered()
        places = {block: k for k, block in enumerate(theirs)}
        values = self.values.new_zeros(len(theirs), self.values.shape[1])
        values[[places[block] for block in mine]] = self.values
        return values

    def _numbered(self) -> list[tuple[int, int]]:
        """Trajectory and place in it of each block."""
        seen: dict[int, int] = {}
        found = []
        for owner in self.trajectory.tolist():
            found.append((owner, seen.get(owner, 0)))
            seen[owner] = seen.get(owner, 0) + 1
        return found

    def restricted(self, places: Int[Tensor, " fewer"]) -> BlockCounts:
        """Only transitions between the states at these places."""
        new = torch.full((len(self.states),), -1, device=places.device)
        new[places] = torch.arange(len(places), device=places.device)
        pairs = new[self.pairs]
        kept = (pairs >= 0).all(1)
        return replace(self, values=self.values[:, kept], pairs=pairs[kept], states=self.states[places])


def block_counts(trajectories: Trajectories, lag: int, *, block: int | None = None) -> BlockCounts:
    """Block counts of trajectories of states.

    Raises
    ------
    DataError, ConvergenceError
        If the frames are no states, the lag is not positive, or no trajectory is longer than it.
    """
    if not trajectories.discrete:
        raise DataError(expected("trajectories", "indices of states", "features", "assign them to states first"))
    if lag < 1:
        raise DataError(expected("lag", "at least one frame", lag))
    if not any(len(part) > lag for part in trajectories):
        raise ConvergenceError(expected("trajectories", f"one longer than the lag of {lag} frames", "none"))
    states, places = torch.cat(trajectories.parts).unique(return_inverse=True)
    first, last, owner, starts = _transitions(places.split(trajectories.lengths), lag)
    pairs, which = (first * len(states) + last).unique(return_inverse=True)
    most = max(2, min(_BLOCKS, int(_MEMORY / (8 * len(pairs)))))
    block = block or max(lag, -(-trajectories.frames // most))
    own = owner * (int(starts.max()) // block + 1) + starts // block
    kept, own = own.unique(return_inverse=True)
    values = torch.zeros(len(kept) * len(pairs), dtype=torch.float64, device=places.device)
    values.index_add_(0, own * len(pairs) + which, torch.ones_like(which, dtype=torch.float64))
    both = torch.stack([pairs // len(states), pairs % len(states)], 1)
    trajectory = kept // (int(starts.max()) // block + 1)
    return BlockCounts(values.unflatten(0, (len(kept), -1)), both, states, trajectory, lag, block)


def _transitions(parts: tuple[Tensor, ...], lag: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """First and last state of each pair of frames, the trajectory, and the place of the first frame in it."""
    long = [(k, part) for k, part in enumerate(parts) if len(part) > lag]
    first = torch.cat([part[:-lag] for _, part in long])
    last = torch.cat([part[lag:] for _, part in long])
    owner = torch.cat([torch.full((len(part) - lag,), k, device=part.device) for k, part in long])
    starts = torch.cat([torch.arange(len(part) - lag, device=part.device) for _, part in long])
    return first, last, owner, starts
