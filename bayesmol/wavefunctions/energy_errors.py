"""The standard error of a mean over correlated walkers in three ways, and means that need a special one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.errors import ConvergenceError, ShapeError, expected
from bayesmol.posterior import Estimate
from bayesmol.posterior.estimate import blocking, effective_sample_size

__all__ = ["Clipped", "ErrorEstimates", "KineticGap", "StandardError", "clipped", "error_estimates", "kinetic_gap"]

_WINDOW = 6.0  # effective draws for one degree of freedom: the summed autocorrelations are noisy too
_CLIP = 5.0  # mean absolute deviations from the median
_MISSED = 3.0  # the mean of what lies beyond x in a tail x^(-5/2), in units of x


class StandardError(NamedTuple):
    """A standard error, and how well it is known itself.

    Attributes
    ----------
    value
        In the unit of the mean; NaN if it could not be estimated.
    degrees_of_freedom
        The relative error of its square is :math:`\\sqrt{2/\\nu}`.
    """

    value: float
    degrees_of_freedom: float

    def exceeds(self, other: StandardError, level: float) -> bool:
        """Whether it is the larger one beyond the noise of both, by the F test at ``level``."""
        if not (self.degrees_of_freedom > 0 and other.degrees_of_freedom > 0) or self.value <= other.value:
            return False
        limit = stats.f.ppf(level, self.degrees_of_freedom, other.degrees_of_freedom)
        return self.value**2 > limit * other.value**2


_UNKNOWN = StandardError(math.inf, 0.0)


@dataclass(frozen=True)
class ErrorEstimates:
    """Standard errors of one mean that see different correlations.

    Attributes
    ----------
    reblocking
        From blocks along time of the mean over walkers: sees drifts that all walkers share. NaN if the run is not much
        longer than its correlation.
    between_walkers
        From the means of the walkers, which are independent: sees walkers that do not mix. NaN of a single walker.
    effective_sample_size
        From the autocorrelation of all walkers together.
    """

    reblocking: StandardError
    between_walkers: StandardError
    effective_sample_size: StandardError

    @property
    def known(self) -> tuple[StandardError, ...]:
        """Those that could be estimated."""
        every = (self.reblocking, self.between_walkers, self.effective_sample_size)
        return tuple(one for one in every if not math.isnan(one.value))

    @property
    def sharpest(self) -> StandardError:
        """The one with the most degrees of freedom; infinite if none is known, as of values that are not finite."""
        return max(self.known, key=lambda one: one.degrees_of_freedom, default=_UNKNOWN)

    @property
    def largest(self) -> StandardError:
        """The largest value, with the degrees of freedom for Student's t.

        They are those of the sharpest estimate, as the largest of some that agree errs upwards already; but its own if
        it exceeds the sharpest beyond noise (1 %).
        """
        largest = max(self.known, key=lambda one: one.value, default=_UNKNOWN)
        own = largest.exceeds(self.sharpest, 0.99)
        return largest if own else StandardError(largest.value, self.sharpest.degrees_of_freedom)


def error_estimates(values: Float[Tensor, "walkers draws"]) -> ErrorEstimates:
    r"""Standard errors of the mean of ``values``, by reblocking, between walkers and by the effective sample size.

    .. math:: s_t^2 = \frac{s_B^2}{n/B}, \qquad s_w^2 = \frac{1}{m(m-1)} \sum_j (\bar x_j - \bar x)^2, \qquad
              s_e^2 = \frac{s^2}{\mathrm{ESS}},

    for m walkers of n draws, with blocks of length B of the mean over walkers, see
    :func:`~bayesmol.posterior.estimate.blocking`. Degrees of freedom: blocks − 1, walkers − 1, ESS / 6.

    Raises
    ------
    ShapeError
        If there are not two axes, or fewer than four draws.

    References
    ----------
    Flyvbjerg, Petersen, J. Chem. Phys. 91, 461 (1989); Vehtari, Gelman, Simpson, Carpenter, Bürkner, Bayesian Analysis
    16, 667 (2021).
    """
    if values.ndim != 2 or not len(values) or values.shape[1] < 4:
        raise ShapeError(expected("values", "(walkers, draws), at least 4 draws", tuple(values.shape)))
    values = values.double()
    effective = float(effective_sample_size(values))
    pooled = StandardError(math.sqrt(float(values.var()) / effective), effective / _WINDOW)
    return ErrorEstimates(_reblocked(values.mean(0)), _between(values.mean(1)), pooled)


def _between(means: Float[Tensor, " walkers"]) -> StandardError:
    walkers = len(means)
    if walkers < 2:
        return StandardError(math.nan, 0.0)
    return StandardError(float(means.std()) / math.sqrt(walkers), walkers - 1.0)


def _reblocked(series: Float[Tensor, " draws"]) -> StandardError:
    draws = len(series)
    try:
        found = blocking(series, unit="")
    except ConvergenceError:
        return StandardError(math.nan, 0.0)
    # The power of two that the rule of `blocking` selects at the correlation that it found.
    wanted = 2 * draws * (draws / float(found.effective_sample_size)) ** 2
    length = 2 ** math.ceil(math.log2(wanted) / 3)
    return StandardError(float(found.standard_error), max(draws // length - 1.0, 1.0))


class Clipped(NamedTuple):
    """Mean of the local energies clipped to the median ± 5 mean absolute deviations.

    Attributes
    ----------
    mean
        Biased, but robust.
    difference
        Mean minus clipped mean: what the tails contribute.
    share
        Of draws that were clipped.
    """

    mean: float
    difference: Estimate
    share: float


def clipped(values: Float[Tensor, "walkers draws"], *, unit: str) -> Clipped:
    """Robust mean and what the tails contribute to the plain one."""
    median = values.median()
    width = _CLIP * (values - median).abs().mean()
    inside = values.clamp(median - width, median + width)
    if not bool(torch.isfinite(values).all()):
        return Clipped(math.nan, _unknown(width.new_tensor(math.nan), unit), math.nan)
    rest = values - inside
    return Clipped(float(inside.mean()), _estimate(rest, 0.0, unit), float((rest != 0).double().mean()))


class KineticGap(NamedTuple):
    r"""Difference of two estimators of one kinetic energy, :math:`\langle T_F - T_P \rangle`.

    Attributes
    ----------
    difference
        Zero for a correct Laplacian and walkers that follow :math:`|\psi|^2`.
    z
        The difference in its standard errors.
    """

    difference: Estimate
    z: float


def kinetic_gap(
    gradient: Float[Tensor, "walkers draws"], laplacian: Float[Tensor, "walkers draws"], *, unit: str
) -> KineticGap:
    r"""Compare :math:`T_F = \frac12 |\nabla \ln|\psi||^2` with :math:`T_P = -\frac14 \nabla^2 \ln|\psi|`.

    Near a node at a distance d each grows as :math:`1/d^2`, with the tail :math:`P(T > x) \sim x^{-3/2}`: it has a
    mean but no variance, and the mean in plain standard errors passes 4 in three to five of a hundred correct samples
    of such a tail alone. The error therefore includes the tail that may have been missed,
    :math:`3 \max_i |x_i - \bar x| / N`, which no light tail feels and which brings this to one in two hundred.
    """
    gap = gradient - laplacian
    mean = gap.mean()
    if not bool(torch.isfinite(gap).all()):
        return KineticGap(_unknown(mean, unit), math.inf)
    missed = _MISSED * float((gap - mean).abs().max()) / gap.numel()
    rounding = 8 * torch.finfo(gap.dtype).eps * float(gradient.abs().mean())
    estimate = _estimate(gap, math.hypot(missed, rounding), unit)
    error = float(estimate.standard_error)
    return KineticGap(estimate, float(mean) / error if error > 0 else 0.0)


def _estimate(values: Float[Tensor, "walkers draws"], further: float, unit: str) -> Estimate:
    """Mean with its largest standard error and a further error, independent of it."""
    mean, error = values.mean(), math.hypot(error_estimates(values).largest.value, further)
    effective = float(values.var()) / error**2 if error > 0 else values.numel()
    return Estimate(mean, mean.new_tensor(error), mean.new_tensor(effective), unit)


def _unknown(value: Float[Tensor, ""], unit: str) -> Estimate:
    return Estimate(value, torch.full_like(value, math.inf), torch.zeros_like(value), unit)
