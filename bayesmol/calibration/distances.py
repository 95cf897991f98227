"""Distances between predicted and observed distributions, for labels that are distributions themselves."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Gaussian, Posterior, StudentT

__all__ = ["energy_distance", "replicates", "wasserstein_distance"]

LEVELS = 200


def replicates(values: Float[Tensor, " replicates *shape"], *, unit: str) -> StudentT:
    r"""Distribution of the true value behind repeated measurements of each entry.

    With the mean :math:`\bar y` and the standard deviation s of m replicates, :math:`(y - \bar y)\sqrt m / s` has
    Student's distribution with m − 1 degrees of freedom (normal errors, prior :math:`1/s`).

    Raises
    ------
    DataError
        If there are fewer than four replicates, whose variance is infinite, or all replicates of an entry agree.

    References
    ----------
    Gelman et al., Bayesian Data Analysis, 3rd ed. (2013), section 3.2.
    """
    count = len(values)
    if count < 4:
        remedy = "give mean and standard error as a Gaussian if the error is known otherwise"
        raise DataError(expected("values", "at least 4 replicates", count, remedy))
    spread = values.std(0)
    if not bool((spread > 0).all()):
        raise DataError(expected("values", "replicates that differ", "an entry whose replicates are all equal"))
    return StudentT(values.mean(0), spread / math.sqrt(count), float(count - 1), unit=unit)


def energy_distance(
    first: Posterior, second: Posterior, *, size: int = 1000, seed: int | torch.Generator = 0
) -> Float[Tensor, "*shape"]:
    r"""Energy distance of the distributions of each entry.

    .. math:: 2\,\mathrm E|X - Y| - \mathrm E|X - X'| - \mathrm E|Y - Y'|

    Zero if and only if they are equal, in the unit of the posteriors; closed for two Gaussians, else from ``size``
    draws, of which it is the exact distance. Of a point Y it is twice the CRPS.

    References
    ----------
    Székely and Rizzo, J. Stat. Plan. Inference 143, 1249 (2013), definition 1.
    """
    _check(first, second)
    if isinstance(first, Gaussian) and isinstance(second, Gaussian):
        gaps = (first.mean - second.mean, first.variance + second.variance)
        zero = torch.zeros_like(first.mean)
        own = _folded(zero, 2 * first.variance) + _folded(zero, 2 * second.variance)
        return (2 * _folded(*gaps) - own).clamp_min(0.0)
    draws = [posterior.sample(size, seed=seed).double() for posterior in (first, second)]
    # Twice the integral of (F − G)² over the line, on which both are constant between neighbouring draws.
    joined, order = torch.cat(draws).sort(0)
    steps = torch.where(order < size, 1.0 / size, -1.0 / size).to(joined).cumsum(0)[:-1]
    return 2 * (steps.square() * joined.diff(dim=0)).sum(0)


def wasserstein_distance(first: Posterior, second: Posterior) -> Float[Tensor, "*shape"]:
    r"""Wasserstein distance of order one of each entry, :math:`\int_0^1 |F^{-1}(p) - G^{-1}(p)|\,\mathrm dp`.

    By the midpoint rule at 200 levels, in the unit of the posteriors: how far probability must be moved.
    """
    _check(first, second)
    levels = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
    return (first.quantile(levels) - second.quantile(levels)).abs().mean(0)


def _folded(mean: Tensor, variance: Tensor) -> Tensor:
    """Mean absolute value of a normal number."""
    stddev = variance.sqrt()
    z = torch.where(stddev > 0, mean / stddev, torch.zeros_like(mean))
    spread = stddev * math.sqrt(2 / math.pi) * torch.exp(-z.square() / 2)
    return torch.where(stddev > 0, spread + mean * torch.erf(z / math.sqrt(2)), mean.abs())


def _check(first: Posterior, second: Posterior) -> None:
    if first.shape != second.shape:
        raise ShapeError(expected("second", f"shape {tuple(first.shape)}", tuple(second.shape)))
    if first.unit != second.unit:
        raise DataError(expected("second", f"a posterior in {first.unit!r}", repr(second.unit), "convert it"))
