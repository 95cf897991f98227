"""A flow is matched to a density that is known at the draws of an earlier state of the flow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.counted import Counted
from bayesmol.flows.defensive import Defensive
from bayesmol.flows.flow import Flow
from bayesmol.inference.annealing import SequentialMonteCarlo

__all__ = ["Drawn", "annealed_draws", "drawn", "matching_loss", "stage"]

_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Drawn:
    """Draws x of a mixture of a flow with a broader copy of itself.

    Attributes
    ----------
    log_pi, log_q, energy
        Log-density of mixture and flow, and reduced energy of each row, in float64.
    """

    x: Float[Tensor, "points dimension"]
    log_pi: Float[Tensor, " points"]
    log_q: Float[Tensor, " points"]
    energy: Float[Tensor, " points"]


@torch.no_grad()
def drawn(flow: Flow, target: Counted, size: int, share: float, source: torch.Generator) -> Drawn:
    """Draws of the mixture of the flow with ``share`` of its broader copy."""
    mixture = Defensive(flow, share=share)
    parts = []
    for start in range(0, size, _CHUNK):
        x, log_pi = mixture.sample(min(_CHUNK, size - start), seed=source)
        parts.append((x, log_pi.double(), flow.log_prob(x).double()))
    x, log_pi, log_q = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return Drawn(x, log_pi, log_q, target.reduced_energy(x))


def stage(draws: Drawn, log_next: Float[Tensor, " points"]) -> dict[str, Tensor]:
    r"""Data for :func:`matching_loss`: rows, weights :math:`q' / \pi` of mean one, and the density of the draws.

    Parameters
    ----------
    log_next
        Log-density q' up to a constant; minus infinity where the energy is infinite.
    """
    weights = (log_next - draws.log_pi).softmax(0) * len(log_next)
    # Draws of the flow itself are draws of the mixture with weights q / pi, which are bounded.
    base, ratio = (draws.log_q - draws.log_pi).log_softmax(0), -draws.energy - draws.log_q
    share = (2 * (base + ratio).logsumexp(0) - (base + 2 * ratio).logsumexp(0)).exp()
    return {"x": draws.x, "weights": weights.to(draws.x), "log_pi": draws.log_pi.to(draws.x), "reverse_ess": share}


def matching_loss(
    flow: Flow, data: dict[str, Tensor], batch: int, clip: float, source: torch.Generator
) -> Float[Tensor, ""]:
    r"""Divergence of unnormalised densities on a batch, :math:`\langle w \log (w / v) - w + v \rangle_\pi`.

    Here :math:`w = q'/\pi` and :math:`v = q_\theta/\pi`. Its gradient, :math:`\langle (v - w)\, \partial_\theta \log
    q_\theta \rangle`, has the mean of that of the forward divergence, because the score has mean zero under
    :math:`q_\theta`; and it is zero for each draw where the two densities are the same.

    Parameters
    ----------
    clip
        Both weights are clipped there in the gradient, which leaves the minimum where it is.
    """
    rows = torch.randint(len(data["x"]), (batch,), generator=source, device=data["x"].device)
    log_q = flow.log_prob(data["x"][rows])
    weights, log_v = data["weights"][rows], (log_q - data["log_pi"][rows]).detach()
    v = log_v.exp()
    value = torch.xlogy(weights, weights) - weights * log_v - weights + v
    pull = v.clamp(max=clip) - weights.clamp(max=clip)
    return value.mean() + (pull * (log_q - log_q.detach())).mean()


class _Start:
    """The base as a proposal: where a new flow, the identity, starts."""

    def __init__(self, base: GaussianUniform, dtype: torch.dtype) -> None:
        self.base, self.dtype, self.dimension, self.circular = base, dtype, base.dimension, base.circular

    def log_prob(self, x: Tensor) -> Tensor:
        return self.base.log_prob(x)

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        x = self.base.sample(size, seed=seed, dtype=self.dtype)
        return x, self.base.log_prob(x)


def annealed_draws(
    flow: Flow, target: Counted, size: int, source: torch.Generator
) -> Float[Tensor, "points dimension"]:
    """Draws of the target by sequential Monte Carlo from the base: they know nothing of what the flow has learned.

    The number is rounded up to a multiple of 16.
    """
    particles = SequentialMonteCarlo(particles=-(-size // 16) * 16, islands=16).fit(
        _Start(flow.base, flow.dtype), target, seed=source
    )
    rows, weights = particles.rows.flatten(0, 1), particles.log_weights.flatten().softmax(0)
    return rows[torch.multinomial(weights, len(rows), replacement=True, generator=source)]
