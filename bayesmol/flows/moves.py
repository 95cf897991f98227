"""Noisy moves of rows in an energy, differentiable in their step, with the weight of the way back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bayesmol.errors import DataError, expected
from bayesmol.inference.trajectories import wrapped

__all__ = ["Energy", "Langevin", "Metropolis", "Move"]

Energy = Callable[[Float[Tensor, "points dimension"]], Float[Tensor, " points"]]


class Move(NamedTuple):
    """Rows after some moves, :math:`\\Delta S` of each, and the log-probability of what was accepted and rejected."""

    rows: Tensor
    entropy: Tensor
    chance: Tensor


class Langevin(nn.Module):
    r"""Steps of overdamped Langevin dynamics in an interpolated energy.

    .. math:: y' = y - \varepsilon \nabla u_\lambda(y) + \sqrt{2 \varepsilon}\,\eta, \qquad
              \Delta S = -\tfrac12 (|\tilde\eta|^2 - |\eta|^2), \qquad
              \tilde\eta = \sqrt{\varepsilon / 2}\,[\nabla u_\lambda(y) + \nabla u_\lambda(y')] - \eta

    Any step length is right, as the weights of the paths know it.

    Parameters
    ----------
    share
        :math:`\lambda`, see :class:`~bayesmol.flows.stochastic.StochasticFlow`.
    steps, step
        Number of steps, and :math:`\varepsilon` at the start of training.

    References
    ----------
    Wu, Köhler, Noé, NeurIPS 33 (2020) (arXiv:2002.06707).
    """

    def __init__(self, share: float, *, steps: int = 10, step: float = 0.01) -> None:
        super().__init__()
        self.share, self.steps = _checked(share, steps, step), steps
        self.log_step = nn.Parameter(torch.tensor(math.log(step)))

    @property
    def evaluations(self) -> int:
        """Energies of a row."""
        return self.steps + 1

    def forward(self, rows: Tensor, energy: Energy, circular: Tensor | None, source: torch.Generator) -> Move:
        """Rows after all steps."""
        size, entropy = self.log_step.exp().to(rows), rows.new_zeros(len(rows))
        _, slope = _differentiated(energy, rows)
        for _ in range(self.steps):
            noise = _normal(rows, source)
            rows = wrapped(rows - size * slope + (2 * size).sqrt() * noise, circular)
            _, ahead = _differentiated(energy, rows)
            back = (size / 2).sqrt() * (slope + ahead) - noise
            entropy = entropy - (back.square() - noise.square()).sum(1) / 2
            slope = ahead
        return Move(rows, entropy, torch.zeros_like(entropy))


class Metropolis(nn.Module):
    r"""Hamiltonian Monte Carlo in an interpolated energy: :math:`\Delta S = u_\lambda(y') - u_\lambda(y)`.

    With one leapfrog step a trajectory is a Metropolis-adjusted Langevin step (MALA). Detailed balance makes the weight
    independent of the step length and of what was rejected.

    Parameters
    ----------
    share
        :math:`\lambda`, see :class:`~bayesmol.flows.stochastic.StochasticFlow`.
    steps, leapfrogs, step
        Trajectories, leapfrog steps of each, and their length at the start of training.

    References
    ----------
    Wu, Köhler, Noé, NeurIPS 33 (2020) (arXiv:2002.06707).
    """

    def __init__(self, share: float, *, steps: int = 5, leapfrogs: int = 1, step: float = 0.2) -> None:
        super().__init__()
        self.share, self.steps, self.leapfrogs = _checked(share, min(steps, leapfrogs), step), steps, leapfrogs
        self.log_step = nn.Parameter(torch.tensor(math.log(step)))

    @property
    def evaluations(self) -> int:
        """Energies of a row."""
        return self.steps * self.leapfrogs + 1

    def forward(self, rows: Tensor, energy: Energy, circular: Tensor | None, source: torch.Generator) -> Move:
        """Rows after all trajectories."""
        size, entropy, chance = self.log_step.exp().to(rows), rows.new_zeros(len(rows)), rows.new_zeros(len(rows))
        level, slope = _differentiated(energy, rows)
        for _ in range(self.steps):
            momentum = _normal(rows, source)
            kinetic, end, height, ahead = momentum.square().sum(1) / 2, rows, level, slope
            for _ in range(self.leapfrogs):
                momentum = momentum - size / 2 * ahead
                end = wrapped(end + size * momentum, circular)
                height, ahead = _differentiated(energy, end)
                momentum = momentum - size / 2 * ahead
            # Where both energies are infinite nothing is gained, and the trajectory is rejected.
            rise = height + momentum.square().sum(1) / 2 - level - kinetic
            rise = torch.nan_to_num(rise, math.inf, math.inf, -math.inf)
            accept = torch.exp(-rise.clamp_min(0.0))
            taken = torch.rand(accept.shape, generator=source, dtype=accept.dtype, device=accept.device) < accept
            # What the other choice would have been has no place in the gradient, where it may be infinite.
            refused = torch.where(taken, 0.5, accept).clamp_max(1 - 1e-6)
            agreed = -torch.where(taken, rise, 0.0).clamp_min(0.0)
            chance = chance + torch.where(taken, agreed, torch.log1p(-refused))
            entropy = entropy + torch.where(taken, height - level, 0.0)
            wide = taken.unsqueeze(1)
            rows, slope = torch.where(wide, end, rows), torch.where(wide, ahead, slope)
            level = torch.where(taken, height, level)
        return Move(rows, entropy, chance)


def _differentiated(energy: Energy, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Energy and gradient, zero where it is not finite: any drift is right, as its moves are weighed or accepted."""
    followed = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = rows if followed and rows.requires_grad else rows.detach().requires_grad_()
        value = energy(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=followed)
    slope = torch.where(torch.isfinite(slope).all(1, keepdim=True), slope, 0.0)
    return (value, slope) if followed else (value.detach(), slope)


def _normal(rows: Tensor, source: torch.Generator) -> Tensor:
    return torch.randn(rows.shape, generator=source, dtype=rows.dtype, device=rows.device)


def _checked(share: float, steps: int, step: float) -> float:
    if not (0 <= share <= 1 and steps >= 1 and step > 0):
        raise DataError(expected("share, steps, step", "a share from 0 to 1, positive numbers", (share, steps, step)))
    return share
