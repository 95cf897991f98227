"""VAMPnets: a perceptron learns the slow states, and a linear operator on its outputs has the distribution."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.koopman import FittedKoopman
from bayesmol.dynamics.linear import TICA, VAMP
from bayesmol.dynamics.moments import moments
from bayesmol.dynamics.scores import score, symmetrised
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws
from bayesmol.progress import progress
from bayesmol.representation.basis import checked_rows

__all__ = ["FittedVAMPNet", "StateNetwork", "VAMPNet"]

_BLOCKS = 50
_RIDGE = 1e-6  # on moments of probabilities, in the loss only: keeps its gradient finite where two states are one
_PATIENCE = 8  # epochs without a better held-out score


@dataclass(frozen=True, eq=False)
class StateNetwork:
    r"""Memberships of a frame in states, :math:`\mathrm{softmax}(W_K h_{K-1} + b_K)`, :math:`h_k = \mathrm{elu}(W_k h_{k-1} + b_k)`.

    A fitted basis; the sum of the memberships is the constant function.

    Attributes
    ----------
    shift, scale
        Of the features, to mean zero and variance one over the training data.
    weights, biases
        One array a layer.
    """  # noqa: E501

    shift: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    constant: bool = True

    @property
    def functions(self) -> int:
        """Number of states."""
        return len(self.biases[-1])

    def __call__(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows states"]:
        h = (checked_rows(x, len(self.shift)) - self.shift) / self.scale
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.nn.functional.elu(h) if k else h
            h = h @ weight + bias
        return h.softmax(1)


@dataclass(frozen=True)
class VAMPNet:
    r"""Ensemble of networks that maximise the VAMP-2 score of their outputs, each with a linear operator on top.

    .. math:: \max_\theta \left\| C_{00}^{-1/2} C_{01} C_{11}^{-1/2} \right\|_F^2, \quad
              C_{01} = \langle \chi_\theta(x_t) \chi_\theta(x_{t+\tau})^\top \rangle

    Each member starts from other random weights and leaves out other blocks of time, on which its training stops: when
    their score has not risen for 8 epochs, the best weights so far are taken.

    Attributes
    ----------
    lag
        τ, in frames.
    states
        Outputs of a network: one more than slow processes that it can show.
    members
        Networks.
    widths
        Units of the hidden layers.
    reversible
        Whether pairs count in both directions of time, in training and in the operator: only for data at equilibrium.
    epochs, batch, learning_rate
        Most passes over the data, pairs of a step, and the step size of Adam.
    held_out
        Share of the blocks that a member does not train on.
    draws
        Of the posterior of each member's operator.

    References
    ----------
    Mardt, Pasquali, Wu, Noé, Nat. Commun. 9, 5 (2018); Lakshminarayanan, Pritzel, Blundell, Advances in Neural
    Information Processing Systems 30 (2017), for the ensemble.
    """

    lag: int
    states: int
    members: int = 5
    widths: tuple[int, ...] = (32, 32)
    reversible: bool = True
    epochs: int = 100
    batch: int = 1000
    learning_rate: float = 3e-3
    held_out: float = 0.3
    draws: int = 1000

    def __post_init__(self) -> None:
        counts = (self.lag, self.states - 1, self.members, *self.widths, self.epochs, self.batch, self.draws)
        if min(counts) < 1:
            raise DataError(expected("VAMPNet", "positive counts and at least two states", self))
        if not (0 < self.held_out < 1 and self.learning_rate > 0):
            raise DataError(expected("held_out, learning_rate", "a share, and a positive number", self))

    def fit(self, data: Any, *, seed: int | torch.Generator) -> FittedVAMPNet:
        """Train all members on trajectories; the same seed gives the same networks.

        Raises
        ------
        ShapeError, DataError
            If the data are no trajectories of finite features.
        ConvergenceError
            If there are fewer than 10 pairs a block, or the trajectories are too short for an error bar.
        """
        trajectories = Trajectories.of(data)
        if trajectories.discrete:
            raise DataError(expected("trajectories", "features", "states"))
        pairs = _Pairs.of(trajectories, self.lag)
        source = generator(seed, pairs.frames.device)
        networks, scores = [], []
        with progress("training", self.members * self.epochs) as advance:
            for _ in range(self.members):
                network, best = _trained(self, pairs, source, advance)
                networks.append(network)
                scores.append(best)
        heads = tuple(self._head(trajectories, network, source) for network in networks)
        return FittedVAMPNet(self, tuple(networks), heads, pairs.frames.new_tensor(scores))

    def _head(self, trajectories: Trajectories, network: StateNetwork, source: torch.Generator) -> FittedKoopman:
        spec = (TICA if self.reversible else VAMP)(self.lag, self.states - 1, draws=self.draws)
        found = moments(trajectories, network, self.lag)
        return spec.estimated(found, network, trajectories.time_step, trajectories.unit, seed=source)


@dataclass(frozen=True, eq=False)
class FittedVAMPNet:
    """Trained members; a result is the mixture of theirs with equal weights.

    Attributes
    ----------
    networks
        Bases: frames to memberships.
    heads
        Operators on the outputs of each network, with their posterior.
    scores
        VAMP-2 of each member on the blocks that it left out.
    """

    spec: VAMPNet
    networks: tuple[StateNetwork, ...]
    heads: tuple[FittedKoopman, ...]
    scores: Float[Tensor, " members"]

    def timescales(self, count: int | None = None) -> Draws:
        """Implied timescales from the longest on: draws of all members, so the spread between networks is in it.

        Raises
        ------
        ConvergenceError
            If a draw has an eigenvalue of one or more.
        """
        return self._mixed([head.timescales(self._kept(count)) for head in self.heads])

    def eigenvalues(self, count: int | None = None) -> Draws:
        """Eigenvalues (without ``reversible`` singular values) of all members."""
        return self._mixed([head.eigenvalues(self._kept(count)) for head in self.heads])

    def memberships(self, x: Float[Tensor, "points features"]) -> Draws:
        """Memberships in the states at ``x``, one draw a member; states of all members in the order of the first."""
        from scipy.optimize import linear_sum_assignment

        values = torch.stack([network(torch.as_tensor(x, dtype=torch.float64)) for network in self.networks])
        for k in range(1, len(values)):
            order = linear_sum_assignment(-(values[0].mT @ values[k]).cpu().numpy())[1]
            values[k] = values[k][:, torch.as_tensor(order, device=values.device)]
        return Draws(values[None], unit="")

    def _kept(self, count: int | None) -> int:
        """As many processes as every member has."""
        return min(head.dimensions for head in self.heads) if count is None else count

    @staticmethod
    def _mixed(parts: list[Draws]) -> Draws:
        return Draws(torch.cat([part.values for part in parts], 1), unit=parts[0].unit)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All frames, where the pairs start, and the block of each pair."""

    frames: Float[Tensor, "frames features"]
    starts: Int[Tensor, " pairs"]
    block: Int[Tensor, " pairs"]
    lag: int

    @classmethod
    def of(cls, trajectories: Trajectories, lag: int) -> _Pairs:
        first = [0, *itertools.accumulate(trajectories.lengths)]
        spans = [torch.arange(a, b - lag) for a, b in itertools.pairwise(first) if b - a > lag]
        starts = torch.cat(spans) if spans else torch.empty(0)
        if len(starts) < 10 * _BLOCKS:
            raise ConvergenceError(expected("trajectories", f"at least {10 * _BLOCKS} pairs", len(starts)))
        frames = torch.cat(trajectories.parts)
        block = torch.arange(len(starts)) * _BLOCKS // len(starts)
        return cls(frames, starts.to(frames.device), block.to(frames.device), lag)

    def batches(self, chosen: Bool[Tensor, " pairs"], size: int, source: torch.Generator) -> Iterator[Tensor]:
        """Starts of the chosen pairs in random order, in parts of equal size; what is left over is left out."""
        starts = self.starts[chosen]
        order = torch.randperm(len(starts), generator=source, device=starts.device)
        size = min(size, len(starts))
        return (starts[order[k * size : (k + 1) * size]] for k in range(len(starts) // size))

    def moments(self, network: StateNetwork, starts: Tensor, *, reversible: bool) -> tuple[Tensor, Tensor, Tensor]:
        early, late = network(self.frames[starts]), network(self.frames[starts + self.lag])
        size = len(starts)
        found = early.mT @ early / size, early.mT @ late / size, late.mT @ late / size
        return symmetrised(*found) if reversible else found


def _initial(spec: VAMPNet, frames: Tensor, source: torch.Generator) -> StateNetwork:
    """Weights of variance 1 / inputs, biases zero."""
    sizes = (frames.shape[1], *spec.widths, spec.states)
    numbers: dict[str, Any] = {"generator": source, "dtype": frames.dtype, "device": frames.device}
    weights = tuple(torch.randn(n, m, **numbers) / n**0.5 for n, m in itertools.pairwise(sizes))
    spread = frames.std(0, correction=0)
    scale = torch.where(spread > 0, spread, 1.0)
    return StateNetwork(frames.mean(0), scale, weights, tuple(frames.new_zeros(m) for m in sizes[1:]))


def _loss(found: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Minus the VAMP-2 score, by solves whose gradient needs no eigenvectors."""
    c00, c01, c11 = found
    ridge = _RIDGE * torch.eye(len(c00)).to(c00)
    left = torch.linalg.solve(c00 + ridge, c01)
    return -(left * torch.linalg.solve(c11 + ridge, c01.mT).mT).sum()


def _trained(
    spec: VAMPNet, pairs: _Pairs, source: torch.Generator, advance: Callable[..., None]
) -> tuple[StateNetwork, float]:
    """Network with the best score on the blocks that it leaves out, and this score."""
    left_out = torch.randperm(_BLOCKS, generator=source, device=source.device) < spec.held_out * _BLOCKS
    testing = left_out[pairs.block]
    network = _initial(spec, pairs.frames, source)
    parameters = [*network.weights, *network.biases]
    kept, best, waited = [p.clone() for p in parameters], -torch.inf, 0
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(parameters, lr=spec.learning_rate)
    for epoch in range(spec.epochs):
        for starts in pairs.batches(~testing, spec.batch, source):
            optimiser.zero_grad()
            _loss(pairs.moments(network, starts, reversible=spec.reversible)).backward()
            optimiser.step()
        with torch.no_grad():
            reached = float(score(*pairs.moments(network, pairs.starts[testing], reversible=spec.reversible)))
        advance(note=f"VAMP-2 {reached:.3f}")
        waited += 1
        if reached > best:
            kept, best, waited = [p.detach().clone() for p in parameters], reached, 0
        if waited > _PATIENCE:
            advance(spec.epochs - epoch - 1)
            break
    layers = len(network.weights)
    return StateNetwork(network.shift, network.scale, tuple(kept[:layers]), tuple(kept[layers:])), best
