"""Cubic splines on an even grid, evaluated by four weights a point."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["spline_coefficients", "spline_weights"]


def spline_weights(
    places: Float[Tensor, " points"], step: float
) -> tuple[Int[Tensor, " points"], Float[Tensor, "points 4"], Float[Tensor, "points 4"]]:
    r"""First coefficient that each point feels, the weights of four, and their derivatives.

    .. math:: f(x) = \sum_{m=0}^3 b_m(t)\, c_{k+m}, \quad k = \lfloor x / h \rfloor, \quad t = x/h - k

    with the uniform cubic B-spline :math:`b`.

    Parameters
    ----------
    places
        Not below zero.
    step
        Distance h of the knots.

    References
    ----------
    de Boor, A Practical Guide to Splines, Springer (1978), chapter IX.
    """
    scaled = places / step
    left = scaled.floor()
    t = scaled - left
    s = 1 - t
    weights = torch.stack([s**3, 3 * t**3 - 6 * t**2 + 4, 3 * s**3 - 6 * s**2 + 4, t**3], -1) / 6
    slopes = torch.stack([-(s**2), 3 * t**2 - 4 * t, 4 * s - 3 * s**2, t**2], -1) / (2 * step)
    return left.long(), weights, slopes


def spline_coefficients(
    values: Float[Tensor, "knots columns"], ends: Float[Tensor, "2 columns"], step: float
) -> Float[Tensor, "coefficients columns"]:
    """Coefficients of the splines that take ``values`` at the knots and have the slopes ``ends`` at the two last.

    There are two more than there are knots. The error of a smooth function falls with the fourth power of the step.
    """
    knots = len(values)
    matrix = values.new_zeros(knots + 2, knots + 2)
    inner = torch.arange(knots, device=values.device)
    for offset, weight in enumerate((1 / 6, 4 / 6, 1 / 6)):
        matrix[inner + 1, inner + offset] = weight
    slope = values.new_tensor([-1.0, 0.0, 1.0]) / (2 * step)
    matrix[0, :3], matrix[-1, -3:] = slope, slope
    return torch.linalg.solve(matrix, torch.cat([ends[:1], values, ends[1:]]))
