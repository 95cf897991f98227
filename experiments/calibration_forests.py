"""Random forests and three ways to read an uncertainty from them: spread, infinitesimal jackknife, quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from calibration_models import Law, Model
from jaxtyping import Float
from torch import Tensor

from bayesmol.inference.random import numpy_generator
from bayesmol.posterior import Gaussian
from bayesmol.posterior.quantiles import Quantiles

FLOOR = 1e-4  # least variance of a forest, in variances of the training targets


@dataclass(frozen=True)
class ForestSpread(Model):
    """Random forest whose predictive variance is that of its trees, as often used; nothing says that it is one."""

    trees: int = 300

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        forest = _forest(x, y, source, self.trees, 1)

        def law(inputs: Tensor) -> Gaussian:
            values = _tree_values(forest, inputs)
            return Gaussian(values.mean(0), values.var(0).clamp_min(FLOOR), unit="")

        return law


@dataclass(frozen=True)
class ForestJackknife(Model):
    r"""Random forest with the infinitesimal jackknife for its mean and out-of-bag residuals for the noise.

    .. math:: V(x) = \sum_i \mathrm{cov}_b(N_{bi}, t_b(x))^2 - \tfrac{n}{B^2} \sum_b (t_b(x) - \bar t(x))^2

    with the number :math:`N_{bi}` of times that tree b of B saw row i of n. The noise is such that the mean variance of
    the training rows is the out-of-bag mean square error, and at least a tenth of that.

    References
    ----------
    Wager, Hastie, Efron, J. Mach. Learn. Res. 15, 1625 (2014).
    """

    trees: int = 500

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        forest = _forest(x, y, source, self.trees, 1)
        seen = torch.stack([torch.from_numpy(rows).bincount(minlength=len(y)) for rows in forest.estimators_samples_])
        inside = _tree_values(forest, x)
        out = (seen == 0).double()
        residuals = ((out * inside).sum(0) / out.sum(0) - y)[out.sum(0) > 0]
        error = float(residuals.square().mean())
        noise = max(error - float(jackknife_variance(seen, inside).mean()), 0.1 * error)

        def law(inputs: Tensor) -> Gaussian:
            values = _tree_values(forest, inputs)
            epistemic = jackknife_variance(seen, values)
            return Gaussian(values.mean(0), epistemic + noise, unit="", epistemic_variance=epistemic)

        return law


def jackknife_variance(seen: Tensor, values: Float[Tensor, "trees points"]) -> Float[Tensor, " points"]:
    """Variance of the mean of bagged trees, with the correction for their finite number; at least zero."""
    trees, rows = seen.shape
    deviations = values - values.mean(0)
    covariances = (seen.double() - seen.double().mean(0)).T @ deviations / trees
    return (covariances.square().sum(0) - rows / trees * deviations.square().mean(0)).clamp_min(0.0)


@dataclass(frozen=True)
class QuantileForest(Model):
    """Conditional quantiles by the weights of a forest (Meinshausen, J. Mach. Learn. Res. 7, 983 (2006))."""

    trees: int = 300
    leaf: int = 5
    steps: int = 100

    def law(self, x: Tensor, y: Tensor, source: torch.Generator) -> Law:
        forest = _forest(x, y, source, self.trees, self.leaf)
        order = y.argsort()
        leaves, values = torch.from_numpy(forest.apply(x.numpy()))[order], y[order]
        levels = torch.linspace(0, 1, self.steps + 1, dtype=torch.float64)

        def law(inputs: Tensor) -> Quantiles:
            weights = leaf_weights(leaves, torch.from_numpy(forest.apply(inputs.numpy())))
            inner = levels.clamp(1e-9, 1 - 1e-9).expand(len(inputs), -1).contiguous()
            reached = torch.searchsorted(weights.cumsum(1), inner)
            return Quantiles(levels, values[reached].T.contiguous(), unit="")

        return law


def leaf_weights(leaves: Tensor, others: Tensor) -> Float[Tensor, "points rows"]:
    """Weight of each training row for each point: its mean share of the leaves that the point falls into."""
    weights = torch.zeros(len(others), len(leaves), dtype=torch.float64)
    for own, new in zip(leaves.T, others.T, strict=True):
        same = (new[:, None] == own).double()
        weights += same / same.sum(1, keepdim=True)
    return weights / leaves.shape[1]


def _forest(x: Tensor, y: Tensor, source: torch.Generator, trees: int, leaf: int) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    state = int(numpy_generator(source).integers(2**31))
    forest = RandomForestRegressor(trees, min_samples_leaf=leaf, max_features=1 / 3, random_state=state)
    return forest.fit(x.numpy(), y.numpy())


def _tree_values(forest: Any, inputs: Tensor) -> Float[Tensor, "trees points"]:
    rows = inputs.numpy().astype(np.float32)
    return torch.from_numpy(np.stack([tree.predict(rows) for tree in forest.estimators_]))
