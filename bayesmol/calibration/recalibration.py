"""Recalibration: make standard deviations as large as the residuals that were seen."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Gaussian

__all__ = ["recalibrated", "variance_factors"]


def variance_factors(
    residual: Float[Tensor, " rows *shape"], variance: Float[Tensor, " rows *shape"], groups: Int[Tensor, " rows"]
) -> dict[int, float]:
    r"""Factor of the variance for each group, such as the chemical species of a row.

    .. math:: a_g^2 = \langle (y - \mu)^2 / \sigma^2 \rangle_g,

    the maximum-likelihood scale of a normal distribution. Residuals and variances must be of rows that the model
    has not seen: left out, or held out.

    Raises
    ------
    DataError
        If a variance is not positive, a residual is not finite, or a group has only zero residuals.
    """
    if residual.shape != variance.shape or groups.shape != residual.shape[:1]:
        shapes = tuple(variance.shape), tuple(groups.shape)
        raise ShapeError(expected("variance, groups", f"shapes for {tuple(residual.shape)}", shapes))
    if not bool((variance > 0).all()) or not bool(torch.isfinite(residual).all()):
        raise DataError(expected("residual, variance", "finite residuals, positive variances", "others"))
    squares = (residual.double().square() / variance.double()).reshape(len(groups), -1).mean(1)
    labels, inverse, counts = groups.unique(return_inverse=True, return_counts=True)
    factors = squares.new_zeros(len(labels)).index_add_(0, inverse, squares) / counts
    if not bool((factors > 0).all()):
        raise DataError(expected("residual", "a residual other than zero in each group", "a group without"))
    return dict(zip(labels.tolist(), factors.tolist(), strict=True))


def recalibrated(posterior: Gaussian, factors: dict[int, float], groups: Int[Tensor, " rows"]) -> Gaussian:
    """The posterior with the variance of each row multiplied by the factor of its group.

    Raises
    ------
    DataError
        If a group has no factor.
    """
    labels, inverse = groups.unique(return_inverse=True)
    missing = sorted(set(labels.tolist()) - set(factors))
    if missing:
        raise DataError(expected("groups", f"groups among {sorted(factors)}", missing, "calibrate on these too"))
    scale = posterior.mean.new_tensor([factors[label] for label in labels.tolist()]).sqrt()[inverse]
    return posterior.scaled(scale.reshape(-1, *[1] * (len(posterior.shape) - 1)).expand(posterior.shape))
