"""Are two samples from one distribution? Exact tests by permutation, of whole groups where rows are not independent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.density_ratio import Classifier, check_samples, cross_fitted
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.typing import Features

__all__ = [
    "ClassifierTest",
    "Groups",
    "KernelTest",
    "TwoSample",
    "areas_under_curve",
    "guarantee",
    "permutation_p_value",
    "pooled_groups",
    "quadratic_forms",
    "shuffled_labels",
    "signed_weights",
    "standardised_rows",
]

Groups = tuple[Int[Tensor, " first"], Int[Tensor, " second"]]


@dataclass(frozen=True)
class TwoSample:
    """Result of a test that two samples are of one distribution.

    Attributes
    ----------
    statistic
        The larger, the more they differ.
    p_value
        At most p with probability ≤ p if they are of one.
    guarantee
        The sentence that holds.
    """

    statistic: float
    p_value: float
    guarantee: str


@dataclass(frozen=True)
class KernelTest:
    r"""Maximum mean discrepancy with a Gaussian kernel on standardised features.

    .. math:: \mathrm{MMD}^2 = \frac{1}{n^2} \sum_{ij} k(x_i, x_j) + \frac{1}{m^2} \sum_{ij} k(y_i, y_j)
       - \frac{2}{nm} \sum_{ij} k(x_i, y_j), \quad k(x, y) = e^{-|x - y|^2 / 2 \ell^2}

    with :math:`\ell` the median distance of the pooled rows.

    Attributes
    ----------
    permutations
        The smallest p-value is 1/(permutations + 1).

    References
    ----------
    Gretton, Borgwardt, Rasch, Schölkopf, Smola, J. Mach. Learn. Res. 13, 723 (2012), equation 5.
    """

    permutations: int = 999

    def __call__(
        self,
        first: Float[Tensor, "first features"],
        second: Float[Tensor, "second features"],
        *,
        groups: Groups | None = None,
        seed: int | torch.Generator,
    ) -> TwoSample:
        """Test of two samples.

        Parameters
        ----------
        groups
            Group of each row of both samples, such as its structure or its block of a trajectory: groups are permuted
            whole. By default each row is one.

        Raises
        ------
        ShapeError, DataError
            If the samples differ in their features, a feature is not finite, or there are too few rows.
        """
        check_samples(first, second, 2)
        owner, count = pooled_groups(groups, (len(first), len(second)), 2)
        rows, source = standardised_rows(first, second), numpy_generator(seed)
        weights = signed_weights(shuffled_labels(count, self.permutations, source)[:, owner].to(rows.device))
        found = _discrepancies(rows, weights, source)
        return TwoSample(float(found[0]), permutation_p_value(found), guarantee(groups, "exact"))


@dataclass(frozen=True)
class ClassifierTest:
    """Classifier two-sample test: can a classifier tell the samples apart in rows that it has not seen?

    Each fold gives the area under the curve of its own rows, by a classifier that was trained on the others, and a
    p-value by permuting the labels of its rows, which needs no new classifier. Twice the mean of the p-values of all
    folds is one, however they depend on each other. The area is a mean over all rows, and half of the rows are tested
    at a time: a small mode that is missing is seen sooner by :class:`~bayesmol.calibration.local_test.LocalTest`.

    Attributes
    ----------
    method
        As in :class:`~bayesmol.calibration.DensityRatio`.
    folds
        Parts of the cross-fitting.
    permutations
        The smallest p-value is 2/(permutations + 1).

    References
    ----------
    Lopez-Paz, Oquab, ICLR 2017, arXiv:1610.06545; Vovk, Wang, Biometrika 107, 791 (2020), for the mean of p-values.
    """

    method: Classifier = "quadratic"
    folds: int = 2
    permutations: int = 999

    def __call__(
        self,
        first: Float[Tensor, "first features"],
        second: Float[Tensor, "second features"],
        *,
        groups: Groups | None = None,
        seed: int | torch.Generator,
    ) -> TwoSample:
        """Test of two samples; arguments and errors as in :class:`KernelTest`. The statistic is the mean area."""
        check_samples(first, second, self.folds)
        sizes = len(first), len(second)
        owner, count = pooled_groups(groups, sizes, self.folds)
        source = numpy_generator(seed)
        part = np.concatenate([source.permutation(size) % self.folds for size in count])[owner.numpy()]
        log_odds, _ = cross_fitted(self.method, first, second, (part[: sizes[0]], part[sizes[0] :]))
        areas, p_values = [], []
        for k in range(self.folds):
            rows = np.flatnonzero(part == k)
            kept, own = owner[rows].unique(return_inverse=True)
            both = int((kept < count[0]).sum()), int((kept >= count[0]).sum())
            signs = shuffled_labels(both, self.permutations, source)[:, own]
            found = areas_under_curve(torch.from_numpy(log_odds[rows]), signs)
            areas.append(float(found[0]))
            p_values.append(permutation_p_value(found))
        return TwoSample(float(np.mean(areas)), min(1.0, 2 * float(np.mean(p_values))), guarantee(groups, "valid"))


def pooled_groups(
    groups: Groups | None, sizes: tuple[int, int], least: int
) -> tuple[Int[Tensor, " rows"], tuple[int, int]]:
    """Group of each pooled row, those of the first sample first, and the number of groups of each."""
    if groups is None:
        return torch.arange(sum(sizes)), sizes
    if tuple(len(part) for part in groups) != sizes:
        raise ShapeError(expected("groups", f"{sizes[0]} and {sizes[1]} groups", [len(part) for part in groups]))
    first, second = (part.cpu().unique(return_inverse=True)[1] for part in groups)
    count = int(first.max()) + 1, int(second.max()) + 1
    if min(count) < least:
        raise DataError(expected("groups", f"at least {least} groups in each sample", count))
    return torch.cat([first, second + count[0]]), count


def shuffled_labels(
    count: tuple[int, int], permutations: int, source: np.random.Generator
) -> Bool[Tensor, "draws groups"]:
    """Which groups are called second: the truth first, then random permutations of it."""
    if permutations < 1:
        raise DataError(expected("permutations", "at least 1", permutations))
    truth = np.repeat([False, True], count)
    drawn = source.permuted(np.tile(truth, (permutations, 1)), axis=1)
    return torch.from_numpy(np.concatenate([truth[None], drawn]))


def _discrepancies(
    rows: Features, weights: Float[Tensor, "draws rows"], source: np.random.Generator
) -> Float[Tensor, " draws"]:
    """:math:`a^T K a` for each row a of the weights, with a bounded part of the kernel in memory at a time."""
    # A random subset for the median: one that knew the samples would spoil the exactness.
    chosen = source.permutation(len(rows))[:1000]
    width = torch.pdist(rows[torch.from_numpy(chosen).to(rows.device)]).median()
    width = torch.where(width > 0, width, 1.0)
    return quadratic_forms(rows, weights, lambda distances: torch.exp(-0.5 * (distances / width).square()))


def quadratic_forms(
    rows: Features,
    weights: Float[Tensor, "draws rows"],
    kernel: Callable[[Tensor], Tensor] = lambda distances: distances,
) -> Float[Tensor, " draws"]:
    """:math:`a^T K a` for each row a of the weights, K a function of the distances, or these themselves."""
    found = weights.new_zeros(len(weights))
    size = max(1, 2**23 // len(rows))
    for part, weight in zip(rows.split(size), weights.split(size, dim=1), strict=True):
        found += ((weight @ kernel(torch.cdist(part, rows))) * weights).sum(1)
    return found


def standardised_rows(first: Float[Tensor, "first features"], second: Float[Tensor, "second features"]) -> Features:
    """Both samples, the first before the second, each feature in units of the standard deviation of all rows."""
    rows = torch.cat([first, second]).double()
    spread = rows.std(0, correction=0)
    return rows / torch.where(spread > 0, spread, 1.0)


def signed_weights(second: Bool[Tensor, "draws rows"]) -> Float[Tensor, "draws rows"]:
    """1/n for each row of the first sample, −1/m for each of the second."""
    signs = second.double()
    return (1 - signs) / (1 - signs).sum(1, keepdim=True) - signs / signs.sum(1, keepdim=True)


def areas_under_curve(scores: Float[Tensor, " rows"], second: Bool[Tensor, "draws rows"]) -> Float[Tensor, " draws"]:
    """Probability that a row of the second sample has a larger score than one of the first; half for ties."""
    _, inverse, counts = scores.unique(return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks = (ends - (counts - 1) / 2)[inverse]
    size = second.sum(1).double()
    return (second.double() @ ranks - size * (size + 1) / 2) / (size * (len(scores) - size))


def permutation_p_value(found: Float[Tensor, " draws"]) -> float:
    """Share of the permutations, the truth among them, that are at least as large; equal within rounding counts."""
    return float((found >= found[0] - 1e-12).double().mean())


def guarantee(groups: Groups | None, kind: str) -> str:
    """The sentence that holds for a p-value by permutation."""
    unit = "rows" if groups is None else "groups"
    return f"{kind} p-value if all {unit} of both samples are exchangeable when nothing has changed"
