"""Regions of low error in words: conjunctions of thresholds on named descriptors, judged on held-out structures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.boxes import Box, Rows, best_boxes
from bayesmol.calibration.reference import resampled_counts
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Estimate, Interval

__all__ = ["FoundSubgroup", "Subgroup", "SubgroupSearch"]

Bounds = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Subgroup:
    """Rows whose descriptors lie within bounds, ``lower < value ≤ upper``.

    Attributes
    ----------
    bounds
        Lower and upper bound of each descriptor that matters; infinite where there is none.
    units
        Unit of each descriptor, for printing.
    """

    bounds: Bounds
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def conditions(self) -> int:
        """Number of thresholds."""
        return sum(math.isfinite(bound) for pair in self.bounds.values() for bound in pair)

    def contains(self, descriptors: Mapping[str, Tensor]) -> Bool[Tensor, " rows"]:
        """Which rows belong to the subgroup."""
        if missing := sorted(set(self.bounds) - set(descriptors)):
            raise DataError(expected("descriptors", f"{sorted(self.bounds)}", f"none for {missing}"))
        inside = torch.ones_like(next(iter(descriptors.values())), dtype=torch.bool)
        for name, (lower, upper) in self.bounds.items():
            inside = inside & (descriptors[name].double() > lower) & (descriptors[name].double() <= upper)
        return inside

    def __str__(self) -> str:
        return " and ".join(self._texts()) or "all"

    def _texts(self) -> Iterator[str]:
        for name, (lower, upper) in self.bounds.items():
            unit = f" {self.units[name]}" if self.units.get(name) else ""
            if math.isfinite(lower) and math.isfinite(upper):
                yield f"{lower:.10g} < {name} ≤ {upper:.10g}{unit}"
            else:
                yield f"{name} > {lower:.10g}{unit}" if math.isfinite(lower) else f"{name} ≤ {upper:.10g}{unit}"


@dataclass(frozen=True, eq=False)
class FoundSubgroup:
    """A subgroup, what it promised where it was found, and what it keeps on structures that the search has not seen.

    Attributes
    ----------
    subgroup
        The region.
    coverage, relative_error
        On held-out rows: their fraction inside, and their mean error inside over that of all; with standard errors by
        a bootstrap over structures.
    reduction
        95 % bootstrap interval of 1 − relative error, on held-out rows.
    training_coverage, training_relative_error
        The same where the subgroup was found; too good by the search.
    simpler
        The best subgroups of fewer conditions, where they were found.
    """

    subgroup: Subgroup
    coverage: Estimate
    relative_error: Estimate
    reduction: Interval
    training_coverage: float
    training_relative_error: float
    simpler: tuple[Subgroup, ...]

    def __str__(self) -> str:
        share = 100 * float(self.coverage.value)
        return f"{self.subgroup}: {share:.0f} % of held-out rows, error {self.relative_error} of the overall"


@dataclass(frozen=True)
class SubgroupSearch:
    r"""Search for the region S with the largest coverage times error reduction,

    .. math:: q(S) = \frac{|S|}{n} \Bigl( \langle e \rangle - \langle e \rangle_S \Bigr)
                   = \frac 1n \sum_{i \in S} (\langle e \rangle - e_i),

    by a beam of regions that grow by one threshold, or one pair of thresholds, at a time. Rows at the border change q
    little, so its maximum has blurred borders: the thresholds of the regions found are then sharpened by the likelihood
    of two exponential laws of the errors, inside and outside. Of the best regions of 1, 2, … conditions the simplest is
    taken whose likelihood is within two standard errors of the best.

    Attributes
    ----------
    conditions
        Most thresholds.
    width
        Regions that are kept of each number of conditions.
    share
        Fraction of the structures in which the region is found; the others judge it.

    References
    ----------
    Sutton, Boley, Ghiringhelli, Rupp, Vreeken, Scheffler, Nat. Commun. 11, 4428 (2020).
    """

    conditions: int = 4
    width: int = 10
    share: float = 0.5

    def __post_init__(self) -> None:
        for name in ("conditions", "width"):
            if getattr(self, name) < 1:
                raise DataError(expected(name, "at least 1", getattr(self, name)))
        if not 0 < self.share < 1:
            raise DataError(expected("share", "a fraction strictly between 0 and 1", self.share))

    def fit(
        self,
        descriptors: Mapping[str, Tensor],
        errors: Float[Tensor, " rows"],
        *,
        units: Mapping[str, str] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
        seed: int | torch.Generator,
    ) -> FoundSubgroup:
        """Find a region in one part of the structures and judge it in the other.

        Parameters
        ----------
        descriptors
            Name → one number a row.
        errors
            Absolute or squared error of each row, of a model that has not seen its label.
        groups
            Structure of each row; by default each is one of its own.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, an error is negative, all are zero, or there are fewer than 20
            structures; or the region has no row among the held-out ones.
        """
        groups = _checked(descriptors, errors, groups)
        source, errors = generator(seed), errors.double()
        labels, owner = groups.unique(return_inverse=True)
        chosen = torch.randperm(len(labels), generator=source).to(owner.device) < round(self.share * len(labels))
        finding = chosen[owner]
        values = torch.stack([values.double()[finding] for values in descriptors.values()])
        boxes = best_boxes(Rows.of(values, errors[finding]), owner[finding], self.conditions, self.width)
        path = [Subgroup(_bounds(list(descriptors), box), dict(units or {})) for box in boxes]
        inside = path[-1].contains(descriptors)
        coverage, relative, reduction = _judged(inside[~finding], errors[~finding], owner[~finding], source)
        at, own = inside[finding].double(), errors[finding]
        parts = float(at.mean()), float((at * own).sum() / at.sum() / own.mean())
        return FoundSubgroup(path[-1], coverage, relative, reduction, *parts, tuple(path[:-1]))


def _bounds(names: list[str], box: Box) -> Bounds:
    pairs = zip(names, box.lower.tolist(), box.upper.tolist(), strict=True)
    return {name: (low, high) for name, low, high in pairs if math.isfinite(low) or math.isfinite(high)}


def _judged(
    inside: Tensor, errors: Tensor, owner: Tensor, source: torch.Generator
) -> tuple[Estimate, Estimate, Interval]:
    """Coverage, relative error and the interval of its reduction, by a bootstrap over structures."""
    if not bool(inside.any()):
        raise DataError(expected("descriptors", "a region that holds held-out rows", "none", "hand in more rows"))
    _, owner = owner.unique(return_inverse=True)
    structures = int(owner.max()) + 1
    columns = torch.stack([inside.double(), inside * errors, errors, torch.ones_like(errors)], 1)
    sums = columns.new_zeros(structures, 4).index_add_(0, owner, columns)
    counts = resampled_counts(structures, 1000, seed=source).to(sums)
    within, part, whole, rows = torch.cat([counts.new_ones(1, structures), counts]).matmul(sums).unbind(1)
    size = sums.new_tensor(float(structures))
    coverage, relative = within / rows, (part / within) / (whole / rows)
    usable = relative[1:][within[1:] > 0]
    low, high = (1 - usable).quantile(sums.new_tensor([0.025, 0.975])).unbind()
    found = Estimate(coverage[0], coverage[1:].std(), size, ""), Estimate(relative[0], usable.std(), size, "")
    return *found, Interval(low, high, 0.95, "", f"bootstrap over {structures} held-out structures; approximate")


def _checked(descriptors: Mapping[str, Tensor], errors: Tensor, groups: Tensor | None) -> Int[Tensor, " rows"]:
    shapes = {name: tuple(values.shape) for name, values in descriptors.items()}
    if errors.ndim != 1 or not shapes or set(shapes.values()) != {tuple(errors.shape)}:
        raise ShapeError(expected("descriptors", f"shape {tuple(errors.shape)} of the errors", shapes))
    if not all(bool(torch.isfinite(values).all()) for values in (errors, *descriptors.values())):
        raise DataError(expected("descriptors, errors", "finite numbers", "NaN or infinity"))
    if not bool((errors >= 0).all()) or not bool((errors > 0).any()):
        raise DataError(expected("errors", "numbers ≥ 0, not all zero", "others", "hand in absolute errors"))
    groups = torch.arange(len(errors), device=errors.device) if groups is None else groups
    if groups.shape != errors.shape:
        raise ShapeError(expected("groups", f"shape {tuple(errors.shape)}", tuple(groups.shape)))
    if len(groups.unique()) < 20:
        raise DataError(expected("groups", "at least 20 structures", len(groups.unique())))
    return groups
