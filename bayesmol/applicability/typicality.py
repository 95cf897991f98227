"""Score by the typical set of a density: strange is what is less likely than usual, and what is more likely."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Typicality", "TypicalityScore"]


@dataclass(frozen=True)
class Typicality:
    r"""Distance of the log-density of a row from its mean over the training rows, in nats,

    .. math:: t(x) = \bigl| \ln p(x) - \tfrac1n \textstyle\sum_i \ln p(x_i) \bigr|.

    In many dimensions draws of a density lie where it is typical, not where it is highest: the mode of a normal
    distribution is an outlier that minus the log-density calls the safest place of all.

    Attributes
    ----------
    log_density
        Function of features, one number a row, in nats: a flow, a Gaussian process, a kernel density.

    References
    ----------
    Nalisnick, Matsukawa, Teh, Lakshminarayanan, arXiv:1906.02994 (2019).
    """

    log_density: Callable[[Tensor], Tensor]

    def fit(self, features: Tensor) -> TypicalityScore:
        """Score from training features, by preference rows that the density was not fitted to.

        Raises
        ------
        DataError
            If the density of a training row is not finite and positive.
        """
        known = _log_densities(self.log_density, features).double()
        if len(known) == 0 or not bool(torch.isfinite(known).all()):
            raise DataError(expected("features", "rows with a finite log-density", "none, NaN or infinity"))
        return TypicalityScore(self.log_density, known.mean())


@dataclass(frozen=True, eq=False)
class TypicalityScore:
    """Fitted :class:`Typicality`: the log-density and its mean over the training rows."""

    log_density: Callable[[Tensor], Tensor]
    typical: Float[Tensor, ""]

    def __call__(self, features: Tensor) -> Float[Tensor, " rows"]:
        """Distance of each row from the typical log-density, in nats; infinite where the density is zero."""
        known = _log_densities(self.log_density, features)
        return (known.double() - self.typical).abs().to(known.dtype)


def _log_densities(log_density: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    with torch.no_grad():
        known = log_density(features)
    if tuple(known.shape) != (len(features),):
        raise ShapeError(expected("log_density", f"one number a row, shape ({len(features)},)", tuple(known.shape)))
    if bool(known.isnan().any()):
        raise DataError(expected("features", "rows with a log-density", "NaN", "look for NaN in the features"))
    return known
