"""Velocity of identical particles that turns, mirrors and permutes with them, its divergence in closed form."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from bayesmol.errors import DataError, expected

__all__ = ["EquivariantField"]

_SMALL = 1e-6  # added to squared distances: the velocity stays smooth where two particles meet
_FREQUENCIES = 4


class EquivariantField(nn.Module):
    r"""Velocity of N identical particles along the lines between them, with strengths that know the surroundings.

    .. math::
        v_i(t, x) = \frac1N \sum_j (x_i - x_j) \, g(d_{ij}) \cdot [c(h_i, t) + c(h_j, t)], \qquad
        h_i = \frac1N \sum_j g(d_{ij})

    with Gaussians g of the distance at ``radial`` centres and a network c with one hidden layer. The velocity is
    equivariant under rotations, reflections and permutations, does not change under translations and has mean zero.
    With c a function of t alone it is the radial field of Köhler et al.; h is one round of messages.

    One network value a particle, not one a pair, makes it some four times as fast as a network of pairs of the same
    width (13 particles, one core), and the divergence needs no automatic differentiation: when a particle moves, only
    its own distances change.

    Parameters
    ----------
    particles, space
        Number of particles, and dimension of the space in which they move.
    radial
        Number of Gaussians.
    hidden
        Width of the network.
    reach
        Centre of the last Gaussian; beyond it particles do not feel each other.
    source
        Generator of the first weights. The velocity is zero at first.

    Raises
    ------
    DataError
        If there are fewer than two particles, or one-dimensional ones.

    References
    ----------
    Köhler, Klein, Noé, ICML (2020), arXiv:2006.02425; Satorras, Hoogeboom, Welling, ICML (2021), arXiv:2102.09844.
    """

    difference: Tensor
    both: Tensor
    centres: Tensor

    def __init__(
        self,
        particles: int,
        space: int,
        *,
        radial: int = 32,
        hidden: int = 64,
        reach: float = 7.0,
        source: torch.Generator,
    ) -> None:
        super().__init__()
        if particles < 2 or space < 2:
            raise DataError(expected("particles, space", "at least two of each", (particles, space)))
        self.particles, self.space = particles, space
        first, second = torch.triu_indices(particles, particles, 1)
        ends = functional.one_hot(first, particles), functional.one_hot(second, particles)
        self.register_buffer("difference", (ends[0] - ends[1]).to(torch.get_default_dtype()))
        self.register_buffer("both", (ends[0] + ends[1]).to(torch.get_default_dtype()))
        self.register_buffer("centres", torch.linspace(0, reach, radial))
        self.width = reach / (radial - 1)
        clock = 1 + 2 * _FREQUENCIES
        self.surroundings = nn.Parameter(torch.randn(hidden, radial, generator=source) / math.sqrt(radial))
        self.clock = nn.Parameter(torch.randn(hidden, clock + 1, generator=source) / math.sqrt(clock + 1))
        self.strength = nn.Parameter(torch.zeros(radial, hidden))
        self.strength_clock = nn.Parameter(torch.zeros(radial, clock + 1))

    def forward(
        self, t: Float[Tensor, " points"], x: Float[Tensor, "points dimension"]
    ) -> Float[Tensor, "points dimension"]:
        """Velocity of each row at its time."""
        line, _, gaussians = self._pairs(x)
        strength, _ = self._strength(t, gaussians)
        push = (gaussians * (self.both @ strength)).sum(-1, keepdim=True) / self.particles
        return (self.difference.T @ (push * line)).flatten(1)

    def with_divergence(
        self, t: Float[Tensor, " points"], x: Float[Tensor, "points dimension"]
    ) -> tuple[Float[Tensor, "points dimension"], Float[Tensor, " points"]]:
        r"""Velocity of each row and its divergence :math:`\sum_i \partial_{x_i} \cdot v_i`, exact.

        The strength :math:`\varphi_{ij}` of a pair adds :math:`D \varphi_{ij} + (x_i - x_j) \cdot \partial_{x_i}
        \varphi_{ij}` for each of its ends; the second part has the change of g itself, and that of the surroundings
        of either end.
        """
        line, scaled, gaussians = self._pairs(x)
        strength, slope = self._strength(t, gaussians)
        strength = self.both @ strength
        push = (gaussians * strength).sum(-1, keepdim=True) / self.particles
        velocity = (self.difference.T @ (push * line)).flatten(1)
        square = line.square().sum(-1, keepdim=True)
        change = -scaled * gaussians / (self.width * (square + _SMALL).sqrt())
        own = 2 * square * change
        divergence = (2 * self.space * push.squeeze(-1) + (own * strength).sum(-1) / self.particles).sum(1)
        return velocity, divergence + self._through_surroundings(line, gaussians, change, own, slope)

    def _through_surroundings(
        self, line: Tensor, gaussians: Tensor, change: Tensor, own: Tensor, slope: Tensor
    ) -> Tensor:
        """Part of the divergence that comes from strengths that change as their surroundings do."""
        pull = self._vectors(gaussians, line) @ self.strength
        turn = self._vectors(change, line) @ self.surroundings.T
        far = ((pull * turn).sum(1) * slope).sum((1, 2))
        near = (gaussians @ self.strength) * (own @ self.surroundings.T)
        return (far + (near * (self.both @ slope)).sum((1, 2)) / 2) / self.particles**2

    def _vectors(self, weights: Tensor, line: Tensor) -> Tensor:
        """Sum of the weighted lines to each particle, axes (points, space, particle, radial)."""
        return self.difference.T @ (line.mT[..., None] * weights[:, None])

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Line, scaled distances from the centres, and Gaussians of each pair."""
        line = self.difference @ x.reshape(len(x), self.particles, self.space)
        distance = (line.square().sum(-1, keepdim=True) + _SMALL).sqrt()
        scaled = (distance - self.centres) / self.width
        return line, scaled, (-scaled.square() / 2).exp()

    def _strength(self, t: Tensor, gaussians: Tensor) -> tuple[Tensor, Tensor]:
        """Strength c of each particle, and the slopes of its hidden units."""
        angle = math.pi * t[:, None] * torch.arange(1, _FREQUENCIES + 1, device=t.device)
        clock = torch.cat([torch.ones_like(t[:, None]), t[:, None], angle.sin(), angle.cos()], 1)
        around = self.both.T @ gaussians / self.particles
        inner = around @ self.surroundings.T + (clock @ self.clock.T)[:, None]
        gate = inner.sigmoid()
        strength = (inner * gate) @ self.strength.T + (clock @ self.strength_clock.T)[:, None]
        return strength, gate * (1 + inner * (1 - gate))
