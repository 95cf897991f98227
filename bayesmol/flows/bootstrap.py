r"""Flow annealed importance sampling bootstrap: a flow learns from annealed draws where it has too little density."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.objectives import checked_samples
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Target
from bayesmol.flows.training import Training, train
from bayesmol.inference.annealing import AnnealedImportance
from bayesmol.inference.trajectories import differentiated

__all__ = ["AnnealedBootstrap"]


class _Squared:
    r"""The density :math:`p^2 / q`, which is large where the flow misses mass."""

    def __init__(self, flow: Flow, target: Counted) -> None:
        self.flow, self.target, self.dimension, self.circular = flow, target, target.dimension, flow.base.circular

    def reduced_energy(self, x: Tensor) -> Tensor:
        return 2 * self.target.reduced_energy(x) + self.flow.log_prob(x).detach()

    def reduced_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        energy, slope = self.target.reduced_gradient(x)
        log_q, score = differentiated(self.flow.log_prob, x)
        return 2 * energy + log_q, 2 * slope + score


@dataclass(frozen=True)
class AnnealedBootstrap:
    r"""Minimise :math:`\langle p^2 / q^2 \rangle_q`, the variance of the weights, with annealed draws from a buffer.

    .. math:: \nabla_\theta D_2 \propto -\langle \partial_\theta \log q_\theta(x) \rangle_g, \quad
              g \propto p^2 / q_\theta

    Each round anneals from q to g and puts the ends of the paths with their weights into a buffer. Steps draw from
    the buffer by weight; because :math:`q_\theta` has moved since, a draw counts by
    :math:`q_{\mathrm{old}} / q_\theta`, clipped, and its weight in the buffer is renewed by the same factor.

    Attributes
    ----------
    rounds, particles, buffer
        Number of rounds, which share the budget equally; paths of each; draws that are kept, the newest.
    leapfrogs, overlap
        Of :class:`~bayesmol.inference.annealing.AnnealedImportance`.
    clip
        Largest correction of a weight.
    cut
        Above this reduced energy the gradient is that of its logarithm.

    References
    ----------
    Midgley, Stimper, Simm, Schölkopf, Hernández-Lobato, ICLR (2023) (arXiv:2208.01893).
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=2e-3, batch=256))
    rounds: int = 100
    particles: int = 256
    buffer: int = 16_384
    leapfrogs: int = 3
    overlap: float = 0.5
    clip: float = 10.0
    cut: float = 1e8

    def __post_init__(self) -> None:
        if min(self.rounds, self.particles, self.leapfrogs, self.clip) <= 0 or self.buffer < self.particles:
            raise DataError(expected("rounds, particles, buffer, leapfrogs, clip", "positive, buffer the larger", self))

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters in place; ``samples`` of the target only tell the forward effective sample size."""
        held_out = None if samples is None else lambda target, source: checked_samples(samples, flow)
        return train(self, flow, target, cut=self.cut, held_out=held_out, seed=seed, checkpoint=checkpoint)

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """The buffer with the draws of one more annealing."""
        sampler = AnnealedImportance(self.particles, overlap=self.overlap, leapfrogs=self.leapfrogs)
        particles = sampler.fit(flow, _Squared(flow, target), seed=source)
        x, log_weights = particles.rows.flatten(0, 1), particles.log_weights.flatten()
        with torch.no_grad():
            fresh = {"x": x, "log_weights": log_weights, "log_q": flow.log_prob(x).double()}
        alive = torch.isfinite(log_weights)
        return {
            name: torch.cat([*([data[name]] if name in data else []), value[alive]])[-self.buffer :]
            for name, value in fresh.items()
        }

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Minus the mean log-density of draws from the buffer; renews their weights."""
        chances = data["log_weights"].softmax(0)
        rows = torch.multinomial(chances, self.optimisation.batch, replacement=True, generator=source)
        log_q = flow.log_prob(data["x"][rows])
        now = log_q.detach().double()
        correction = data["log_q"][rows] - now
        data["log_weights"][rows] += correction
        data["log_q"][rows] = now
        return -(correction.exp().clamp(max=self.clip).to(log_q) * log_q).mean(), None
