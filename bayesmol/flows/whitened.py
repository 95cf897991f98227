"""Coordinates with the mean and the covariance of a sample taken out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.coordinates import Coordinates, Rows, Volume
from bayesmol.representation.internal import wrapped

__all__ = ["Whitening", "whitening"]

_STIFF, _NARROW = 0.15, 0.45  # rad; standard deviations below which an angle is a number
_REACH = 2.0  # rad; an angle that ever was farther from its mean stays on the circle


class Whitening(Coordinates):
    r"""Straight columns as :math:`L^{-1} (y - \mu)` with the covariance :math:`L L^\top`; angles turned by μ.

    A column that was an angle may become a straight one about its mean; then there is no density where it is farther
    than π from that, as such a number is no second turn.

    Attributes
    ----------
    straightened
        Angles that became straight.
    """

    place: Tensor
    inverse_factor: Tensor
    log_volume: Tensor

    def __init__(
        self,
        centre: Float[Tensor, " columns"],
        factor: Float[Tensor, "straight straight"],
        angles: Bool[Tensor, " columns"],
        circular: Bool[Tensor, " columns"],
    ) -> None:
        super().__init__(len(centre), circular.clone())
        straight = (~circular).nonzero().squeeze(1)
        place = torch.arange(len(centre), device=centre.device)
        place[straight] = len(centre) + torch.arange(len(straight), device=centre.device)
        for name, value in (("centre", centre), ("factor", factor), ("angles", angles), ("straight", straight)):
            self.register_buffer(name, value.clone())
        self.register_buffer("place", place)
        identity = torch.eye(len(factor), dtype=factor.dtype, device=factor.device)
        self.register_buffer("inverse_factor", torch.linalg.solve_triangular(factor, identity, upper=False))
        self.register_buffer("log_volume", factor.diagonal().log().sum())

    @property
    def straightened(self) -> Bool[Tensor, " columns"]:
        return self.angles & ~self.circular

    def forward(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        apart = self._checked(inputs, self.dimension, "y") - self.centre
        apart = torch.where(self.angles, wrapped(apart), apart)
        z = self._replaced(apart, apart[:, self.straight] @ self.inverse_factor.T)
        return z.to(inputs.dtype), (-self.log_volume).expand(len(inputs)).to(inputs.dtype)

    def inverse(self, inputs: Rows, context: Tensor | None = None) -> tuple[Rows, Volume]:
        z = self._checked(inputs, self.dimension, "z")
        apart = self._replaced(z, z[:, self.straight] @ self.factor.T)
        y = apart + self.centre
        y = torch.where(self.angles, wrapped(y), y)
        outside = ((apart.abs() >= math.pi) & self.straightened).any(1)
        volume = torch.where(outside, -math.inf, self.log_volume)
        return y.to(inputs.dtype), volume.to(inputs.dtype)

    def _replaced(self, rows: Tensor, straight: Tensor) -> Tensor:
        return torch.cat([rows, straight], 1)[:, self.place]


def whitening(
    rows: Float[Tensor, "points columns"],
    circular: Bool[Tensor, " columns"],
    rotating: Bool[Tensor, " columns"] | None = None,
) -> Whitening:
    r"""Centre and covariance of a sample.

    An angle becomes straight if it was never farther than 2 rad from its circular mean and its deviation is below
    0.45 rad, or 0.15 rad for a rotation about a bond: a short chain may not have seen its other minima, but a torsion
    with three minima and this deviation has barriers of :math:`2 / (3 \cdot 0.15)^2 \approx 10\,k_B T`. Other angles
    stay on the circle and are turned so that ±π is in the middle of their widest gap. Correlations of the straight
    columns are shrunk towards zero as far as the number of rows demands, and dropped if those of the first half of the
    rows do not hold in the second.

    Raises
    ------
    DataError
        If there are fewer than two rows, or a column does not vary.

    References
    ----------
    Ledoit, Wolf, J. Multivar. Anal. 88, 365 (2004) (shrinkage).
    """
    if len(rows) < 2 or not bool(torch.isfinite(rows).all()):
        raise DataError(expected("rows", "two finite rows or more", tuple(rows.shape)))
    rows = rows.detach().double()
    mean = torch.atan2(rows.sin().mean(0), rows.cos().mean(0))
    apart = torch.where(circular, wrapped(rows - mean), rows)
    limit = torch.full_like(mean, _NARROW) if rotating is None else torch.where(rotating, _STIFF, _NARROW)
    turning = circular & ~((apart.abs().amax(0) < _REACH) & (apart.std(0) < limit))
    shift = apart.mean(0)
    centre = torch.where(turning, _opposite_of_gap(rows), torch.where(circular, wrapped(mean + shift), shift))
    factor = _factor((apart - shift)[:, ~turning])
    return Whitening(centre, factor, circular, turning)


def _opposite_of_gap(angles: Tensor) -> Float[Tensor, " columns"]:
    """The angle opposite to the middle of the widest gap of each column."""
    ordered = wrapped(angles).sort(0).values
    gaps = torch.cat([ordered[1:], ordered[:1] + 2 * math.pi]) - ordered
    width, at = gaps.max(0)
    return wrapped(ordered.gather(0, at[None])[0] + width / 2 + math.pi)


def _factor(centred: Tensor) -> Float[Tensor, "straight straight"]:
    """Lower triangular factor of the covariance; diagonal where correlations do not hold in the other half of the rows.

    Chance correlations of a few independent visits to several basins would mix coordinates that have nothing to do
    with each other.
    """
    if not centred.shape[1]:
        return centred.new_zeros(0, 0)
    first, second = centred[: len(centred) // 2], centred[len(centred) // 2 :]
    if len(first) > 1 and bool((first.std(0) > 0).all()):
        apart = torch.diag(first.square().mean(0).sqrt())
        if _surprise(second, _shrunk(first)) >= _surprise(second, apart):
            return torch.diag(_deviations(centred))
    return _shrunk(centred)


def _surprise(rows: Tensor, factor: Tensor) -> float:
    """Mean minus log-density of rows under the normal law, without its constant."""
    z = torch.linalg.solve_triangular(factor, rows.T, upper=False)
    return float(z.square().sum(0).mean() / 2 + factor.diagonal().log().sum())


def _deviations(centred: Tensor) -> Tensor:
    deviations = centred.square().mean(0).sqrt()
    if bool((deviations < 1e-12).any()):
        raise DataError(expected("rows", "columns that vary", "constant ones"))
    return deviations


def _shrunk(centred: Tensor) -> Float[Tensor, "straight straight"]:
    """Factor of the covariance, its correlations shrunk."""
    from sklearn.covariance import ledoit_wolf_shrinkage

    deviations = _deviations(centred)
    scaled = centred / deviations
    shrinkage = float(ledoit_wolf_shrinkage(scaled.cpu().numpy(), assume_centered=True))
    correlation = scaled.T @ scaled / len(scaled)
    identity = torch.eye(len(correlation), dtype=scaled.dtype, device=scaled.device)
    return deviations[:, None] * torch.linalg.cholesky((1 - shrinkage) * correlation + shrinkage * identity)
