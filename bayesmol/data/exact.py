"""Energy landscapes in one and two dimensions, and diffusions on them whose kinetics are known exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator

__all__ = ["Landscape", "double_well", "prinz", "quadruple_well", "triple_well"]

# Cells of the table of forces along each axis, for one and two dimensions.
_CELLS = {1: 2**16, 2: 2**10}


@dataclass(frozen=True)
class Landscape:
    r"""Overdamped Langevin dynamics on a potential energy in one or two dimensions.

    .. math:: dx = -\frac{D}{kT} \nabla V(x)\, dt + \sqrt{2 D}\, dW

    Its spectrum is that of :func:`bayesmol.data.exact_spectra.generator_spectrum`; that of the simulated chain, which
    has a finite step, is :func:`bayesmol.data.exact_spectra.euler_chain`. Compare estimates with the chain.

    Attributes
    ----------
    energy
        V of points (points, dims), in the units of ``temperature``.
    lower, upper
        Corners of a box outside which the chain has no business: V is there some 30 kT above its minimum or more.
    temperature
        kT.
    diffusion
        D, length squared per time.

    Raises
    ------
    ShapeError, DataError
        If the corners do not fit each other, or a constant is not positive.
    """

    energy: Callable[[Tensor], Tensor]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    temperature: float = 1.0
    diffusion: float = 1.0

    def __post_init__(self) -> None:
        if len(self.lower) not in _CELLS or len(self.lower) != len(self.upper):
            corners = f"{len(self.lower)} and {len(self.upper)} numbers"
            raise ShapeError(expected("lower, upper", "one or two numbers each", corners))
        if not all(a < b for a, b in zip(self.lower, self.upper, strict=True)):
            raise DataError(expected("lower, upper", "lower < upper", f"{self.lower}, {self.upper}"))
        for name in ("temperature", "diffusion"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(expected(name, "a positive number", getattr(self, name)))

    @property
    def dims(self) -> int:
        """Number of coordinates."""
        return len(self.lower)

    def drift(self, points: Float[Tensor, "points dims"]) -> Float[Tensor, "points dims"]:
        r""":math:`-(D / kT) \nabla V`, length per time."""
        with torch.enable_grad():
            where = points.detach().clone().requires_grad_()
            (slope,) = torch.autograd.grad(self.energy(where).sum(), where)
        return -self.diffusion / self.temperature * slope

    def boltzmann(self, points: Float[Tensor, "points dims"]) -> Float[Tensor, " points"]:
        r""":math:`e^{-V / kT}` at each point, divided by its sum over the points."""
        return torch.softmax(-self.energy(points) / self.temperature, 0)

    def equilibrium(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, "size dims"]:
        """Independent points from the Boltzmann density: a cell of a fine grid, and a uniform place within it."""
        source, centres, width = numpy_generator(seed), *self._cells()
        cells = source.choice(len(centres), size, p=self.boltzmann(centres).numpy())
        shift = source.uniform(-0.5, 0.5, (size, self.dims)) * width
        return centres[torch.as_tensor(cells)] + torch.as_tensor(shift)

    def simulate(
        self,
        frames: int,
        *,
        trajectories: int = 1,
        step: float = 1e-4,
        steps: int = 50,
        start: Float[Tensor, "trajectories dims"] | None = None,
        seed: int | torch.Generator,
    ) -> Trajectories:
        r"""Independent trajectories of the Euler–Maruyama chain, all advanced together.

        .. math:: x_{n + 1} = x_n - \frac{D h}{kT} \nabla V(x_n) + \sqrt{2 D h}\, \xi_n

        The force is that at the centre of the cell of a table: in one dimension 65536 cells, so that the chain is that
        of a potential which differs from V by less than 1e-6 kT. It runs in NumPy on the CPU, whose calls on short
        arrays cost less than those of torch.

        Parameters
        ----------
        frames
            Of each trajectory; the first one is its start.
        step
            h, in the unit of time of the diffusion.
        steps
            Of the chain between two frames; a frame is ``step`` × ``steps`` long.
        start
            First frames; from the Boltzmann density if ``None``, which is stationary up to the first order in h.

        Raises
        ------
        ShapeError, DataError
            If the starts do not fit, or a number is not positive.
        """
        for name, value in (("frames", frames), ("trajectories", trajectories), ("step", step), ("steps", steps)):
            if not value > 0:
                raise DataError(expected(name, "a positive number", value))
        source = numpy_generator(seed)
        if start is None:
            start = self.equilibrium(trajectories, seed=int(source.integers(2**62)))
        if start.shape != (trajectories, self.dims):
            raise ShapeError(expected("start", f"({trajectories}, {self.dims})", tuple(start.shape)))
        path = _path(self, start.double().numpy().T, frames, step, steps, source)
        return Trajectories(tuple(torch.as_tensor(path).permute(2, 0, 1).contiguous()), step * steps, "time units")

    def _cells(self) -> tuple[Tensor, np.ndarray]:
        """Centres of the cells of the table, in row-major order, and the widths of a cell."""
        count = _CELLS[self.dims]
        low, width = np.array(self.lower), (np.array(self.upper) - np.array(self.lower)) / count
        axes = [torch.as_tensor(a + w * (np.arange(count) + 0.5)) for a, w in zip(low, width, strict=True)]
        return torch.cartesian_prod(*axes).reshape(-1, self.dims), width


def _path(
    landscape: Landscape, start: np.ndarray, frames: int, step: float, steps: int, source: np.random.Generator
) -> np.ndarray:
    """Frames (frames, dims, trajectories); on the way coordinates are counted in cells, to index the table."""
    centres, width = landscape._cells()
    low, width = np.array(landscape.lower)[:, None], width[:, None]
    table = np.ascontiguousarray((step * landscape.drift(centres)).numpy().T / width)
    spread = math.sqrt(2 * landscape.diffusion * step) / width
    place, path = (start - low) / width, np.empty((frames, *start.shape))
    path[0] = place
    advance = _advance_line if landscape.dims == 1 else _advance_plane
    for frame in range(1, frames):
        advance(place, table, source.standard_normal((steps, *start.shape)) * spread)
        path[frame] = place
    return path * width + low


def _advance_line(place: np.ndarray, table: np.ndarray, noise: np.ndarray) -> None:
    """Steps of the chain in one dimension, in place; outside the box the force is that of the edge."""
    line, table, noise = place[0], table[0], noise[:, 0]
    cell, push = np.empty(len(line), dtype=np.intp), np.empty_like(line)
    for kick in noise:
        np.copyto(cell, line, casting="unsafe")
        table.take(cell, out=push, mode="clip")
        line += push
        line += kick


def _advance_plane(place: np.ndarray, table: np.ndarray, noise: np.ndarray) -> None:
    """Steps of the chain in two dimensions, in place."""
    count, cells, push = _CELLS[2], np.empty(place.shape, dtype=np.intp), np.empty_like(place)
    flat = np.empty(place.shape[1], dtype=np.intp)
    for kick in noise:
        np.copyto(cells, place, casting="unsafe")
        np.maximum(cells, 0, out=cells)
        np.minimum(cells, count - 1, out=cells)
        np.multiply(cells[0], count, out=flat)
        flat += cells[1]
        table.take(flat, axis=1, out=push, mode="clip")
        place += push
        place += kick


def prinz() -> Landscape:
    r"""Four wells on a line, the usual test of kinetic estimators; kT = 1, D = 1.

    .. math:: V = 4 \left(x^8 + 0.8 e^{-80 x^2} + 0.2 e^{-80 (x - 1/2)^2} + 0.5 e^{-40 (x + 1/2)^2}\right)

    References
    ----------
    Prinz et al., J. Chem. Phys. 134, 174105 (2011).
    """

    def energy(points: Tensor) -> Tensor:
        x = points[:, 0]
        hills = 0.8 * (-80 * x**2).exp() + 0.2 * (-80 * (x - 0.5) ** 2).exp() + 0.5 * (-40 * (x + 0.5) ** 2).exp()
        return 4 * (x**8 + hills)

    return Landscape(energy, (-1.35,), (1.35,))


def double_well() -> Landscape:
    """V = 5 (x² − 1)², kT = 1, D = 1: one slow rate, 0.05552 per unit of time."""
    return Landscape(lambda points: 5 * (points[:, 0] ** 2 - 1) ** 2, (-1.9,), (1.9,))


def triple_well() -> Landscape:
    """V = 2.5 x² (x² − 2)² + 0.4 x, kT = 1, D = 1: three wells of different depth on a line."""

    def energy(points: Tensor) -> Tensor:
        x = points[:, 0]
        return 2.5 * x**2 * (x**2 - 2) ** 2 + 0.4 * x

    return Landscape(energy, (-2.0,), (2.0,))


def quadruple_well() -> Landscape:
    """V = 3 (x² − 1)² + 0.4 x + 2 (y² − 1)² + 0.2 y, kT = 1, D = 1: four wells of different depth in the plane.

    The coordinates are independent, so that its eigenvalues are the products of those of two double wells. Steps of
    0.01 make the quadrature of its chain small enough, with ``euler_chain(…, step=0.01, steps=5, resolution=2)``.
    """

    def energy(points: Tensor) -> Tensor:
        x, y = points.unbind(1)
        return 3 * (x**2 - 1) ** 2 + 0.4 * x + 2 * (y**2 - 1) ** 2 + 0.2 * y

    return Landscape(energy, (-2.05, -2.2), (2.05, 2.2))
