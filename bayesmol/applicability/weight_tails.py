"""Score by importance weights: strange is what a sampler draws too seldom for its energy, or too often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["WeightTails", "WeightTailsScore"]


@dataclass(frozen=True)
class WeightTails:
    r"""How far the log-weight of a row, :math:`\ell(x) = -u(x) - \ln q(x)`, is out in the tails of those of the draws,

    .. math:: t(x) = \frac{\ell - m}{Q_{95} - m} \;\text{if}\; \ell \ge m, \quad
       \frac{m - \ell}{m - Q_5} \;\text{otherwise},

    with the median m and the quantiles :math:`Q_5, Q_{95}` of the log-weights of the draws. Each side has its own
    scale: the lower tail of log-weights is long where a sampler draws what energy forbids, the upper one is what makes
    estimates wrong: a configuration that the sampler hardly ever draws though its energy is low. Infinite energy is
    infinitely strange, and so is a row that the sampler cannot draw.

    Attributes
    ----------
    log_weight
        Function of features, one number a row: minus the reduced energy minus the log-density of the sampler; the
        constant of neither matters.
    """

    log_weight: Callable[[Tensor], Tensor]

    def fit(self, features: Tensor) -> WeightTailsScore:
        """Score from draws of the sampler.

        Raises
        ------
        DataError
            If fewer than 20 draws have a finite log-weight, or those of 5 % to 95 % are equal on one side.
        """
        known = _log_weights(self.log_weight, features).double()
        known = known[known.isfinite()]
        if len(known) < 20:
            raise DataError(expected("features", "at least 20 draws with a finite log-weight", len(known)))
        lower, middle, upper = known.quantile(known.new_tensor([0.05, 0.5, 0.95]))
        if not bool((lower < middle) & (middle < upper)):
            raise DataError(expected("features", "draws whose log-weights differ on both sides of the median", "equal"))
        return WeightTailsScore(self.log_weight, lower, middle, upper, known.max())


@dataclass(frozen=True, eq=False)
class WeightTailsScore:
    r"""Fitted :class:`WeightTails`: quantiles of the log-weights of the draws, and the largest.

    Draws of the sampler calibrate a domain for rows of the Boltzmann distribution, without any row of that:

    >>> domain = Domain(score).calibrate(draws, weights=score.weights(draws))  # doctest: +SKIP
    >>> domain.assess(new, weights=score.weights(new))  # doctest: +SKIP

    Draws of weight zero say nothing about it and must be left out if their energy is infinite.
    """

    log_weight: Callable[[Tensor], Tensor]
    lower: Float[Tensor, ""]
    middle: Float[Tensor, ""]
    upper: Float[Tensor, ""]
    largest: Float[Tensor, ""]

    def __call__(self, features: Tensor) -> Float[Tensor, " rows"]:
        """Distance of each row from the median, in units of that of the 5 % or the 95 % quantile."""
        known = _log_weights(self.log_weight, features)
        gap = known.double() - self.middle
        return torch.where(gap >= 0, gap / (self.upper - self.middle), gap / (self.lower - self.middle)).to(known.dtype)

    def weights(self, features: Tensor) -> Float[Tensor, " rows"]:
        r"""Weight of each row, :math:`e^{\ell(x) - \ell_{\max}}` with the largest log-weight of the fit.

        Up to a factor that is the same in every call these are density ratios of the Boltzmann distribution to the
        sampler, for :meth:`~bayesmol.applicability.Domain.calibrate` and ``assess``.
        """
        return (_log_weights(self.log_weight, features).double() - self.largest).exp()


def _log_weights(log_weight: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.no_grad():
        known = log_weight(features)
    if tuple(known.shape) != (len(features),):
        raise ShapeError(expected("log_weight", f"one number a row, shape ({len(features)},)", tuple(known.shape)))
    if bool(known.isnan().any()):
        remedy = "look for NaN in the features; a row with neither density nor finite energy has no weight"
        raise DataError(expected("features", "rows with a log-weight", "NaN", remedy))
    return known
