"""A density seen in other coordinates, and draws in other coordinates seen as configurations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ShapeError, expected
from bayesmol.flows.coordinates import Composed, Coordinates
from bayesmol.flows.proposal import Proposal, Target

__all__ = ["Seen", "Viewed"]

_CHUNK = 2**20  # numbers of one part of the configurations, so that the intermediate ones stay bounded


class Viewed:
    r"""The density of x as one of the rows y of a coordinate system.

    .. math:: u_y(y) = u(x(y)) - \log |\partial x / \partial y|

    It is :math:`+\infty` where the coordinates have no configuration. Coordinates are computed in double precision, the
    result has the type of y.

    Attributes
    ----------
    dimension
        Numbers in a row y.
    circular
        Which of them are angles.
    """

    def __init__(self, density: Target, coordinates: Coordinates | Composed) -> None:
        if density.dimension != coordinates.dimension:
            raise ShapeError(expected("coordinates", f"of {density.dimension} numbers", coordinates.dimension))
        self.density, self.coordinates = density, coordinates
        self.circular = coordinates.circular
        self.dimension = len(self.circular)

    def reduced_energy(self, y: Float[Tensor, "points columns"]) -> Float[Tensor, " points"]:
        """Minus the log-density of each row, up to a constant."""
        parts = [self._energy(part) for part in y.split(_rows(self.coordinates))]
        return torch.cat(parts) if len(parts) != 1 else parts[0]

    def _energy(self, y: Tensor) -> Tensor:
        x, volume = self.coordinates.inverse(y.double())
        valid = volume.isfinite()
        # What stands in for no configuration may be one that the energy cannot take.
        energy = -volume[valid]
        if len(energy):
            energy = energy + self.density.reduced_energy(x[valid])
        return torch.full_like(volume, torch.inf).masked_scatter(valid, energy).to(y.dtype)


class Seen:
    r"""Draws y of a proposal, as configurations x.

    .. math:: \log q(x) = \log q_y(y(x)) + \log |\partial y / \partial x|

    A draw y that is no configuration has an infinite log-density, and so the weight zero: the estimate of
    :math:`\log Z` stays right. Configurations have double precision.

    Attributes
    ----------
    dimension
        Numbers in a configuration x.
    """

    def __init__(self, proposal: Proposal, coordinates: Coordinates | Composed) -> None:
        if proposal.dimension != len(coordinates.circular):
            raise ShapeError(expected("proposal", f"of {len(coordinates.circular)} columns", proposal.dimension))
        self.proposal, self.coordinates, self.dimension = proposal, coordinates, coordinates.dimension

    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each configuration, in nats; minus infinity outside of the coordinates."""
        return torch.cat([self._log_prob(part) for part in x.split(_rows(self.coordinates))])

    def sample(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Independent configurations, with their centre at zero where the coordinates have none, and log-density."""
        y, log_q = self.proposal.sample(size, seed=seed)
        parts = [self.coordinates.inverse(part.double()) for part in y.split(_rows(self.coordinates))]
        x, volume = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return x, log_q.double() - volume

    def _log_prob(self, x: Tensor) -> Tensor:
        y, volume = self.coordinates(x.double())
        y = y.to(getattr(self.proposal, "dtype", y.dtype))
        return self.proposal.log_prob(y).double() + volume


def _rows(coordinates: Coordinates | Composed) -> int:
    return max(1, _CHUNK // coordinates.dimension)
