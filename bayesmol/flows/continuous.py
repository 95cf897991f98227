"""Continuous flows of identical particles: a Gaussian cloud carried to a density by an equivariant velocity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from nflows.transforms.base import Transform
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.equivariant import EquivariantField
from bayesmol.flows.flow import Flow
from bayesmol.inference.random import generator
from bayesmol.inference.trajectories import centred

__all__ = ["Continuous", "ContinuousFlow", "Integration", "MeanFreeGaussian", "integration"]

_CHUNK = 2**14  # pairs of particles that are integrated at once where no gradient is taken: they stay in the cache


class MeanFreeGaussian(nn.Module):
    r"""Standard normal particles with their centre at zero.

    .. math:: \log q_0(z) = -\tfrac12 |z - \bar z|^2 - \tfrac{(N-1) D}{2} \log 2\pi

    is their density in orthonormal coordinates of the (N − 1) D-dimensional space of centred configurations.
    """

    _place: Tensor

    def __init__(self, particles: int, space: int) -> None:
        super().__init__()
        self.particles, self.space, self.dimension = particles, space, particles * space
        self.register_buffer("_place", torch.zeros(()))

    def log_prob(self, z: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each row, without its centre."""
        constant = (self.particles - 1) * self.space / 2 * math.log(2 * math.pi)
        return -centred(z, self.space).square().sum(1) / 2 - constant

    def sample(
        self, size: int, *, seed: int | torch.Generator, dtype: torch.dtype | None = None
    ) -> Float[Tensor, "size dimension"]:
        """Independent centred rows."""
        source = generator(seed, self._place.device)
        shape = (size, self.dimension)
        return centred(torch.randn(shape, generator=source, device=self._place.device, dtype=dtype), self.space)


