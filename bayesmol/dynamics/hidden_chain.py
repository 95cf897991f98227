"""Hidden Markov chains: which states lie behind the frames, by passes forward and backward over all of them at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, expected

__all__ = ["HiddenPaths", "Subsequences", "smoothed", "viterbi"]

_TINY = 1e-300


@dataclass(frozen=True, eq=False)
class Subsequences:
    r"""Frames of trajectories as chains of every τ-th frame, one chain behind the other.

    A trajectory gives τ chains, :math:`x_s, x_{s+\tau}, x_{s+2\tau}, \ldots` for :math:`s = 0, \ldots, \tau - 1`: as
    many pairs at the lag as sliding windows do.

    Attributes
    ----------
    order
        Place of each frame of the chains among the frames of all trajectories.
    first
        Whether a chain starts there.
    lengths
        Frames of each trajectory.
    lag
        τ.
    """

    order: Int[Tensor, " frames"]
    first: Bool[Tensor, " frames"]
    lengths: tuple[int, ...]
    lag: int

    @classmethod
    def of(cls, trajectories: Trajectories, lag: int) -> Subsequences:
        """The chains of trajectories."""
        places = torch.arange(trajectories.frames, device=trajectories.parts[0].device)
        chains = [part[s::lag] for part in places.split(trajectories.lengths) for s in range(min(lag, len(part)))]
        order = torch.cat(chains)
        first = torch.zeros_like(order, dtype=torch.bool)
        first[torch.tensor([0, *(len(chain) for chain in chains[:-1])]).cumsum(0)] = True
        return cls(order, first, tuple(trajectories.lengths), lag)

    def parts(self, values: Tensor) -> tuple[Tensor, ...]:
        """Rows that are in the order of the chains, by trajectory and in the order of time."""
        back = torch.empty_like(values)
        back[self.order] = values
        return back.split(self.lengths)

    def blocks(self, length: int) -> tuple[Int[Tensor, " frames"], Int[Tensor, " blocks"]]:
        """Block of each frame of the chains, and the trajectory of each block.

        Blocks are those of the first frames of pairs: the last frames of a trajectory belong to its last such block.
        """
        owner: list[int] = []
        found = []
        for k, frames in enumerate(self.lengths):
            place = torch.arange(frames).clamp(max=max(frames - self.lag - 1, 0)) // length
            found.append(place + len(owner))
            owner += [k] * (int(place[-1]) + 1)
        return torch.cat(found).to(self.order.device)[self.order], torch.tensor(owner, device=self.order.device)


@dataclass(frozen=True, eq=False)
class HiddenPaths:
    r"""What the frames say about the hidden states, for each of several models.

    Attributes
    ----------
    probabilities
        :math:`\gamma_t(i) = P(s_t = i \mid x)`.
    forward, backward
        :math:`f_t(i) \propto P(s_t = i, x_{\le t})` and :math:`g_t(j) \propto P(x_{\ge t} \mid s_t = j)`, of which
        transitions are made.
    predictive
        :math:`\ln p(x_t \mid x_{<t})` within the chain, in nats.
    """

    probabilities: Float[Tensor, "models frames states"]
    forward: Float[Tensor, "models frames states"]
    backward: Float[Tensor, "models frames states"]
    predictive: Float[Tensor, "models frames"]

    def transitions(
        self, transition: Float[Tensor, "models states states"], first: Bool[Tensor, " frames"]
    ) -> Float[Tensor, "models states states"]:
        r"""Expected number of transitions :math:`\sum_t P(s_{t-1} = i, s_t = j \mid x)`."""
        early, late = self._pairs(transition, first)
        return transition * (early.mT @ late)

    def block_transitions(
        self,
        transition: Float[Tensor, "models states states"],
        first: Bool[Tensor, " frames"],
        block: Int[Tensor, " frames"],
        blocks: int,
    ) -> Float[Tensor, "blocks states states"]:
        """The same of the first model by the block of the earlier frame."""
        early, late = (part[0] for part in self._pairs(transition, first))
        sums = early.new_zeros(blocks, *transition.shape[1:])
        own = block.roll(1)[~first]
        return transition[0] * sums.index_add_(0, own, early[:, :, None] * late[:, None, :])

    def _pairs(self, transition: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of the probability of each pair of frames, apart from the transition itself."""
        early, late = self.forward.roll(1, 1)[:, ~first], self.backward[:, ~first]
        return early / ((early @ transition) * late).sum(-1, keepdim=True), late


def smoothed(
    log_density: Float[Tensor, "models frames states"],
    transition: Float[Tensor, "models states states"],
    initial: Float[Tensor, "models states"],
    first: Bool[Tensor, " frames"],
) -> HiddenPaths:
    r"""The forward–backward algorithm for many chains, one behind the other, and several models.

    .. math:: f_t = \big(f_{t-1} T\big) \circ b_t, \qquad g_t = b_t \circ \beta_t, \qquad \beta_{t-1} = T g_t

    A chain starts with the matrix :math:`\mathbf 1 \mu^\top` in place of T, so that all chains are one product of
    matrices. It is cut into about :math:`\sqrt N` pieces: the products of all pieces are made side by side, then
    vectors run over the pieces, and then through all pieces side by side. That takes :math:`O(\sqrt N)` steps instead
    of N. Each vector is scaled as it goes, the densities of a frame by their largest.

    Raises
    ------
    DataError
        If no state that can be reached explains a frame.

    References
    ----------
    Rabiner, Proc. IEEE 77, 257 (1989), equations 19–37; Särkkä, García-Fernández, IEEE Trans. Autom. Control 66, 299
    (2021), for products of pieces.
    """
    frames = log_density.shape[1]
    peak = log_density.amax(-1)
    scan = _Scan.of((log_density - peak[..., None]).exp(), transition, initial, first)
    forward, scales = scan.forward()
    backward, beta = scan.backward()
    forward, backward, beta, scales = (scan.flat(part)[:, :frames] for part in (forward, backward, beta, scales))
    joint = forward * beta
    return HiddenPaths(joint / joint.sum(-1, keepdim=True), forward, backward, peak + scales[..., 0])


