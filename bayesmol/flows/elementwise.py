"""Monotone maps of single coordinates, straight or circular, with their parameters as planes."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from jaxtyping import Bool, Float
from nflows.transforms.base import Transform
from torch import Tensor, nn

from bayesmol.errors import DataError, expected
from bayesmol.flows.splines import rational_quadratic
from bayesmol.representation.internal import wrapped

__all__ = ["Elementwise", "Marginals", "Shifts", "Splines"]

Planes = Float[Tensor, "coordinates rows"]


class Elementwise(Protocol):
    """A family of increasing maps of each coordinate; parameters zero are the identity."""

    @property
    def numbers(self) -> int:
        """Parameters of one coordinate."""
        ...

    def __call__(
        self,
        x: Planes,
        parameters: Float[Tensor, "parameters coordinates #rows"],
        *,
        inverse: bool = False,
        chosen: slice = slice(None),
    ) -> tuple[Planes, Planes]:
        """Value and log-derivative of each, or of those of the ``chosen`` coordinates."""
        ...


class Splines(nn.Module):
    r"""Affine maps, then rational-quadratic splines; circles are turned instead of scaled.

    Circles are first turned by a random angle, too, and last turned back: a circular spline leaves one angle in place,
    and that one then differs from layer to layer.

    Parameters
    ----------
    circular
        Which coordinates are angles in :math:`[-\pi, \pi)`.
    bins
        Bins K of each spline, in the interval ±π or ±``bound``.

    Notes
    -----
    The angles of turning come from the global stream of random numbers; see ``conditioners.reproducible``.
    """

    circular: Tensor
    bound: Tensor
    straight: Tensor
    period: Tensor
    frequency: Tensor
    turn: Tensor

    def __init__(self, circular: Bool[Tensor, " coordinates"], bins: int, bound: float) -> None:
        super().__init__()
        if not 2 <= bins <= 256 or not 0 < bound < math.inf:
            raise DataError(expected("bins, bound", "2 to 256 bins in an interval of positive length", (bins, bound)))
        self.bins, self.numbers, self.angles = bins, 3 * bins + 2, bool(circular.any())
        dtype = torch.get_default_dtype()
        self.register_buffer("circular", circular.clone())
        self.register_buffer("bound", torch.where(circular, math.pi, bound).to(dtype))
        self.register_buffer("straight", (~circular).to(dtype)[:, None])
        self.register_buffer("period", (2 * math.pi * circular).to(dtype)[:, None])
        self.register_buffer("frequency", (circular / (2 * math.pi)).to(dtype)[:, None])
        self.register_buffer("turn", self.period * torch.rand(len(circular), 1, dtype=dtype))

    def forward(
        self,
        x: Planes,
        parameters: Float[Tensor, "parameters coordinates #rows"],
        *,
        inverse: bool = False,
        chosen: slice = slice(None),
    ) -> tuple[Planes, Planes]:
        """Value and log-derivative of each; straight ones are scaled and moved only, outside the interval."""
        sizes, slopes, affine = parameters.split([2 * self.bins, self.bins, 2])
        curve = sizes.unflatten(0, (2, self.bins)), slopes, self.bound[chosen], self.circular[chosen]
        scale, shift, turn = _log_scale(affine[0]) * self.straight[chosen], affine[1], self.turn[chosen]
        if inverse:
            z, slope = rational_quadratic(self._around(x + turn, chosen), *curve, inverse=True)
            return self._around((z - (shift + turn)) * torch.exp(-scale), chosen), slope - scale
        z, slope = rational_quadratic(self._around(x * torch.exp(scale) + (shift + turn), chosen), *curve)
        return self._around(z - turn, chosen), slope + scale

    def _around(self, x: Planes, chosen: slice) -> Planes:
        """Angles between ±π; the number of turns has no gradient, and none is taken off straight coordinates."""
        if not self.angles:
            return x
        return x - self.period[chosen] * torch.floor(x.detach() * self.frequency[chosen] + 0.5)


def _log_scale(raw: Tensor) -> Tensor:
    """Within ±3, so that no step of training can blow up a layer."""
    return 3 * torch.tanh(raw / 3)


class Shifts(nn.Module):
    r"""Affine maps :math:`z = e^{s} x + t` of straight coordinates with :math:`|s| < 3`, and turns of circles."""

    circular: Tensor

    numbers = 2

    def __init__(self, circular: Bool[Tensor, " coordinates"]) -> None:
        super().__init__()
        self.register_buffer("circular", circular.clone())

    def forward(
        self,
        x: Planes,
        parameters: Float[Tensor, "parameters coordinates #rows"],
        *,
        inverse: bool = False,
        chosen: slice = slice(None),
    ) -> tuple[Planes, Planes]:
        """Value and log-derivative of each."""
        circle = self.circular[chosen, None]
        slope, shift = torch.where(circle, 0.0, _log_scale(parameters[0])), parameters[1]
        z = (x - shift) * torch.exp(-slope) if inverse else x * torch.exp(slope) + shift
        return torch.where(circle, wrapped(z), z), (-slope if inverse else slope).expand_as(x)


class Marginals(Transform):
    """The same map of each coordinate for all rows: with splines, the marginal densities."""

    def __init__(self, maps: Elementwise, coordinates: int) -> None:
        super().__init__()
        self.maps = maps
        self.weight = nn.Parameter(torch.zeros(maps.numbers, coordinates, 1))

    def forward(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mapped rows, and the log-determinant of each."""
        return self._mapped(inputs, inverse=False)

    def inverse(
        self, inputs: Float[Tensor, "points dimension"], context: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Mapped rows, and the log-determinant of each."""
        return self._mapped(inputs, inverse=True)

    def _mapped(self, rows: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        z, slopes = self.maps(rows.mT, self.weight, inverse=inverse)
        return z.mT, slopes.sum(0)
