"""Is the uncertainty true? Figures of merit of a posterior against labels, each exact and O(n log n).

Every figure takes optional ``weights`` of the entries (shape of the labels), so that a bootstrap need not copy data.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Draws, Estimate, Gaussian, Interval, Laplace, Posterior, StudentT

__all__ = [
    "auroc",
    "coverage",
    "crps",
    "interval_area",
    "mean_absolute_error",
    "miscalibration_area",
    "nll",
    "pointwise_crps",
    "root_mean_square_error",
    "separation",
    "standardised",
    "z_std",
]

Weights = Float[Tensor, "*shape"] | None


def mean_absolute_error(
    posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Weights = None
) -> Float[Tensor, ""]:
    r"""Mean absolute error of the posterior mean, :math:`\langle |y - \mu| \rangle`, in the unit of the posterior."""
    return _average((_checked(posterior, truth) - posterior.mean).abs(), weights)


def root_mean_square_error(
    posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Weights = None
) -> Float[Tensor, ""]:
    r"""Root mean square error of the mean, :math:`\langle (y - \mu)^2 \rangle^{1/2}`, in the unit of the posterior."""
    return _average((_checked(posterior, truth) - posterior.mean).square(), weights).sqrt()


def coverage(
    prediction: Interval | Posterior, truth: Float[Tensor, "*shape"], level: float = 0.9, weights: Weights = None
) -> Float[Tensor, ""]:
    """Fraction of the labels inside an interval; of a posterior, inside its interval at ``level``.

    An :class:`~bayesmol.posterior.Interval` brings its own level, so ``level`` then has no effect.
    """
    interval = prediction if isinstance(prediction, Interval) else prediction.interval(level)
    return _average(interval.contains(truth).double(), weights)


def z_std(posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Weights = None) -> Float[Tensor, ""]:
    r"""Standard deviation of :math:`z = (y - \mu)/\sigma`; 1 if :math:`\sigma` is true, larger if it is too small."""
    z = standardised(posterior, truth)
    return (_average(z.square(), weights) - _average(z, weights).square()).clamp_min(0.0).sqrt()


def nll(posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Weights = None) -> Float[Tensor, ""]:
    r"""Mean negative log-density of an entry, :math:`-\langle \ln p(y) \rangle`, in nats with the unit as measure."""
    return _average(-posterior.log_prob(_checked(posterior, truth)), weights)


def crps(posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Weights = None) -> Float[Tensor, ""]:
    """Mean continuous ranked probability score, in the unit of the posterior (see :func:`pointwise_crps`)."""
    return _average(pointwise_crps(posterior, truth), weights)


def miscalibration_area(
    posterior: Posterior, truth: Float[Tensor, "*shape"], weights: Weights = None
) -> Float[Tensor, ""]:
    r"""Area between observed and nominal coverage of the central intervals of all levels.

    .. math:: A = \int_0^1 \bigl| C(p) - p \bigr| \, \mathrm dp, \qquad
              C(p) = \tfrac1n \#\{ i : |2 F_i(y_i) - 1| \le p \},

    integrated in closed form over the steps of :math:`C` (no grid). 0 is perfect, 1/2 the worst; of n independent
    labels of a true posterior it is about :math:`0.31/\sqrt n`.

    References
    ----------
    Tran et al., Mach. Learn.: Sci. Technol. 1, 025006 (2020), section 2.3 (with interval proportions).
    """
    central = (2 * posterior.cdf(_checked(posterior, truth)) - 1).abs().flatten()
    central, order = central.sort()
    return interval_area(central, None if weights is None else _like(weights, truth).flatten()[order])


def interval_area(
    central: Float[Tensor, " entries"], weights: Float[Tensor, " entries"] | None = None
) -> Float[Tensor, ""]:
    """Area between the distribution function of sorted values in [0, 1] and the diagonal, in closed form."""
    central = central.double()
    weights = torch.ones_like(central) if weights is None else weights.double()
    zero = central.new_zeros(1)
    edges = torch.cat([zero, central, zero + 1])
    height = torch.cat([zero, weights.cumsum(0) / weights.sum()])
    # |p − c| has the antiderivative (p − c)|p − c| / 2 on each step of constant height c
    left, right = edges[:-1] - height, edges[1:] - height
    return (right * right.abs() - left * left.abs()).sum() / 2


def standardised(posterior: Posterior, truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Standardised residuals :math:`z = (y - \mu)/\sigma`, in float64.

    Raises
    ------
    DataError
        If a standard deviation is zero or infinite, or a label is not finite.
    """
    truth = _checked(posterior, truth)
    if not bool(((posterior.variance > 0) & torch.isfinite(posterior.variance)).all()):
        remedy = "include the noise of the labels"
        raise DataError(expected("posterior", "positive finite variances", "zeros or infinity", remedy))
    return (truth.double() - posterior.mean.double()) / posterior.stddev.double()


