"""What a flow is trained to: forward and reverse Kullback-Leibler divergence, their mixture, the log-variance."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Proposal, Target
from bayesmol.flows.training import Training, train
from bayesmol.inference.importance import effective_size

__all__ = ["ForwardKL", "LogVariance", "MixedKL", "ReverseKL", "forward_loss", "path_loss"]

_LOOKED = 4000


def forward_loss(
    flow: Proposal, x: Float[Tensor, "points dimension"], weights: Float[Tensor, " points"] | None = None
) -> Float[Tensor, ""]:
    r"""Forward divergence up to a constant, :math:`-\sum_i w_i \log q(x_i) / n`, on draws of the target."""
    log_q = flow.log_prob(x)
    return -(log_q if weights is None else weights.to(log_q) * log_q).mean()


def path_loss(
    flow: Flow, target: Counted, size: int, source: torch.Generator, *, temperature: float | Tensor = 1.0
) -> tuple[Float[Tensor, ""], Float[Tensor, " size"]]:
    r"""A number whose gradient is the path gradient of the reverse divergence, and log-weights of the draws.

    .. math:: \nabla_\theta \, \mathrm{KL}(q \| p) = \Big\langle \frac{\partial}{\partial x}
              \left[ \log q_\theta(x) + u(x)/T \right] \frac{\partial x}{\partial \theta} \Big\rangle,
              \qquad x = f_\theta^{-1}(z)

    The mean of the omitted term, :math:`\langle \partial_\theta \log q_\theta \rangle_q`, is zero, and without it the
    gradient of each draw is zero where q = p. Draws without a finite energy are left out.

    Parameters
    ----------
    temperature
        T, relative to that of the target.

    References
    ----------
    Roeder, Wu, Duvenaud, NeurIPS (2017); Vaitl, Nicoli, Nakajima, Kessel, ICML (2022).
    """
    x, log_q = flow.sample(size, seed=source)
    energy, gradient = target.reduced_gradient(x)
    leaf = x.detach().requires_grad_()
    (score,) = torch.autograd.grad(flow.log_prob(leaf).sum(), leaf)
    slope = score + gradient / temperature
    known = torch.isfinite(energy) & torch.isfinite(slope).all(1)
    slope = torch.where(known[:, None], slope, 0.0)
    # Where no row is known the mean is NaN, and the step is skipped.
    return (slope * torch.where(known[:, None], x, 0.0)).sum() / known.sum(), -energy - log_q.detach()


@dataclass(frozen=True)
class ReverseKL:
    r"""Reverse divergence :math:`\mathrm{KL}(q \| p) + \log Z = \langle u(x) + \log q(x) \rangle_q`: energies only.

    It loses modes silently: a mode without draws has no gradient. Prefer
    :class:`~bayesmol.flows.transport.ConstrainedMassTransport`.

    Attributes
    ----------
    cut
        Above this reduced energy the gradient is that of its logarithm.

    References
    ----------
    Noé, Olsson, Köhler, Wu, Science 365, eaaw1147 (2019).
    """

    optimisation: Optimisation = field(default_factory=Optimisation)
    cut: float = 1e8
    rounds: ClassVar[int] = 1

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
        """Nothing is kept from step to step."""
        return data

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """A number with the path gradient."""
        loss, log_weights = path_loss(flow, target, self.optimisation.batch, source)
        return loss, log_weights.new_tensor(_share(log_weights))


@dataclass(frozen=True)
class MixedKL:
    r"""Weighted sum of forward divergence on samples and reverse divergence on the energy.

    .. math:: w_f \, \mathrm{KL}(p \| q) + w_r \, \mathrm{KL}(q \| p)

    Samples that are too few for a flow are completed by the energy, which in turn is held at all modes by the samples.

    Attributes
    ----------
    forward, reverse
        The weights, not negative. Samples by the hundred are soon learned by heart: give them a tenth or less.
    held_out
        Share of the samples, the last ones but not more than 4000, that no step sees: they tell which weights are best.
    cut
        Above this reduced energy the gradient of the reverse part is that of its logarithm.

    References
    ----------
    Noé, Olsson, Köhler, Wu, Science 365, eaaw1147 (2019).
    """

    optimisation: Optimisation = field(default_factory=Optimisation)
    forward: float = 1.0
    reverse: float = 1.0
    held_out: float = 0.1
    cut: float = 1e8
    rounds: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if min(self.forward, self.reverse) < 0 or self.forward + self.reverse == 0:
            raise DataError(expected("forward, reverse", "weights, not both zero", (self.forward, self.reverse)))
        if not 0 <= self.held_out < 1:
            raise DataError(expected("held_out", "a share from 0 to below 1", self.held_out))

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        log_weights: Float[Tensor, " points"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters in place.

        Parameters
        ----------
        samples, log_weights
            Draws of the target in the order in which they were made, and their log-weights if they have any.

        Raises
        ------
        DataError, ShapeError
            If there are no samples, or they do not fit the flow.
        """
        if samples is None:
            raise DataError(expected("samples", "draws of the target", None, "without any: ConstrainedMassTransport"))
        x = checked_samples(samples, flow)
        weights = torch.ones(len(x)) if log_weights is None else log_weights.double().softmax(0) * len(x)
        kept = len(x) - min(int(self.held_out * len(x)), _LOOKED)
        data = {"x": x[:kept], "weights": weights[:kept].to(x)}
        options: dict[str, Any] = {"data": data, "cut": self.cut, "seed": seed, "checkpoint": checkpoint}
        if len(x) > kept:
            options["held_out"] = lambda target, source: _equal(x[kept:], weights[kept:], source)
        return train(self, flow, target, **options)

    refresh = ReverseKL.refresh

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Weighted sum on one batch of samples and one of draws of the flow."""
        batch, (x, weights) = self.optimisation.batch, (data["x"], data["weights"])
        total, share = x.new_zeros(()), None
        if self.forward:
            rows = torch.randint(len(x), (batch,), generator=source, device=x.device)
            total = total + self.forward * forward_loss(flow, x[rows], weights[rows])
        if self.reverse:
            loss, log_weights = path_loss(flow, target, batch, source)
            total, share = total + self.reverse * loss, log_weights.new_tensor(_share(log_weights))
        return total, share


@dataclass(frozen=True)
class ForwardKL(MixedKL):
    r"""Forward divergence on samples, :math:`-\sum_i w_i \log q(x_i)`: maximum likelihood."""

    forward: float = field(default=1.0, init=False)
    reverse: float = field(default=0.0, init=False)


@dataclass(frozen=True)
class LogVariance(ReverseKL):
    r"""Variance of :math:`\log q(x) + u(x)` over draws of the flow: zero, and without noise, where q = p.

    Needs no gradient of the energy. Like the reverse divergence it does not see a mode without draws; it is for the
    last steps of a flow that is already near.

    References
    ----------
    Richter, Boustati, Nüsken, Ruiz, Akyildiz, NeurIPS (2020).
    """

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Half of the variance over the draws with a finite energy; its gradient is that of the divergence."""
        with torch.no_grad():
            x, drawn = flow.sample(self.optimisation.batch, seed=source)
        energy = target.reduced_energy(x)
        known = torch.isfinite(energy)
        log_q = flow.log_prob(x[known])
        excess = log_q + target.regularised(energy[known]).to(log_q)
        log_weights = -energy - drawn
        return excess.var() / 2, log_weights.new_tensor(_share(log_weights))


def checked_samples(samples: Float[Tensor, "points dimension"], flow: Flow) -> Float[Tensor, "points dimension"]:
    """Samples in the type and on the device of the flow.

    Raises
    ------
    ShapeError, DataError
        If they do not fit the flow, are fewer than two, or not finite.
    """
    if samples.ndim != 2 or samples.shape[1] != flow.dimension or len(samples) < 2:
        raise ShapeError(expected("samples", f"(2 or more, {flow.dimension})", tuple(samples.shape)))
    if not bool(torch.isfinite(samples).all()):
        raise DataError(expected("samples", "finite numbers", "NaN or infinity"))
    return samples.to(next(flow.parameters()))


def _equal(x: Tensor, weights: Tensor, source: torch.Generator) -> Tensor:
    """As many rows, drawn by their weights; the same ones where these are equal."""
    if bool((weights == weights[0]).all()):
        return x
    return x[torch.multinomial(weights.to(x.device), len(x), replacement=True, generator=source)]


def _share(log_weights: Float[Tensor, " points"]) -> float:
    """Reverse effective sample size as a fraction; not a number if there is no weight at all."""
    return effective_size(log_weights).fraction if bool((log_weights > -math.inf).any()) else math.nan
