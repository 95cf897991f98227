"""Constrained mass transport: a flow is led from its broad start to the target in steps of bounded length."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.matching import annealed_draws, drawn, matching_loss, stage
from bayesmol.flows.objectives import checked_samples, path_loss
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Target
from bayesmol.flows.training import Training, train

__all__ = ["ConstrainedMassTransport", "transported"]


def transported(
    log_q: Float[Tensor, " points"],
    energy: Float[Tensor, " points"],
    log_base: Float[Tensor, " points"],
    trust: float,
    entropy: float,
) -> tuple[float, float]:
    r"""Multipliers of the next density on the way from q to :math:`p \propto e^{-u}`.

    The density q' nearest to p with :math:`\mathrm{KL}(q' \| q) \le \epsilon` and :math:`H(q) - H(q') \le \epsilon_H`
    is

    .. math:: q' \propto q^{\lambda b}\, e^{-b u}, \qquad b = 1 / (1 + \lambda + \eta),

    where :math:`\lambda, \eta \ge 0` maximise the concave dual

    .. math:: g = -(1 + \lambda + \eta) \log Z - \lambda \epsilon + \eta (H(q) - \epsilon_H), \qquad
              Z = \langle e^{-bu} q^{\lambda b - 1} \rangle_q.

    Parameters
    ----------
    log_q, energy
        Of the same draws, which may come from another density.
    log_base
        Log-weights of the draws as draws of q; zero if they are.
    trust, entropy
        :math:`\epsilon` and :math:`\epsilon_H`, in nats.

    Raises
    ------
    DataError
        If fewer than two draws have a finite energy.

    References
    ----------
    Constrained Mass Transport (arXiv:2510.18460).
    """
    from scipy.optimize import minimize

    if int((known := torch.isfinite(energy) & torch.isfinite(log_base)).sum()) < 2:
        raise DataError(expected("energy", "at least two finite energies among the draws", int(known.sum())))
    log_q, u, base = (value.double().cpu() for value in (log_q, energy, log_base.log_softmax(0)))
    current = -float((base.exp() * log_q).sum())
    log_q, u, base = (value[known.cpu()] for value in (log_q, u, base))

    def negative(position: Any) -> tuple[float, list[float]]:
        lam, eta = (math.expm1(float(p)) for p in position)
        b = 1 / (1 + lam + eta)
        exponents = base - b * u + (lam * b - 1) * log_q
        log_z = float(exponents.logsumexp(0))
        share, log_next = exponents.softmax(0), b * (lam * log_q - u) - log_z
        entropy_now = -float((share * log_next).sum())
        slopes = (-entropy_now - float((share * log_q).sum()) - trust, current - entropy_now - entropy)
        value = -log_z / b - lam * trust + eta * (current - entropy)
        return -value, [-slope * math.exp(float(p)) for slope, p in zip(slopes, position, strict=True)]

    # Logarithms of the multipliers, which are thousands where the energy is far from its values at equilibrium.
    best = minimize(negative, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0.0, 30.0)] * 2, tol=1e-12)
    lam, eta = (math.expm1(float(p)) for p in best.x)
    return lam, eta


@dataclass(frozen=True)
class ConstrainedMassTransport:
    r"""Energy-only training in rounds, each of which takes the flow a bounded step towards the target.

    A round draws rows from the flow, solves for the next density (:func:`transported`), and fits the flow to it:

    .. math:: f \left\langle w \log \frac{w}{v} - w + v \right\rangle_\pi + r\, \mathrm{KL}(q_\theta \| p^{1/(1+\eta)}),
              \qquad w = q' / \pi, \; v = q_\theta / \pi.

    The first term is the divergence :math:`\mathrm{KL}(q' \| q_\theta)` with a control variate: it has no noise where
    the flow is right, and on few draws it cannot be made small by density that piles up on them. The second, with path
    gradients, uses the slope of the energy, at a temperature raised by the multiplier of the entropy. Draws are from
    :math:`\pi`, the flow mixed with a broader copy of itself. Where both multipliers have come to zero, q' is the
    target, and the rounds go on as self-improvement.

    Attributes
    ----------
    rounds, draws
        Number of rounds, which share the budget equally, and draws of each.
    trust, entropy
        Largest divergence :math:`\mathrm{KL}(q' \| q)` and loss of entropy of a step, in nats.
    forward, reverse
        f and r. With r = 0 no slope of the energy is used in the steps; on four pairs of double wells, one seed, this
        was also the better choice at equal CPU time.
    share
        Part of the draws that come from the broader copy.
    clip
        Weights w and v are clipped at this value, that is at a number of times their mean.
    held_out
        Annealed draws of the target, made from the base and not from the flow, on which the forward effective sample
        size is taken if there are no samples; 0 for none.
    cut
        Above this reduced energy the gradient of the second term is that of its logarithm.

    References
    ----------
    Constrained Mass Transport (arXiv:2510.18460); Hesterberg, Technometrics 37, 185 (1995) (defensive mixtures).
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=5e-3, batch=256))
    rounds: int = 30
    draws: int = 4000
    trust: float = 0.3
    entropy: float = 0.3
    forward: float = 1.0
    reverse: float = 0.0
    share: float = 0.2
    clip: float = 10.0
    held_out: int = 1024
    cut: float = 1e8

    def __post_init__(self) -> None:
        if min(self.rounds, self.draws, self.trust, self.entropy, self.forward, self.clip) <= 0:
            raise DataError(expected("rounds, draws, trust, entropy, forward, clip", "positive numbers", self))
        if not 0 < self.share < 1 or min(self.reverse, self.held_out) < 0:
            raise DataError(expected("share, reverse, held_out", "a share below 1, and no negative numbers", self))

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters in place; ``samples`` of the target only tell the forward effective sample size.

        Raises
        ------
        ConvergenceError
            If too many losses in a row are not finite.
        """
        held_out = None
        if samples is not None:
            rows = checked_samples(samples, flow)
            held_out = lambda target, source: rows  # noqa: E731
        elif self.held_out:
            held_out = lambda target, source: annealed_draws(flow, target, self.held_out, source)  # noqa: E731
        return train(self, flow, target, cut=self.cut, held_out=held_out, seed=seed, checkpoint=checkpoint)

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Draws of the round, and weights that make them draws of the next density."""
        draws = drawn(flow, target, self.draws, self.share, source)
        lam, eta = transported(draws.log_q, draws.energy, draws.log_q - draws.log_pi, self.trust, self.entropy)
        log_next = (lam * draws.log_q - draws.energy) / (1 + lam + eta)
        return stage(draws, log_next) | {"temperature": log_next.new_tensor(1 + eta)}

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Loss of one batch of the round's draws, and of one of new draws for the second term."""
        batch = self.optimisation.batch
        total = self.forward * matching_loss(flow, data, batch, self.clip, source)
        if self.reverse:
            total = total + self.reverse * path_loss(flow, target, batch, source, temperature=data["temperature"])[0]
        return total, data["reverse_ess"]
