"""Where is the model good? The size of its errors as a field over features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.posterior import Estimate
from bayesmol.posterior.interval import checked_level
from bayesmol.typing import Features

__all__ = ["ErrorField", "FittedErrorField", "checked_field"]

_CHUNK = 2**23  # numbers in memory at once
_BAG = 4  # trees that share half of the structures


@dataclass(frozen=True)
class ErrorField:
    r"""Size of the error at each point of feature space, by a quantile regression forest.

    Each tree is grown on a random part of the structures and averages the errors in its leaves, so the forest gives a
    new point x weights :math:`w_j(x)` of the known errors, and with them their local mean and quantiles. Four trees
    share half of the structures, a bag; what differs between the bags is the uncertainty of the field.

    Attributes
    ----------
    trees
        Number of trees, a multiple of four.
    leaf
        Least number of rows in a leaf: fewer resolve more, more are less noisy.

    References
    ----------
    Meinshausen, J. Mach. Learn. Res. 7, 983 (2006) (quantiles); Sexton and Laake, Comput. Stat. Data Anal. 53, 801
    (2009), and Athey, Tibshirani, Wager, Ann. Stat. 47, 1148 (2019), section 4 (uncertainty by bags of trees).
    """

    trees: int = 200
    leaf: int = 10

    def __post_init__(self) -> None:
        if self.trees < 2 * _BAG or self.trees % _BAG:
            raise DataError(expected("trees", f"a multiple of {_BAG}, at least {2 * _BAG}", self.trees))
        if self.leaf < 1:
            raise DataError(expected("leaf", "at least 1", self.leaf))

    def fit(
        self,
        features: Features,
        absolute_residuals: Float[Tensor, " rows"],
        *,
        groups: Int[Tensor, " rows"] | None = None,
        seed: int | torch.Generator,
    ) -> FittedErrorField:
        """Field from rows with known errors, which the model must not have seen.

        Parameters
        ----------
        absolute_residuals
            Of any quantity that is not negative.
        groups
            Structure of each row, for the standard errors of the field.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, there are fewer than ten structures or six leaves of rows, a number is not finite, or a
            residual is negative.
        """
        from sklearn.tree import DecisionTreeRegressor

        groups = checked_field(features, absolute_residuals, groups, self.leaf)
        order, source = absolute_residuals.argsort(stable=True), numpy_generator(seed)
        values = absolute_residuals[order].double()
        rows, errors = _array(features[order]), _array(values)
        _, owner = np.unique(_array(groups[order]), return_inverse=True)
        trees, members = [], []
        for part in _parts(owner.max() + 1, self.trees, source):
            members.append(np.flatnonzero(part[owner]))
            tree = DecisionTreeRegressor(min_samples_leaf=self.leaf, random_state=int(source.integers(2**31)))
            trees.append(tree.fit(rows[members[-1]], errors[members[-1]]))
        return FittedErrorField(tuple(trees), tuple(members), rows, values)


@dataclass(frozen=True, eq=False)
class FittedErrorField:
    """Local distribution of the absolute error.

    Attributes
    ----------
    trees
        Regression trees, four of each bag after each other.
    members
        Rows that each tree was grown on.
    features, residuals
        All rows, by ascending residual.
    """

    trees: tuple[Any, ...]
    members: tuple[np.ndarray, ...]
    features: np.ndarray
    residuals: Float[Tensor, " rows"]

    def mean(self, features: Features) -> Estimate:
        r"""Local mean absolute error with its standard error, in the unit of the residuals.

        The variance is that between the means of the bags less the part that the few trees of a bag explain, and at
        least a tenth of it. It does not know how far the error changes within a leaf.
        """
        parts = [self._moments(_array(part)) for part in self._blocks(features, len(self.trees))]
        value, error, spread = torch.from_numpy(np.concatenate(parts, 1)).to(self.residuals)
        return Estimate(value, error, spread / error.square().clamp_min(1e-300), "")

    def quantile(self, features: Features, p: float) -> Float[Tensor, " new"]:
        """Absolute error that is exceeded with probability ``1 − p`` at each new point: ½ gives the median."""
        checked_level(p)
        found = []
        for part in self._blocks(features, len(self.features)):
            leaves = self._indicator(_array(part), [np.arange(len(part))] * len(self.trees))
            reached = (leaves @ self._weights).toarray().cumsum(1) >= p - 1e-9
            found.append(torch.from_numpy(reached.argmax(1)))
        return self.residuals[torch.cat(found).to(self.residuals.device)]

    def _blocks(self, features: Tensor, width: int) -> tuple[Tensor, ...]:
        """The new rows in blocks that take bounded memory with ``width`` numbers a row."""
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise ShapeError(expected("features", f"shape (rows, {self.features.shape[1]})", tuple(features.shape)))
        return features.split(max(1, _CHUNK // width))

    def _moments(self, features: np.ndarray) -> Float[np.ndarray, "3 new"]:
        """Mean, its standard error, and the local variance of the residuals."""
        residuals = _array(self.residuals)
        tables = []
        for tree, rows in zip(self.trees, self.members, strict=True):
            own, size = tree.apply(self.features[rows]), tree.tree_.node_count
            count = np.maximum(np.bincount(own, minlength=size), 1)
            first, second = (np.bincount(own, residuals[rows] ** k, size) / count for k in (1, 2))
            tables.append(np.stack([first, second])[:, tree.apply(features)])
        first, second = np.stack(tables, 1).reshape(2, -1, _BAG, len(features))
        bags = first.mean(1).var(0, ddof=1)
        within = first.var(1, ddof=1).mean(0) / _BAG
        mean = first.mean((0, 1))
        variance = np.maximum(bags - within, bags / 10)
        return np.stack([mean, np.sqrt(variance), np.maximum(second.mean((0, 1)) - mean**2, 0.0)])

    @cached_property
    def _weights(self) -> Any:
        """Weight of each row in each leaf, over the number of trees; axes (leaf, row)."""
        leaves = self._indicator(self.features, self.members)
        counts = np.asarray(leaves.sum(0)).ravel()
        return leaves.multiply(1 / np.maximum(counts, 1) / len(self.trees)).T.tocsr()

    def _indicator(self, features: np.ndarray, members: Sequence[np.ndarray]) -> Any:
        """Sparse matrix of the leaves that the members of each tree fall into, all trees side by side."""
        from scipy.sparse import csr_matrix

        sizes = np.cumsum([0] + [tree.tree_.node_count for tree in self.trees])
        parts = zip(self.trees, members, sizes, strict=False)
        columns = np.concatenate([tree.apply(features[rows]) + first for tree, rows, first in parts])
        rows = np.concatenate(members)
        return csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(features), sizes[-1]))


def _parts(structures: int, trees: int, source: np.random.Generator) -> Iterator[np.ndarray]:
    """Which structures each tree sees: 70 % of those of its bag, which has half of all."""
    for _ in range(trees // _BAG):
        bag = source.permutation(structures)[: -(-structures // 2)]
        for _ in range(_BAG):
            part = np.zeros(structures, dtype=bool)
            part[source.permutation(bag)[: -(-7 * len(bag) // 10)]] = True
            yield part


def checked_field(features: Tensor, values: Tensor, groups: Tensor | None, leaf: int) -> Int[Tensor, " rows"]:
    """The groups, by default each row one of its own; raises if these are no data for a field with this leaf."""
    if features.ndim != 2 or values.shape != features.shape[:1]:
        shapes = tuple(features.shape), tuple(values.shape)
        raise ShapeError(expected("features, values", "shapes (rows, features) and (rows,)", shapes))
    if len(values) < max(10, 6 * leaf):
        raise DataError(expected("features", f"at least {max(10, 6 * leaf)} rows", len(values), "use smaller leaves"))
    if not bool(torch.isfinite(features).all()) or not bool((torch.isfinite(values) & (values >= 0)).all()):
        raise DataError(expected("features, values", "finite numbers, values ≥ 0", "others"))
    if not bool((values > 0).any()):
        raise DataError(expected("values", "errors other than zero", "zeros"))
    if groups is None:
        return torch.arange(len(values), device=values.device)
    if groups.shape != values.shape:
        raise ShapeError(expected("groups", f"shape {tuple(values.shape)}", tuple(groups.shape)))
    if (structures := len(groups.unique())) < 10:
        raise DataError(expected("groups", "at least 10 structures", structures))
    return groups


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()
