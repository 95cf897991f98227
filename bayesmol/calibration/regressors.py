"""Regressors refitted without some rows: ridge regression and Gaussian processes in closed form, and any other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected

__all__ = ["GaussianProcess", "LinearModels", "Models", "Ridge", "checked_rows", "cholesky", "trained"]

Models = Callable[[Tensor], Tensor]  # from inputs (points, features) to predictions (models, points)


@dataclass(frozen=True, eq=False)
class LinearModels:
    r"""Several linear functions :math:`f_k(x) = w_k \cdot x + b_k` of the same inputs.

    Attributes
    ----------
    coefficients, intercepts
        One row a model.
    """

    coefficients: Float[Tensor, "models features"]
    intercepts: Float[Tensor, " models"]

    def __call__(self, inputs: Float[Tensor, "points features"]) -> Float[Tensor, "models points"]:
        """Prediction of each model at each point."""
        return torch.addmm(self.intercepts[:, None], self.coefficients, inputs.to(self.coefficients).T)

    def at(self, inputs: Float[Tensor, "rows features"], model: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Prediction for each row by the one model that is named for it."""
        return (inputs * self.coefficients[model]).sum(1) + self.intercepts[model]


@dataclass(frozen=True)
class Ridge:
    r"""Ridge regression, the posterior mean of a linear model with a normal prior.

    .. math:: \min_{w, b} \sum_i (y_i - w \cdot x_i - b)^2 + \lambda |w|^2 .

    With :math:`\lambda = 0` it is least squares, and of all solutions the one with the least :math:`|w|`.

    Attributes
    ----------
    penalty
        :math:`\lambda`: the variance of the noise divided by the prior variance of a coefficient.
    intercept
        Whether there is a constant b, which is not penalised.

    Raises
    ------
    DataError
        If the penalty is negative or not finite.
    """

    penalty: float = 1.0
    intercept: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.penalty < math.inf:
            raise DataError(expected("penalty", "a finite number ≥ 0", self.penalty))

    def fit(self, inputs: Float[Tensor, "rows features"], truth: Float[Tensor, " rows"]) -> LinearModels:
        """The one model of all rows."""
        inputs, truth = checked_rows(inputs, truth)
        centre, level = self.centre(inputs, truth)
        left, values, right = _decomposed(inputs - centre)
        weights = (right.mT * (values / (values.square() + self.penalty))) @ (left.mT @ (truth - level))
        return LinearModels(weights[None], (level - centre @ weights)[None])

    def leave_fold_out(
        self, inputs: Float[Tensor, "rows features"], truth: Float[Tensor, " rows"], folds: Int[Tensor, " rows"]
    ) -> tuple[LinearModels, Float[Tensor, " rows"]]:
        """Model k of the rows that are not in fold k, and the residual of each row from the model without its fold.

        The Gram matrix without a fold is the sum of those of the folds before it and after it, which does not cancel
        as their total minus that of the fold would; each fold then costs one Cholesky factor.

        Raises
        ------
        ConvergenceError
            If the Gram matrix without some fold is singular to working precision.
        """
        inputs, truth = checked_rows(inputs, truth)
        centre, level = self.centre(inputs, truth)
        order, sizes = folds.argsort(stable=True), folds.bincount()
        ones = truth.new_ones(len(truth), 1)
        columns = torch.cat([inputs - centre, (truth - level)[:, None], ones], 1)[order]
        parts = torch.stack([part.mT @ part for part in columns.split(sizes.tolist())])
        others = _sums_of_others(parts)
        gram, moment, count = others[:, :-2, :-2], others[:, :-2, -2], others[:, -1, -1]
        shift = others[:, :-1, -1] / count[:, None] * (1.0 if self.intercept else 0.0)
        gram = gram - count[:, None, None] * shift[:, :-1, None] * shift[:, None, :-1]
        moment = moment - count[:, None] * shift[:, :-1] * shift[:, -1:]
        root = cholesky(gram + self.penalty * torch.eye(inputs.shape[1]).to(gram), "inputs")
        weights = torch.cholesky_solve(moment[..., None], root)[..., 0]
        constant = level + shift[:, -1] - ((centre + shift[:, :-1]) * weights).sum(1)
        models = LinearModels(weights, constant)
        return models, truth - models.at(inputs, folds)

    def leave_one_out(
        self, inputs: Float[Tensor, "rows features"], truth: Float[Tensor, " rows"]
    ) -> tuple[LinearModels, Float[Tensor, " rows"]]:
        r"""Model i of all rows but i, and the residual of row i from it; by one singular value decomposition.

        With :math:`q_i = (X^T X + \lambda)^{-1} x_i`, the leverage :math:`h_i = x_i \cdot q_i` and the residual
        :math:`e_i`, :math:`w_{-i} = w - q_i g_i` with :math:`g_i = e_i / (1 - h_i)`. A row that no other row
        supports has :math:`h_i = 1, e_i = 0`: then :math:`q_i` spans what is lost without it, the solution of least
        norm has :math:`g_i = q_i \cdot w / |q_i|^2`, and again :math:`g_i` is the residual.
        """
        inputs, truth = checked_rows(inputs, truth)
        centre, level = self.centre(inputs, truth)
        left, values, right = _decomposed(inputs - centre)
        shrunk = self.penalty / (values.square() + self.penalty)
        mean = 1 / len(truth) if self.intercept else 0.0
        outside = 1 - mean - left.square().sum(1)
        # 1 − h and e as sums of what is not fitted: no difference of nearly equal numbers where the penalty is small
        free = torch.where(outside > len(truth) * 1e-14, outside, 0.0) + (left.square() * shrunk).sum(1)
        goal = truth - level
        along = left.mT @ goal
        residual = goal - left @ along + left @ (shrunk * along)
        gain = values / (values.square() + self.penalty)
        weights, q = right.mT @ (gain * along), (left * gain) @ right
        alone = free <= len(truth) * 1e-14
        lost = (q @ weights) / q.square().sum(1).clamp_min(torch.finfo(q.dtype).tiny)
        g = torch.where(alone, lost, residual / torch.where(alone, 1.0, free))
        constant = level - centre @ weights + g * (q @ centre - mean)
        return LinearModels(weights - q * g[:, None], constant), g

    def centre(self, inputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """What the intercept takes away from inputs and labels: their means, or zeros without an intercept."""
        factor = 1.0 if self.intercept else 0.0
        return factor * inputs.mean(0), factor * truth.mean()


@dataclass(frozen=True)
class GaussianProcess:
    r"""Gaussian-process regression of mean zero with a known kernel :math:`k` and noise variance :math:`\lambda`.

    Attributes
    ----------
    kernel
        Function of two arrays of inputs, ``(rows, features)`` and ``(points, features)``, to ``(rows, points)``.
    noise
        Variance of the noise of a label.

    Raises
    ------
    DataError
        If the noise is not positive and finite.
    """

    kernel: Callable[[Tensor, Tensor], Tensor]
    noise: float

    def __post_init__(self) -> None:
        if not 0 < self.noise < math.inf:
            raise DataError(expected("noise", "a positive finite number", self.noise))

    def fit(self, inputs: Float[Tensor, "rows features"], truth: Float[Tensor, " rows"]) -> Models:
        """The one model of all rows."""
        inputs, truth = checked_rows(inputs, truth)
        weights = torch.cholesky_solve(truth[:, None], self.root(inputs))
        return lambda points: weights.T @ self.matrix(inputs, points)

    def leave_one_out(
        self, inputs: Float[Tensor, "rows features"], truth: Float[Tensor, " rows"]
    ) -> tuple[Models, Float[Tensor, " rows"]]:
        r"""Model i of all rows but i, and the residual of row i from it, by one inverse.

        With :math:`P = (K + \lambda)^{-1}`, :math:`a = P y` and the residual :math:`g_i = a_i / P_{ii}`, the weights
        without row i are :math:`a - P_{\cdot i}\, g_i`.

        References
        ----------
        Rasmussen, Williams, Gaussian Processes for Machine Learning (2006), equation 5.12.
        """
        inputs, truth = checked_rows(inputs, truth)
        inverse = torch.cholesky_inverse(self.root(inputs))
        together = inverse @ truth
        residuals = together / inverse.diagonal()
        weights = together[:, None] - inverse * residuals
        return (lambda points: weights.T @ self.matrix(inputs, points)), residuals

    def root(self, inputs: Float[Tensor, "rows features"]) -> Float[Tensor, "rows rows"]:
        """Cholesky factor of the covariance of the labels."""
        kernel = self.matrix(inputs, inputs)
        return cholesky(kernel + self.noise * torch.eye(len(inputs)).to(kernel), "kernel")

    def matrix(
        self, inputs: Float[Tensor, "rows features"], points: Float[Tensor, "points features"]
    ) -> Float[Tensor, "rows points"]:
        """Kernel between two sets of inputs; raises :class:`ShapeError` if it has another shape."""
        found, shape = self.kernel(inputs, points.to(inputs)), (len(inputs), len(points))
        if found.shape != shape:
            raise ShapeError(expected("kernel", f"a matrix of shape {shape}", tuple(found.shape)))
        return found.detach().double()


def trained(regressor: Any, inputs: Tensor, truth: Tensor) -> Callable[[Tensor], Tensor]:
    """Function from points to predictions, of a regressor of this file or a fitted copy of any with fit and predict.

    Raises
    ------
    DataError
        If the regressor has no ``fit`` and ``predict``, or predicts something else than one finite number a point.
    """
    if isinstance(regressor, Ridge | GaussianProcess):
        models = regressor.fit(inputs, truth)
        return lambda points: models(points)[0]
    if not (hasattr(regressor, "fit") and hasattr(regressor, "predict")):
        raise DataError(expected("regressor", "a Ridge, or one with fit and predict", type(regressor).__name__))
    from sklearn.base import clone

    inputs, truth = checked_rows(inputs, truth)
    copy = clone(regressor, safe=False)
    copy.fit(inputs.cpu().numpy(), truth.cpu().numpy())

    def predict(points: Tensor) -> Tensor:
        found = torch.as_tensor(copy.predict(points.detach().cpu().numpy()), dtype=torch.float64)
        if found.numel() != len(points) or not bool(torch.isfinite(found).all()):
            raise DataError(expected("regressor", f"{len(points)} finite predictions", tuple(found.shape)))
        return found.reshape(-1).to(points.device)

    return predict


def checked_rows(inputs: Tensor, truth: Tensor) -> tuple[Float[Tensor, "rows features"], Float[Tensor, " rows"]]:
    """Inputs and labels in float64; raises unless they are finite, with one label a row and at least two rows."""
    if inputs.ndim != 2 or truth.shape != inputs.shape[:1]:
        shapes = tuple(inputs.shape), tuple(truth.shape)
        raise ShapeError(expected("inputs, truth", "shapes (rows, features), (rows,)", shapes))
    if len(truth) < 2:
        raise DataError(expected("truth", "at least two labels", len(truth)))
    if not bool(torch.isfinite(inputs).all() & torch.isfinite(truth).all()):
        raise DataError(expected("inputs, truth", "finite numbers", "NaN or infinity", "remove these rows"))
    return inputs.detach().double(), truth.detach().double()


def _decomposed(inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Singular value decomposition without the values that are zero to working precision."""
    left, values, right = torch.linalg.svd(inputs, full_matrices=False)
    kept = values > max(inputs.shape) * torch.finfo(values.dtype).eps * values.amax()
    return left[:, kept], values[kept], right[kept]


def _sums_of_others(parts: Float[Tensor, " folds *shape"]) -> Float[Tensor, " folds *shape"]:
    zero = torch.zeros_like(parts[:1])
    before = torch.cat([zero, parts[:-1].cumsum(0)])
    after = torch.cat([zero, parts[1:].flip(0).cumsum(0)]).flip(0)
    return before + after


def cholesky(matrices: Float[Tensor, "*batch n n"], name: str) -> Float[Tensor, "*batch n n"]:
    """Lower Cholesky factors; raises :class:`ConvergenceError` if one is singular to working precision."""
    factor, failed = torch.linalg.cholesky_ex(matrices)
    pivots, diagonal = factor.diagonal(dim1=-2, dim2=-1).square(), matrices.diagonal(dim1=-2, dim2=-1)
    if bool(failed.any()) or bool((pivots < matrices.shape[-1] * torch.finfo(factor.dtype).eps * diagonal).any()):
        remedy = "increase the penalty or the noise, or leave out what depends on the rest"
        raise ConvergenceError(expected(name, "a Gram matrix of full rank", "a singular one", remedy))
    return factor