@dataclass(frozen=True, eq=False)
class _Scan:
    """Pieces of equal length; what is filled up at the end has density one and changes nothing."""

    density: Float[Tensor, "length models pieces states"]
    transition: Float[Tensor, "models states states"]
    initial: Float[Tensor, "models 1 states"]
    first: Bool[Tensor, "length pieces 1"]

    @classmethod
    def of(cls, density: Tensor, transition: Tensor, initial: Tensor, first: Tensor) -> _Scan:
        models, frames, states = density.shape
        length = math.isqrt(frames - 1) + 1
        pieces = -(-frames // length)
        more = pieces * length - frames
        filled = torch.cat([density, density.new_ones(models, more, states)], 1)
        starts = torch.cat([first, first.new_zeros(more)])
        steps = filled.reshape(models, pieces, length, states).permute(2, 0, 1, 3).contiguous()
        return cls(steps, transition, initial[:, None], starts.reshape(pieces, length).T[..., None])

    def flat(self, steps: Float[Tensor, "length models pieces width"]) -> Float[Tensor, "models frames width"]:
        """Steps of all pieces, one behind the other."""
        return steps.permute(1, 2, 0, 3).flatten(1, 2)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Forward vectors, and the logarithms of their scales."""
        moved = torch.empty_like(self.density)
        scales = torch.empty_like(self.density[..., :1])
        rows = self._entries()
        for t, (density, first) in enumerate(zip(self.density, self.first, strict=True)):
            rows = torch.where(first, self.initial, rows @ self.transition) * density
            total = rows.sum(-1, keepdim=True)
            rows = rows / total
            moved[t], scales[t] = rows, total.log()
        if not bool(torch.isfinite(scales).all()):
            raise DataError(expected("trajectories", "frames that some state explains", "one that none does"))
        return moved, scales

    def backward(self) -> tuple[Tensor, Tensor]:
        """Backward vectors with and without the density of their own frame."""
        own, rest = torch.empty_like(self.density), torch.empty_like(self.density)
        columns, across = self._exits(), self.transition.mT
        for t in range(len(self.density) - 1, -1, -1):
            rest[t], own[t] = columns, columns * self.density[t]
            start = (own[t] * self.initial).sum(-1, keepdim=True)
            columns = torch.where(self.first[t], start, own[t] @ across)
            columns = columns / columns.amax(-1, keepdim=True).clamp_min(_TINY)
        return own, rest

    @cached_property
    def products(self) -> Float[Tensor, "models pieces states states"]:
        """Product of the matrices of each piece, scaled."""
        models, pieces, states = self.density.shape[1:]
        rows = torch.eye(states).to(self.density).expand(models, pieces, states, states)
        initial = self.initial[:, :, None]
        for density, first in zip(self.density, self.first, strict=True):
            moved = (rows.reshape(models, -1, states) @ self.transition).view_as(rows)
            rows = torch.where(first[..., None], rows.sum(-1, keepdim=True) * initial, moved) * density[:, :, None]
            rows = rows / rows.amax((-1, -2), keepdim=True).clamp_min(_TINY)
        return rows

    def _entries(self) -> Float[Tensor, "models pieces states"]:
        """Forward vector with which each piece begins."""
        vectors = [torch.ones_like(self.initial)]
        for product in self.products.unbind(1)[:-1]:
            vector = vectors[-1] @ product
            vectors.append(vector / vector.sum(-1, keepdim=True).clamp_min(_TINY))
        return torch.cat(vectors, 1)

    def _exits(self) -> Float[Tensor, "models pieces states"]:
        """Backward vector with which each piece ends."""
        vectors = [torch.ones_like(self.initial)]
        for product in self.products.unbind(1)[:0:-1]:
            vector = vectors[-1] @ product.mT
            vectors.append(vector / vector.amax(-1, keepdim=True).clamp_min(_TINY))
        return torch.cat(vectors[::-1], 1)


def viterbi(
    log_density: Float[Tensor, "frames states"],
    transition: Float[Tensor, "states states"],
    initial: Float[Tensor, " states"],
    first: Bool[Tensor, " frames"],
) -> Int[Tensor, " frames"]:
    r"""Most probable sequence of states of each chain, :math:`\arg\max_s P(s \mid x)`.

    References
    ----------
    Viterbi, IEEE Trans. Inf. Theory 13, 260 (1967); Rabiner, Proc. IEEE 77, 257 (1989), equations 30–35.
    """
    density, starts = log_density.cpu().numpy(), first.cpu().numpy()
    with np.errstate(divide="ignore"):
        move, begin = np.log(transition.cpu().numpy()), np.log(initial.cpu().numpy())
    states = np.arange(len(begin))
    before = np.empty(density.shape, dtype=np.int64)
    best = np.zeros(len(begin))
    for t, row in enumerate(density):
        if starts[t]:
            before[t] = best.argmax()
            best = begin + row
        else:
            scores = best[:, None] + move
            before[t] = scores.argmax(0)
            best = scores[before[t], states] + row
    path = np.empty(len(density), dtype=np.int64)
    state = best.argmax()
    for t in range(len(density) - 1, -1, -1):
        path[t] = state
        state = before[t, state]
    return torch.as_tensor(path).to(log_density.device)
