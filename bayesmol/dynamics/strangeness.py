"""How strange a configuration, or a step in time, is to a Koopman operator: scores for the domain of applicability."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ShapeError, expected
from bayesmol.representation.basis import with_constant

if TYPE_CHECKING:
    from bayesmol.dynamics.koopman import FittedKoopman

__all__ = ["leverage", "residual"]

# A function that leaves the span of the training frames by more than this has no whitened coordinate: of its standard
# deviation, and of its root mean square. Both are far above what the cut of the whitening lets through.
_OF_SPREAD, _OF_SIZE = 1e-3, 1e-6


def leverage(koopman: FittedKoopman, frames: Float[Tensor, "rows features"]) -> Float[Tensor, " rows"]:
    r"""Leverage of configurations: the variance of a regression on the basis there, for noise of variance one.

    .. math:: h(x) = \tfrac1N\, \chi(x)^\top C^{-1} \chi(x) = \tfrac1N \left( 1 + \lVert \psi(x) \rVert^2 \right)

    with the N pairs, the functions χ with the constant one, their instantaneous moments C over both ends of the pairs,
    and whitened functions ψ of mean zero. It does not depend on which functions span the basis. Where a function leaves
    the span of the training frames, such as the indicator of a state that none was in, it is infinite.

    Raises
    ------
    ShapeError
        If the frames have other features.
    """
    if frames.ndim != 2:
        raise ShapeError(expected("frames", "(rows, features)", tuple(frames.shape)))
    return (_coordinates(koopman, frames).square().sum(1) / koopman.moments.pairs).to(frames.dtype)


def residual(koopman: FittedKoopman, pairs: Float[Tensor, "rows 2 features"]) -> Float[Tensor, " rows"]:
    r"""Residual :math:`\lVert \psi(x_{t+\tau}) - K^\top \psi(x_t) \rVert` of configurations one lag apart.

    ψ are all whitened functions of the basis and :math:`K = C_{00}^{-1} C_{01}` is the operator by least squares in
    them, whatever spectrum is taken of it. The mean square over the training pairs is the part of the variance of the
    functions that is forgotten within a lag. It does not depend on which functions span the basis. It is infinite
    where the :func:`leverage` of one of both is.

    Raises
    ------
    ShapeError
        If they are no pairs, or have other features.
    """
    if pairs.ndim != 3 or pairs.shape[1] != 2:
        raise ShapeError(expected("pairs", "(rows, 2, features), two frames one lag apart", tuple(pairs.shape)))
    before, after = (_coordinates(koopman, pairs[:, end]) for end in (0, 1))
    early, cross, _ = koopman.moments.mean()
    missed = (after - before @ torch.linalg.solve(early, cross)).norm(dim=1)
    known = before[:, 0].isfinite() & after[:, 0].isfinite()
    return torch.where(known | before.isnan().any(1) | after.isnan().any(1), missed, torch.inf).to(pairs.dtype)


def _coordinates(koopman: FittedKoopman, frames: Tensor) -> Float[Tensor, "rows rank"]:
    """Whitened functions with the constant one; infinity where functions leave the span of the training frames."""
    values = with_constant(koopman.basis(frames.to(koopman.columns)))
    white = values @ koopman.columns
    lost = (values - white @ (koopman.columns.mT @ koopman.covariance)).abs()
    size = koopman.covariance.diagonal().sqrt()
    spread = (koopman.covariance.diagonal() - koopman.covariance[0].square()).clamp_min(0).sqrt()
    outside = (lost > _OF_SPREAD * spread + _OF_SIZE * size).any(1, keepdim=True)
    return torch.where(outside, torch.inf, white)