class Integrated(Transform):
    r"""The end of a motion :math:`\dot x = v(t, x)` from t = 0 to 1, times a length: ``inverse`` maps z to x.

    Runge and Kutta's method of order four with ``steps`` equal steps; the log-determinant is the integral of the exact
    divergence at the ends of the steps by Simpson's rule. :func:`integration` says how large the errors are.

    Parameters
    ----------
    steps
        An even number.
    """

    def __init__(self, field: EquivariantField, steps: int) -> None:
        super().__init__()
        if steps < 2 or steps % 2:
            raise DataError(expected("steps", "an even number", steps))
        self.field, self.steps = field, steps
        self.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Latent rows of configurations, whose centre is removed, and the log-determinant."""
        self._check(inputs)
        x = centred(inputs, self.field.space) * (-self.log_scale).exp()
        z, volume = self._moved(x, backwards=True)
        return z, volume - self._freedom * self.log_scale

    def inverse(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Configurations of latent rows, and the log-determinant."""
        self._check(inputs)
        x, volume = self._moved(inputs, backwards=False)
        return x * self.log_scale.exp(), volume + self._freedom * self.log_scale

    @property
    def _freedom(self) -> int:
        return (self.field.particles - 1) * self.field.space

    def _check(self, rows: Tensor) -> None:
        dimension = self.field.particles * self.field.space
        if rows.ndim != 2 or rows.shape[1] != dimension:
            raise ShapeError(expected("rows", f"(points, {dimension})", tuple(rows.shape)))
        if not bool(torch.isfinite(rows).all()):
            raise DataError(expected("rows", "finite numbers", "NaN or infinity"))

    def _moved(self, rows: Tensor, *, backwards: bool) -> tuple[Tensor, Tensor]:
        pairs = self.field.particles * (self.field.particles - 1) // 2
        size = len(rows) if torch.is_grad_enabled() else max(1, _CHUNK // pairs)
        ends = [self._path(part, backwards) for part in rows.split(max(1, size))]
        found, volumes = zip(*ends, strict=True)
        return torch.cat(found), torch.cat(volumes)

    def _path(self, x: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
        step = (-1 if backwards else 1) / self.steps
        start, volume = (1.0 if backwards else 0.0), x.new_zeros(len(x))
        for k in range(self.steps):
            t = x.new_full((len(x),), start + k * step)
            if torch.is_grad_enabled():
                # A graph of all stages of all steps takes some 20 MB a row; computed again, that of one step.
                x, divergence = checkpoint(self._step, t, x, step, use_reentrant=False, preserve_rng_state=False)
            else:
                x, divergence = self._step(t, x, step)
            volume = volume + (1 if k == 0 else 4 if k % 2 else 2) * divergence
        _, divergence = self.field.with_divergence(x.new_full((len(x),), start + self.steps * step), x)
        return x, (volume + divergence) * step / 3

    def _step(self, t: Tensor, x: Tensor, step: float) -> tuple[Tensor, Tensor]:
        """Rows after a step, and the divergence before it."""
        first, divergence = self.field.with_divergence(t, x)
        second = self.field(t + step / 2, x + step / 2 * first)
        third = self.field(t + step / 2, x + step / 2 * second)
        fourth = self.field(t + step, x + step * third)
        return x + step / 6 * (first + 2 * second + 2 * third + fourth), divergence


class ContinuousFlow(Flow):
    """Density of centred configurations that are where an equivariant velocity has carried a Gaussian cloud.

    It does not change under rotations, reflections and permutations, nor under translations, since the centre of a
    configuration is removed; its measure is that of orthonormal coordinates of centred configurations. Draws and
    densities are differentiable, which takes memory and twice the time: call them without gradients, or freeze the
    weights (``flow.requires_grad_(False)``), where none are wanted.

    References
    ----------
    Chen, Rubanova, Bettencourt, Duvenaud, NeurIPS (2018), arXiv:1806.07366; Köhler, Klein, Noé, ICML (2020),
    arXiv:2006.02425.
    """

    def __init__(self, field: EquivariantField, steps: int) -> None:
        nn.Module.__init__(self)
        self.base, self.transform = MeanFreeGaussian(field.particles, field.space), Integrated(field, steps)


@dataclass(frozen=True)
class Continuous:
    """Architecture of a continuous flow of identical particles.

    Attributes
    ----------
    radial, hidden
        Size of the velocity field, see :class:`~bayesmol.flows.equivariant.EquivariantField`.
    steps
        Steps of the integration.
    """

    radial: int = 32
    hidden: int = 64
    steps: int = 20

    def build(self, particles: int, space: int, *, seed: int | torch.Generator) -> ContinuousFlow:
        """A flow that does not yet move anything."""
        field = EquivariantField(
            particles, space, radial=self.radial, hidden=self.hidden, source=generator(seed, "cpu")
        )
        return ContinuousFlow(field, self.steps)


@dataclass(frozen=True)
class Integration:
    """Errors of the integration of a continuous flow, over draws of the flow.

    Attributes
    ----------
    round_trip
        Largest change of a coordinate of the latent row, there and back: its 99.9 % quantile.
    centre
        Largest distance of a centre of a draw from zero along an axis.
    log_density
        Root mean square change of the log-density with half the step: the error of log-weights, about.
    largest
        Largest such change.
    """

    round_trip: float
    centre: float
    log_density: float
    largest: float


@torch.no_grad()
def integration(flow: ContinuousFlow, *, draws: int = 1000, seed: int | torch.Generator) -> Integration:
    """How well a continuous flow is integrated, on its own draws."""
    z = flow.base.sample(draws, seed=seed, dtype=flow.dtype)
    x, log_q = flow.push(z)
    back, _ = flow.transform(x)
    fine = ContinuousFlow(flow.transform.field, 2 * flow.transform.steps).to(x)
    fine.transform.log_scale = flow.transform.log_scale
    change = (fine.log_prob(x) - log_q).abs().double()
    trip = (back - z).abs().amax(1).double().quantile(0.999)
    centre = x.unflatten(1, (-1, flow.base.space)).mean(1).abs().amax()
    return Integration(float(trip), float(centre), float(change.square().mean().sqrt()), float(change.amax()))
