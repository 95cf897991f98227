"""Curves that turn predicted into observed uncertainty: what a recalibration fits.

Arguments are one number an entry: predicted standard deviations ``sigma``, squared residuals ``squares`` (less known
errors of the labels), and ``weights`` that sum to one, in float64. Results are on the CPU.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.posterior import Posterior
from bayesmol.posterior.quantiles import Quantiles
from bayesmol.posterior.recalibrated import Recalibrated

__all__ = ["affine", "isotonic", "probabilities", "scale"]

# Entries that the lowest and the highest step of an isotonic fit rest on, else single small errors would make them.
TIED = 20
KNOTS = 100
IDENTITY = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64)


def scale(
    sigma: Float[Tensor, " n"], squares: Float[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Float[Tensor, "2 1"]:
    r"""a and 0 of :math:`\sigma' = a\sigma`, :math:`a^2 = \langle r^2/\sigma^2 \rangle`.

    Raises
    ------
    DataError
        If the mean is not positive.
    """
    ratio = float((weights * squares / sigma.square()).sum())
    if not ratio > 0:
        raise DataError(expected("truth", "labels that differ from the mean by more than their own errors", "no such"))
    return torch.tensor([[math.sqrt(ratio)], [0.0]], dtype=torch.float64)


def affine(
    sigma: Float[Tensor, " n"], squares: Float[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Float[Tensor, "2 1"]:
    r"""a and b of :math:`\sigma' = a\sigma + b` with the largest normal likelihood for :math:`a, b \ge 0`.

    Along a direction a : b the best length has :math:`\langle r^2/\sigma'^2 \rangle = 1`, which leaves one angle to
    search: on a grid, because the likelihood may have two maxima, then by Brent's method.

    Raises
    ------
    DataError
        If all residuals are zero.
    """
    from scipy.optimize import minimize_scalar

    scale(sigma, squares, weights)
    typical = float((weights * sigma.square()).sum().sqrt())

    def length(angle: float) -> tuple[Tensor, Tensor]:
        line = math.cos(angle) * sigma / typical + math.sin(angle)
        return line, (weights * squares / line.square()).sum().sqrt()

    def cost(angle: float) -> float:
        line, size = length(angle)
        return float((weights * line.log()).sum() + size.log())

    angles = np.linspace(0, math.pi / 2, 33)
    best = int(np.argmin([cost(angle) for angle in angles]))
    near = angles[max(best - 1, 0)], angles[min(best + 1, 32)]
    found = minimize_scalar(cost, bounds=near, method="bounded", options={"xatol": 1e-9})
    angle = found.x if found.fun < cost(angles[best]) else angles[best]
    size = float(length(angle)[1])
    return torch.tensor([[size * math.cos(angle) / typical], [size * math.sin(angle)]], dtype=torch.float64)


def isotonic(
    sigma: Float[Tensor, " n"], squares: Float[Tensor, " n"], weights: Float[Tensor, " n"]
) -> Float[Tensor, "2 _"]:
    r"""Knots of the non-descending :math:`\sigma'^2(\sigma)` that is closest to the squared residuals.

    The 20 lowest and the 20 highest :math:`\sigma` share their mean squared residual, so their steps rest on as many.
    The mean of :math:`\sigma'^2` is that of the squared residuals.

    Raises
    ------
    DataError
        If there are fewer than 40 labels, or a step is not positive.
    """
    from sklearn.isotonic import IsotonicRegression

    if len(sigma) < 2 * TIED:
        raise DataError(expected("truth", f"at least {2 * TIED} labels for 'isotonic'", len(sigma), "use 'scale'"))
    sigma, order = sigma.sort(stable=True)
    squares, weights = squares[order].clone(), weights[order]
    for end in (slice(None, TIED), slice(-TIED, None)):
        squares[end] = (weights[end] * squares[end]).sum() / weights[end].sum()
    columns = (part.cpu().numpy() for part in (sigma, squares, weights))
    fitted = IsotonicRegression().fit(*columns)
    knots = torch.tensor(np.stack([fitted.X_thresholds_, fitted.y_thresholds_]))
    if not bool((knots[1] > 0).all()):
        raise DataError(expected("truth", "errors above those of the labels at all σ", "a step of 0", "use 'scale'"))
    return knots


def probabilities(
    posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Float[Tensor, " n"], structures: int
) -> Float[Tensor, "2 _"]:
    r"""Knots of :math:`R(p) = (n \hat P(F(y) \le p) + p)/(n + 1)`, n being the number of structures.

    Of :class:`Quantiles` the knots are their levels; else they lie at equal steps of :math:`\hat P`.

    Raises
    ------
    DataError
        If the posterior has no continuous distribution, or so many labels lie beyond it that knots would be 0 or 1.
    """
    if isinstance(posterior, Quantiles):
        old, reached = _at_levels(posterior, truth, weights)
    else:
        old, reached = _at_steps(posterior, truth, weights, structures)
    new, zero = (structures * reached + old) / (structures + 1), old.new_zeros(1)
    return torch.stack([torch.cat([zero, part, zero + 1]) for part in (old, new)])


def _at_levels(posterior: Quantiles, truth: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    inside = (posterior.levels > 0) & (posterior.levels < 1)
    reached = [(weights * (truth <= value).flatten()).sum() for value in posterior.values[inside]]
    return posterior.levels[inside].cpu(), torch.stack(reached).cpu()


def _at_steps(posterior: Posterior, truth: Tensor, weights: Tensor, structures: int) -> tuple[Tensor, Tensor]:
    Recalibrated(posterior, (IDENTITY,))  # so that what cannot be recalibrated is refused now
    found, order = posterior.cdf(truth).double().flatten().cpu().sort()
    mass = weights.cpu()[order]
    knots = min(KNOTS, math.ceil(math.sqrt(structures)))
    steps = torch.arange(1, knots, dtype=torch.float64) / knots
    # Steps at half of each jump: the curve of −y is that of y turned round. Knots at one place become their mean.
    places = torch.from_numpy(np.interp(steps, mass.cumsum(0) - mass / 2, found))
    old, knot, counts = places.unique(return_inverse=True, return_counts=True)
    if bool(((old <= 0) | (old >= 1)).any()):
        got = "many labels where F(y) is 0 or 1"
        raise DataError(expected("posterior", "a distribution that reaches the labels", got, "use 'scale' first"))
    return old, torch.zeros_like(old).index_add(0, knot, steps) / counts
