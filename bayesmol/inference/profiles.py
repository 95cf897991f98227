"""Free-energy profile along a collective variable, with bands that hold for each point or for all at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.importance import populations
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate, Interval

__all__ = ["FreeEnergyProfile", "free_energy_profile"]

_FEWEST = 5.0  # effective draws in a bin for a normal interval of its logarithm
_SIMULATED = 20_000


@dataclass(frozen=True, eq=False)
class FreeEnergyProfile:
    r"""Free energy along a collective variable, :math:`F(s) = -\ln p(s)`, in units of kT, by a histogram.

    p is the density of s with respect to all weights, in the inverse unit of s: differences need no further constant,
    and what is plotted may be moved by one.

    Attributes
    ----------
    edges
        Of the bins.
    free_energy
        Mean density of each bin as a free energy; +∞ with an infinite error where there are no draws.
    covariance
        Of the finite free energies, zero elsewhere.
    """

    edges: Float[Tensor, " edges"]
    free_energy: Estimate
    covariance: Float[Tensor, "bins bins"]

    @property
    def centres(self) -> Float[Tensor, " bins"]:
        """Middles of the bins."""
        return (self.edges[1:] + self.edges[:-1]) / 2

    @property
    def earned(self) -> Tensor:
        """Bins whose weights are worth at least five draws; the others have infinite bands."""
        return self.free_energy.standard_error <= _FEWEST**-0.5

    def pointwise(self, level: float = 0.95) -> Interval:
        """Band that holds the free energy of any one bin, chosen beforehand, with this probability."""
        z = float(stats.norm.ppf((1 + level) / 2))
        return self._band(z, level, "asymptotic, each bin by itself: delta method")

    def simultaneous(self, level: float = 0.95) -> Interval:
        r"""Band that holds the free energies of all its finite bins at once with this probability.

        Its half-width is the quantile of :math:`\max_k |z_k|` of normal numbers with the correlation of the bins, times
        the standard error of each.

        References
        ----------
        Montiel Olea, Plagborg-Møller, J. Appl. Econometrics 34, 1 (2019) (sup-t band).
        """
        use = self.earned
        deviation = self.free_energy.standard_error[use]
        correlation = self.covariance[use][:, use] / torch.outer(deviation, deviation)
        if not len(deviation):
            return self._band(math.inf, level, "no bin has five draws")
        values, vectors = torch.linalg.eigh(correlation)
        source = generator(0, values.device)
        normal = torch.randn(_SIMULATED, len(values), generator=source, dtype=values.dtype, device=values.device)
        largest = (normal * values.clamp_min(0).sqrt() @ vectors.mT).abs().amax(1)
        guarantee = "asymptotic, all finite bins together: delta method and normal law"
        return self._band(float(largest.quantile(level)), level, guarantee)

    def _band(self, z: float, level: float, guarantee: str) -> Interval:
        value, error = self.free_energy.value, self.free_energy.standard_error
        half = torch.where(self.earned, z * error, math.inf)
        centre = torch.where(self.earned, value, 0.0)
        return Interval(centre - half, centre + half, level, self.free_energy.unit, guarantee)


def free_energy_profile(
    coordinate: Float[Tensor, " draws"],
    log_weights: Float[Tensor, " draws"] | None = None,
    *,
    bins: int = 50,
    span: tuple[float, float] | None = None,
    periodic: bool = False,
    block: int = 1,
) -> FreeEnergyProfile:
    r"""Free-energy profile from weighted draws, :math:`F_k = -\ln(P_k / \Delta_k)` with bins of width :math:`\Delta_k`.

    Parameters
    ----------
    coordinate
        Collective variable of each draw.
    log_weights
        All equal if ``None``.
    bins
        Number of equal bins.
    span
        First and last edge; draws outside belong to no bin but to the density. By default from the least to the
        greatest value, and :math:`[-\pi, \pi)` if periodic.
    periodic
        Whether the span is one period, to which all values are brought.
    block
        Length of the blocks of correlated draws; 1 if they are independent.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a value is not finite, or weights cannot be used.
    """
    if coordinate.ndim != 1 or not bool(torch.isfinite(coordinate).all()) or not len(coordinate):
        raise ShapeError(expected("coordinate", "(draws,), finite numbers", tuple(coordinate.shape)))
    values = coordinate.detach().double()
    if span is None:
        span = (-math.pi, math.pi) if periodic else (float(values.min()), float(values.max()))
    if not span[0] < span[1] or bins < 1:
        raise DataError(expected("span, bins", "rising edges and a positive number", (span, bins)))
    width = (span[1] - span[0]) / bins
    place = (torch.remainder(values - span[0], span[1] - span[0]) if periodic else values - span[0]) / width
    labels = place.floor().long()
    # The last edge belongs to the last bin.
    labels = torch.where((place == bins) | (labels.eq(bins) & torch.tensor(periodic)), bins - 1, labels)
    labels = torch.where((labels < 0) | (labels >= bins), -1, labels)
    found = populations(labels, log_weights, states=bins, block=block)
    share = found.shares.value
    some = share > 0
    slope = torch.where(some, -1 / torch.where(some, share, 1.0), 0.0)
    covariance = slope.unsqueeze(1) * found.covariance * slope
    error = torch.where(some, covariance.diagonal().clamp_min(0).sqrt(), math.inf)
    edges = torch.linspace(*span, bins + 1, dtype=torch.float64, device=values.device)
    estimate = Estimate(math.log(width) - share.log(), error, found.shares.effective_sample_size, "")
    return FreeEnergyProfile(edges, estimate, covariance)