def pointwise_crps(posterior: Posterior, truth: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    r"""Continuous ranked probability score of each entry, in the unit of the posterior.

    .. math:: \mathrm{CRPS}(F, y) = \int \bigl( F(x) - 1\{y \le x\} \bigr)^2 \mathrm dx,

    in closed form for Gaussian, StudentT and Laplace and for a conformal distribution, the unbiased estimate from the
    draws of Draws (weighted ones are drawn again, 1000 times), and by quadrature for all others.

    Raises
    ------
    DataError
        If the posterior has no mean, where the score is infinite.

    References
    ----------
    Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359 (2007), equations 20-21.
    """
    import scoringrules

    truth = _checked(posterior, truth)
    if isinstance(posterior, Gaussian):
        return _normal_crps(truth.double(), posterior.mean.double(), posterior.stddev.double()).to(posterior.mean)
    if isinstance(posterior, Laplace | StudentT):
        return _tailed_crps(posterior, truth)
    if isinstance(posterior, Draws):
        equal = posterior.log_weights is None
        draws = posterior.values.flatten(0, 1) if equal else posterior.sample(1000, seed=0)
        return scoringrules.crps_ensemble(truth, draws, m_axis=0, estimator="pwm", backend="torch")
    exact = getattr(posterior, "crps", None)
    return _crps_by_quadrature(posterior, truth) if exact is None else exact(truth)


def _tailed_crps(posterior: Laplace | StudentT, truth: Tensor) -> Tensor:
    import scoringrules

    parts = [part.numpy(force=True) for part in (truth, posterior.location, posterior.scale)]
    if isinstance(posterior, Laplace):
        return torch.from_numpy(scoringrules.crps_laplace(*parts)).to(posterior.location)
    if not bool((posterior.degrees > 1).all()):
        raise DataError(expected("posterior", "more than one degree of freedom", "an infinite CRPS", "use nll"))
    parts.insert(1, posterior.degrees.numpy(force=True))
    return torch.from_numpy(scoringrules.crps_t(*parts)).to(posterior.location)


def _crps_by_quadrature(posterior: Posterior, truth: Tensor, nodes: int = 64) -> Tensor:
    r""":math:`\int_{-\infty}^y F^2 + \int_y^\infty (1 - F)^2` by Gauss-Legendre on both sides of the label.

    Within eight standard deviations of the mean; beyond, F is taken as 0 or 1.
    """
    points, weights = (torch.from_numpy(part).to(truth) for part in np.polynomial.legendre.leggauss(nodes))
    mean, reach = posterior.mean, 8 * posterior.stddev
    inside = torch.minimum(torch.maximum(truth, mean - reach), mean + reach)
    total = (truth - inside).abs()
    for sign in (-1, 1):
        half = (mean + sign * reach - inside) / 2
        for point, weight in zip(points, weights, strict=True):
            reached = posterior.cdf(inside + half * (1 + point))
            total = total + weight * (reached - (sign + 1) / 2).square() * half.abs()
    return total


def _normal_crps(truth: Tensor, mean: Tensor, stddev: Tensor) -> Tensor:
    # scoringrules' torch backend has π in float32, an error of 2e-7
    z = (truth - mean) / stddev
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return stddev * (z * (2 * torch.special.ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))


def auroc(
    scores: Float[Tensor, " entries"],
    positives: Bool[Tensor, " entries"],
    weights: Float[Tensor, " entries"] | None = None,
) -> Float[Tensor, ""]:
    r"""Probability that a positive scores higher than a negative, :math:`P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)`.

    The area under the receiver operating characteristic, by ranks with ties; scores may be infinite.

    Raises
    ------
    DataError
        If a score is NaN, or positives or negatives are missing.
    """
    if scores.shape != positives.shape or scores.ndim != 1:
        raise ShapeError(expected("positives", f"shape (entries,) {tuple(scores.shape)}", tuple(positives.shape)))
    if bool(scores.isnan().any()):
        raise DataError(expected("scores", "numbers", "NaN"))
    weights = torch.ones_like(scores, dtype=torch.float64) if weights is None else weights.double()
    values, inverse = scores.unique(return_inverse=True)
    positive, negative = weights * positives, weights * ~positives
    totals = float(positive.sum()), float(negative.sum())
    if min(totals) == 0:
        raise DataError(expected("positives", "both positives and negatives", totals))
    above = positive.new_zeros(len(values)).index_add(0, inverse, positive)
    below = positive.new_zeros(len(values)).index_add(0, inverse, negative)
    return (above * (below.cumsum(0) - below / 2)).sum() / (totals[0] * totals[1])


def _average(values: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return values.double().mean()
    weights = _like(weights, values).double()
    return (weights * values).sum() / weights.sum()


def _like(weights: Tensor, values: Tensor) -> Tensor:
    if weights.shape != values.shape:
        raise ShapeError(expected("weights", f"shape {tuple(values.shape)}", tuple(weights.shape)))
    return weights


def _checked(posterior: Posterior, truth: Tensor) -> Tensor:
    if truth.shape != posterior.shape:
        raise ShapeError(expected("truth", f"shape {tuple(posterior.shape)}", tuple(truth.shape)))
    if truth.numel() == 0 or not bool(torch.isfinite(truth).all()):
        raise DataError(expected("truth", "finite labels", "NaN, infinity or none", "remove entries without a label"))
    return truth


def separation(strange: Float[Tensor, " strange"], usual: Float[Tensor, " usual"]) -> Estimate:
    r"""Area under the ROC curve of ``strange`` against ``usual`` scores with its standard error.

    With the fraction :math:`v_i` of usual scores below each strange one, and :math:`w_j` of strange ones above each
    usual one, the variance is :math:`\mathrm{var}(v)/m + \mathrm{var}(w)/n`; infinite with fewer than two of a kind.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson, Biometrics 44, 837 (1988), equation 5.
    """
    parts = _fraction_below(strange, usual), 1 - _fraction_below(usual, strange)
    variance = sum(part.var() / len(part) if len(part) > 1 else torch.inf for part in parts)
    count = parts[0].new_tensor(float(len(strange)))
    return Estimate(parts[0].mean(), torch.as_tensor(variance).to(count).sqrt(), count, "")


def _fraction_below(scores: Tensor, others: Tensor) -> Float[Tensor, " scores"]:
    """Fraction of the others that each score exceeds; ties count half."""
    ordered = others.double().sort().values
    below, at_most = (torch.searchsorted(ordered, scores.double(), right=right) for right in (False, True))
    return (below + at_most) / (2.0 * len(ordered))
