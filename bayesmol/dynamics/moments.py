"""Second moments of pairs of frames, block by block: all that linear estimators need of trajectories."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import ConvergenceError, DataError, expected

__all__ = ["Basis", "Moments", "block_length", "moments", "streamed", "windows"]

Basis = Callable[[Float[Tensor, "frames features"]], Float[Tensor, "frames functions"]]

_BLOCKS = 1000
_MEMORY = 4e8  # bytes of all block moments


@dataclass(frozen=True, eq=False)
class Moments:
    r"""Sums over the pairs of each block, with :math:`\chi_0 = 1` as the first function.

    Attributes
    ----------
    early, cross, late
        :math:`\sum \chi(x_t) \chi(x_t)^\top`, :math:`\sum \chi(x_t) \chi(x_{t+\tau})^\top` and
        :math:`\sum \chi(x_{t+\tau}) \chi(x_{t+\tau})^\top`.
    trajectory
        Which trajectory each block is of.
    lag, length
        τ, and frames of a block.
    """

    early: Float[Tensor, "blocks functions functions"]
    cross: Float[Tensor, "blocks functions functions"]
    late: Float[Tensor, "blocks functions functions"]
    trajectory: Int[Tensor, " blocks"]
    lag: int
    length: int

    @property
    def sizes(self) -> Float[Tensor, " blocks"]:
        """Number of pairs in each block."""
        return self.early[:, 0, 0]

    @property
    def shares(self) -> Float[Tensor, " blocks"]:
        """Part of each block in every mean, up to a factor: the same for all, the last of a trajectory as well."""
        return torch.ones_like(self.sizes)

    @property
    def pairs(self) -> float:
        """Number of pairs in all blocks."""
        return float(self.sizes.sum())

    def projected(self, columns: Float[Tensor, "functions fewer"]) -> Moments:
        """Moments of linear combinations of the functions."""
        early, cross, late = (columns.mT @ part @ columns for part in (self.early, self.cross, self.late))
        return Moments(early, cross, late, self.trajectory, self.lag, self.length)

    def mean(self, weights: Float[Tensor, "draws blocks"] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Early, cross and late moments of a pair, functions by functions, for each row of weights."""
        if weights is None:
            return self.early.sum(0) / self.pairs, self.cross.sum(0) / self.pairs, self.late.sum(0) / self.pairs
        pairs = (weights @ self.sizes)[:, None, None]
        parts = (self.early, self.cross, self.late)
        early, cross, late = (torch.einsum("db,bij->dij", weights, part) / pairs for part in parts)
        return early, cross, late

    def joined(self, other: Moments) -> Moments:
        """Moments of more trajectories, from another pass or another machine.

        Raises
        ------
        DataError
            If lag, length of blocks or functions differ.
        """
        own, theirs = ((one.lag, one.length, one.early.shape[1]) for one in (self, other))
        if own != theirs:
            raise DataError(expected("other", f"lag, block and functions {own}", theirs))
        early, cross, late = (torch.cat([getattr(self, n), getattr(other, n)]) for n in ("early", "cross", "late"))
        after = other.trajectory + self.trajectory.max() + 1
        return Moments(early, cross, late, torch.cat([self.trajectory, after]), self.lag, self.length)


def block_length(frames: int, lag: int, functions: int) -> int:
    """Frames of a block: a thousandth of all, but not less than a lag, and more where the moments would not fit."""
    blocks = max(2, min(_BLOCKS, int(_MEMORY / (24 * functions**2))))
    return max(lag, math.ceil(frames / blocks))


def moments(trajectories: Trajectories, basis: Basis, lag: int, *, block: int | None = None) -> Moments:
    """Block moments of trajectories in memory.

    Raises
    ------
    DataError, ConvergenceError
        If the lag is not positive, or no trajectory is longer than it.
    """
    if lag < 1:
        raise DataError(expected("lag", "at least one frame", lag))
    functions = 1 + basis(trajectories.parts[0][:1]).shape[1]
    block = block or block_length(trajectories.frames, lag, functions)
    chunks = (part.split(max(block, 4096)) for part in trajectories)
    return streamed(chunks, basis, lag, block=block)


def streamed(
    trajectories: Iterable[Iterable[Float[Tensor, "frames features"]]], basis: Basis, lag: int, *, block: int
) -> Moments:
    """Block moments of trajectories that come in chunks of consecutive frames; one pass, one block in memory.

    Raises
    ------
    ConvergenceError
        If no trajectory is longer than the lag.
    """
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    owner: list[int] = []
    for k, chunks in enumerate(trajectories):
        for frames in windows(chunks, basis, lag, block):
            early, late = frames[:-lag], frames[lag:]
            rows.append((early.mT @ early, early.mT @ late, late.mT @ late))
            owner.append(k)
    if not rows:
        raise ConvergenceError(expected("trajectories", f"one longer than the lag of {lag} frames", "none"))
    early, cross, late = (torch.stack(part) for part in zip(*rows, strict=True))
    trajectory = torch.tensor(owner, device=rows[0][0].device)
    return Moments(early, cross, late, trajectory, lag, block)


def windows(chunks: Iterable[Tensor], basis: Basis, lag: int, block: int) -> Iterator[Tensor]:
    """Functions of ``block + lag`` consecutive frames, a window every ``block`` frames; the last one is shorter."""
    held: Tensor | None = None
    for chunk in chunks:
        values = basis(chunk)
        values = torch.cat([values.new_ones(len(values), 1), values], 1)
        held = values if held is None else torch.cat([held, values])
        while len(held) >= block + lag:
            yield held[: block + lag]
            held = held[block:]
    if held is not None and len(held) > lag:
        yield held
