r"""What labels are expected to tell, in nats: closed forms for Gaussian models, and Monte Carlo to check others.

A structure's labels have a factor W, (labels, rank): the covariance between the labels of s and t is
:math:`W_s W_t^\top`, and noise comes on top. For a linear model W is the design matrix times a root of the prior
covariance of the weights; for a Gaussian process it is a row block of a root of the kernel matrix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate

__all__ = [
    "InformationBounds",
    "d_optimality",
    "expected_information_gain",
    "monte_carlo_information",
    "optimal_design",
    "predictive_information",
    "variance_reduction",
]

Noise = float | Tensor


def expected_information_gain(
    design: Float[Tensor, "*designs labels weights"], noise: Noise, *, prior: Tensor | None = None
) -> Float[Tensor, "*designs"]:
    r"""Expected information of the labels of a design about the weights of a linear model, in nats.

    .. math:: I = \tfrac12 \ln\det\bigl(I + N^{-1/2} X S X^\top N^{-1/2}\bigr),

    the mutual information of weights and labels :math:`y = X w + \varepsilon` with :math:`w \sim \mathcal N(0, S)`. For
    a Gaussian it does not depend on the labels; it is also the "BALD" of the labels jointly.

    Parameters
    ----------
    design
        One row a label; leading axes are different designs. A factor of the covariance of labels, with no ``prior``.
    noise
        Standard deviation of a label, one number or one a label.
    prior
        Covariance S, (weights, weights); the identity if ``None``.

    Raises
    ------
    ShapeError, DataError
        If a shape does not fit, or noise is not positive.

    References
    ----------
    Lindley, Ann. Math. Stat. 27, 986 (1956); Chaloner, Verdinelli, Stat. Sci. 10, 273 (1995), section 2.
    """
    white = design.double() / _spread(noise, design)
    if prior is not None:
        if prior.shape != (design.shape[-1],) * 2:
            raise ShapeError(expected("prior", f"shape ({design.shape[-1]}, {design.shape[-1]})", tuple(prior.shape)))
        white = white @ torch.linalg.cholesky(prior.double())
    # det(I + A Aᵀ) = det(I + Aᵀ A): the smaller of the two matrices.
    gram = white @ white.mT if white.shape[-2] <= white.shape[-1] else white.mT @ white
    eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    return torch.linalg.cholesky(eye + gram).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def d_optimality(design: Float[Tensor, "*designs labels weights"]) -> Float[Tensor, "*designs"]:
    r"""Criterion :math:`\tfrac12 \ln\det X^\top X` of a design; −∞ if the labels do not determine the weights.

    With a prior much wider than the labels allow, the expected information is this plus a constant.
    """
    values = torch.linalg.eigvalsh(design.double().mT @ design.double())
    empty = values[..., 0] <= values[..., -1] * 1e-14
    return torch.where(empty, -math.inf, 0.5 * values.clamp_min(1e-300).log().sum(-1))


def optimal_design(
    candidates: Float[Tensor, "candidates weights"], size: int, noise: Noise, *, prior: Tensor | None = None
) -> list[int]:
    """Rows, each used once, whose expected information no exchange of one row for another can raise.

    A greedy start and then exchanges; the result is a local optimum, for few rows usually the best of all.

    Raises
    ------
    DataError
        If there are fewer candidates than ``size``.

    References
    ----------
    Fedorov, Theory of Optimal Experiments, Academic Press (1972); Meyer, Nachtsheim, Technometrics 37, 60 (1995).
    """
    if not 1 <= size <= len(candidates):
        raise DataError(expected("size", f"1 to {len(candidates)} (candidates)", size))
    spread = _spread(noise, candidates).expand(len(candidates), 1)
    chosen: list[int] = []
    white = candidates.double() / spread

    def best(others: list[int]) -> tuple[int, float]:
        fixed = white[others].expand(len(white), -1, -1)
        values = expected_information_gain(torch.cat([fixed, white[:, None]], 1), 1.0, prior=prior)
        values[others] = -math.inf
        return int(values.argmax()), float(values.max())

    for _ in range(size):
        chosen.append(best(chosen)[0])
    value, before = best(chosen[:-1])[1], -math.inf
    while value > before + 1e-12 * abs(value):
        before = value
        for place in range(size):
            chosen[place], value = best(chosen[:place] + chosen[place + 1 :])
    return chosen


def predictive_information(
    factor: Float[Tensor, "labels rank"],
    target: Float[Tensor, "targets components rank"],
    noise: Noise,
    target_noise: float,
) -> Float[Tensor, ""]:
    r"""Expected information of labels about a new label of a target, in nats, the mean over the targets (EPIG).

    .. math:: \frac1T \sum_t \tfrac12 \ln \frac{\det(C_t + \sigma_t^2)}{\det(C_t - A_t + \sigma_t^2)}, \qquad
              A_t = W_t W_s^\top (W_s W_s^\top + N)^{-1} W_s W_t^\top.

    Unlike the information about the weights, it counts only what matters for the targets.

    Parameters
    ----------
    factor, noise
        Of the labels, as in :func:`expected_information_gain`.
    target
        A factor of each target, whose components (of a force: three) are told jointly; then it does not depend on the
        orientation of the axes.
    target_noise
        Standard deviation of a target's label. Without it one exact label could bring infinite information.

    References
    ----------
    Bickford Smith, Kirsch, Farquhar, Gal, Foster, Rainforth, AISTATS 2023.
    """
    if not target_noise > 0:
        raise DataError(expected("target_noise", "a positive standard deviation", target_noise))
    prior = target.double() @ target.double().mT
    prior = prior + target_noise**2 * torch.eye(prior.shape[-1], dtype=prior.dtype, device=prior.device)
    left = prior - _explained(factor, target, noise)
    return 0.5 * (torch.logdet(prior) - torch.logdet(left)).mean()


def variance_reduction(
    factor: Float[Tensor, "labels rank"], target: Float[Tensor, "targets components rank"], noise: Noise
) -> Float[Tensor, ""]:
    r"""Reduction of the variance of the targets by labels, :math:`\tfrac1T \sum_t \operatorname{tr} A_t`.

    In the square of the unit of the targets; the integrated variance that is left is the present one minus this, and
    for a Gaussian it is known before the labels are. See :func:`predictive_information` for the symbols.

    References
    ----------
    Seo, Wallat, Graepel, Obermayer, IJCNN 2000 (after Cohn, 1993); as ``qNegIntegratedPosteriorVariance`` in BoTorch.
    """
    return _explained(factor, target, noise).diagonal(dim1=-2, dim2=-1).sum(-1).mean()


@dataclass(frozen=True)
class InformationBounds:
    """Expected information from a finite number of draws, in nats.

    Attributes
    ----------
    lower
        At most the true value in expectation; never above the logarithm of the number of draws.
    upper
        At least the true value in expectation.
    """

    lower: Estimate
    upper: Estimate


def monte_carlo_information(
    parameters: Float[Tensor, "draws weights"],
    simulate: Callable[[Tensor, torch.Generator], Tensor],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    *,
    seed: int | torch.Generator = 0,
    memory: int = 2**22,
) -> InformationBounds:
    r"""Expected information of the labels of any model with a likelihood, bounded from both sides.

    .. math:: \hat I = \frac1S \sum_s \Bigl[ \ln p(y_s \mid \theta_s) - \ln \frac1{|M_s|} \sum_{m \in M_s}
              p(y_s \mid \theta_m) \Bigr], \qquad y_s \sim p(y \mid \theta_s),

    where :math:`M_s` are all draws but s (nested Monte Carlo, biased upwards), or all draws (prior contrastive
    estimation, biased downwards). Both biases shrink as 1/S; take more draws until the bounds are close. The standard
    errors include that all labels share the same draws.

    Parameters
    ----------
    parameters
        Draws from the prior (or the present posterior).
    simulate
        ``(parameters, generator) → labels``, one row a draw.
    log_likelihood
        ``(labels, parameters) → (labels, parameters)``: logarithms of densities of each pair, in nats.
    memory
        Largest number of pairs at once.

    Raises
    ------
    DataError
        If there are fewer than two draws, or a density is NaN.

    References
    ----------
    Rainforth, Cornish, Yang, Warrington, Wood, ICML 2018; Foster, Jankowiak, O'Meara, Teh, Rainforth, AISTATS 2020.
    """
    size = len(parameters)
    if size < 2:
        raise DataError(expected("parameters", "at least two draws", size))
    labels = simulate(parameters, generator(seed, parameters.device))
    own, total, shares = [], [], torch.zeros(size, dtype=torch.float64, device=parameters.device)
    for rows in torch.arange(size, device=parameters.device).split(max(1, memory // size)):
        table = log_likelihood(labels[rows], parameters).double()
        if table.shape != (len(rows), size) or bool(torch.isnan(table).any()):
            raise DataError(expected("log_likelihood", f"({len(rows)}, {size}) numbers", tuple(table.shape)))
        own.append(table[torch.arange(len(rows)), rows])
        total.append(table.logsumexp(1))
        shares += (table - total[-1][:, None]).exp().sum(0)
    lower = torch.cat(own) - torch.cat(total) + math.log(size)
    # The others' sum is the whole times 1 − share; where a draw explains its label alone, only −∞ is left.
    rest = torch.cat(total) + torch.log1p(-(torch.cat(own) - torch.cat(total)).exp().clamp_max(1.0))
    upper = torch.cat(own) - rest + math.log(size - 1)
    return InformationBounds(*(_averaged(terms, shares) for terms in (lower, upper)))


def _averaged(terms: Tensor, shares: Tensor) -> Estimate:
    """Mean of the terms; a draw enters by its own term and by its share in the denominators of all."""
    count = terms.new_tensor(float(len(terms)))
    error = (terms - shares).std() / count.sqrt()
    return Estimate(terms.mean(), error.nan_to_num(nan=math.inf), count, "nat")


def _explained(factor: Tensor, target: Tensor, noise: Noise) -> Float[Tensor, "targets components components"]:
    """Covariance of each target that the labels take away."""
    if factor.shape[-1] != target.shape[-1]:
        raise ShapeError(expected("target", f"rank {factor.shape[-1]} of the factor", target.shape[-1]))
    white = factor.double() / _spread(noise, factor)
    eye = torch.eye(len(white), dtype=white.dtype, device=white.device)
    lower = torch.linalg.cholesky(eye + white @ white.mT)
    half = target.double() @ torch.linalg.solve_triangular(lower, white, upper=False).mT
    return half @ half.mT


def _spread(noise: Noise, rows: Tensor) -> Tensor:
    """Standard deviations as a column beside the rows."""
    spread = torch.as_tensor(noise, dtype=torch.float64, device=rows.device)
    if spread.ndim > 1 or (spread.ndim == 1 and len(spread) != rows.shape[-2]):
        raise ShapeError(expected("noise", f"a number or shape ({rows.shape[-2]},)", tuple(spread.shape)))
    if not bool((torch.isfinite(spread) & (spread > 0)).all()):
        raise DataError(expected("noise", "positive standard deviations of labels", noise))
    return spread.reshape(-1, 1)
