"""Domain in words: a conjunction of thresholds on named features inside which errors are small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.applicability.linear import new_rows, training_rows
from bayesmol.applicability.measures import Intervals, Measure, clopper_pearson
from bayesmol.calibration.boxes import Rows, best_boxes
from bayesmol.calibration.subgroups import Subgroup
from bayesmol.errors import ApplicabilityError, DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.typing import Features

__all__ = ["FoundDomain", "SubgroupDomain"]

LEAST = 20  # groups of rows that are searched, and that judge


@dataclass(frozen=True)
class SubgroupDomain:
    r"""Search for the box of features with the largest coverage times reduction of the error.

    The search is that of :class:`bayesmol.calibration.subgroups.SubgroupSearch`. What it promises on the rows in which
    it found the box is too good, so other rows judge: those of groups that the search has not seen.

    Attributes
    ----------
    conditions
        Most thresholds.
    width
        Boxes that are kept of each number of thresholds.
    share
        Fraction of the groups that are searched.
    tolerance
        Error that a row inside should not exceed, in the unit of the errors; by default the mean error of the rows
        that are searched.
    confidence
        Of the guarantee.

    References
    ----------
    Sutton, Boley, Ghiringhelli, Rupp, Vreeken, Scheffler, Nat. Commun. 11, 4428 (2020).
    """

    conditions: int = 4
    width: int = 10
    share: float = 0.5
    tolerance: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("conditions", "width"):
            if getattr(self, name) < 1:
                raise DataError(expected(name, "at least 1", getattr(self, name)))
        for name, least in (("share", 0.0), ("confidence", 0.5)):
            if not least < getattr(self, name) < 1:
                raise DataError(expected(name, f"a number strictly between {least:g} and 1", getattr(self, name)))
        if self.tolerance is not None and not self.tolerance > 0:
            raise DataError(expected("tolerance", "an error above zero, or None", self.tolerance))

    def fit(
        self,
        features: Features,
        errors: Float[Tensor, " rows"],
        *,
        names: Sequence[str] | None = None,
        units: Mapping[str, str] | None = None,
        groups: Int[Tensor, " rows"] | None = None,
        seed: int | torch.Generator,
    ) -> FoundDomain:
        """Find a box in some of the rows, and judge it in the others.

        Parameters
        ----------
        errors
            Absolute errors of a model that has not seen the labels of these rows.
        names
            Of the features, for the sentences; by default ``feature 0``, …
        units
            Name → unit, for printing.
        groups
            What rows depend on each other in; by default each row is independent.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, an error is negative or all are equal, or all features are
            constant.
        ApplicabilityError
            If there are fewer than 20 groups to search or to judge, or none of the judging rows is inside.
        """
        features, names = training_rows(features), _names(names, features)
        errors, owner = _checked(features, errors, groups)
        count = int(owner.max()) + 1
        source = generator(seed)
        chosen = torch.randperm(count, generator=source) < round(self.share * count)
        if min(int(chosen.sum()), int((~chosen).sum())) < LEAST:
            aim = f"at least {LEAST} groups to search and {LEAST} to judge"
            raise ApplicabilityError(expected("groups", aim, f"{count} in all", "hand in more rows"))
        searched = chosen.to(owner.device)[owner]
        rows = Rows.of(features[searched].T.contiguous(), errors[searched])
        box = best_boxes(rows, owner[searched].unique(return_inverse=True)[1], self.conditions, self.width)[-1]
        ends = {name: (float(low), float(high)) for name, low, high in zip(names, box.lower, box.upper, strict=True)}
        bounds = {name: pair for name, pair in ends.items() if pair != (-torch.inf, torch.inf)}
        region = Subgroup(bounds, {name: unit for name, unit in (units or {}).items() if name in bounds})
        tolerance = float(errors[searched].mean()) if self.tolerance is None else self.tolerance
        judging = features[~searched], errors[~searched], owner[~searched]
        return self._judged(region, names, *judging, tolerance, source)

    def _judged(
        self,
        region: Subgroup,
        names: tuple[str, ...],
        features: Tensor,
        errors: Tensor,
        owner: Tensor,
        limit: float,
        source: torch.Generator,
    ) -> FoundDomain:
        owner = owner.unique(return_inverse=True)[1]
        inside = region.contains(dict(zip(names, features.T, strict=True)))
        if not bool(inside.any()):
            raise ApplicabilityError(expected("features", "judging rows inside the domain", "none", "hand in more"))

        def relative(rows: Int[Tensor, " drawn"]) -> list[float]:
            return [float(errors[rows][inside[rows]].mean() / errors[rows].mean())]

        single = len(owner.unique()) == len(owner)
        intervals = Intervals(None if single else owner, self.confidence)
        coverage = intervals.rate(inside, torch.ones_like(inside))
        ratio = intervals.resampled(relative, len(errors), seed=source)[0]
        worst = errors.new_zeros(int(owner.max()) + 1).scatter_reduce(0, owner[inside], errors[inside], "amax")
        present = owner[inside].unique()
        failed = int((worst[present] > limit).sum())
        # one-sided at the confidence: the upper end of an interval with twice the tail
        bound = clopper_pearson(failed, len(present), 2 * self.confidence - 1)[1]
        return FoundDomain(region, names, coverage, ratio, limit, bound, len(present), self.confidence, single)


@dataclass(frozen=True)
class FoundDomain:
    """A box that was found, and what it keeps on rows that the search has not seen.

    Attributes
    ----------
    region
        The box.
    coverage, relative_error
        Fraction of the judging rows inside, exact for independent rows, and their mean error over that of all, by
        a bootstrap of the judging groups that is close to its confidence from about 50 of them inside.
    tolerance, exceedance
        Error, and the upper bound of the probability that a new row inside exceeds it.
    judges
        Judging groups with a row inside.
    """

    region: Subgroup
    names: tuple[str, ...]
    coverage: Measure
    relative_error: Measure
    tolerance: float
    exceedance: float
    judges: int
    confidence: float
    single: bool = field(default=True, repr=False)

    @property
    def conditions(self) -> tuple[str, ...]:
        """One sentence for each feature that is bounded; none if the domain is everything."""
        return tuple(str(Subgroup({name: pair}, self.region.units)) for name, pair in self.region.bounds.items())

    @property
    def guarantee(self) -> str:
        """The sentence that holds for new rows inside, and for which ones."""
        unit = "rows" if self.single else "groups with rows inside have one that"
        return (
            f"with {100 * self.confidence:g} % confidence at most {100 * self.exceedance:.3g} % of new {unit} "
            f"{'inside ' if self.single else ''}exceed{'' if self.single else 's'} an error of {self.tolerance:.4g} "
            f"(n = {self.judges}, not used in the search), if they are independent and distributed as these"
        )

    def inside(self, features: Features) -> Bool[Tensor, " rows"]:
        """Which rows satisfy all conditions."""
        return self.region.contains(dict(zip(self.names, new_rows(features, len(self.names)).T, strict=True)))

    def __str__(self) -> str:
        sentence = " and ".join(self.conditions) or "everywhere"
        return f"{sentence}: coverage {self.coverage}, error {self.relative_error} of the overall; {self.guarantee}"


def _names(names: Sequence[str] | None, features: Tensor) -> tuple[str, ...]:
    names = tuple(f"feature {k}" for k in range(features.shape[1])) if names is None else tuple(names)
    if len(names) != features.shape[1] or len(set(names)) != len(names):
        raise DataError(expected("names", f"{features.shape[1]} different names", list(names)))
    return names


def _checked(features: Tensor, errors: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor]:
    groups = torch.arange(len(features), device=features.device) if groups is None else groups
    for name, given in (("errors", errors), ("groups", groups)):
        if given.shape != features.shape[:1]:
            raise ShapeError(expected(name, f"shape ({len(features)},)", tuple(given.shape)))
    if not bool((errors.isfinite() & (errors >= 0)).all()) or not bool((errors != errors[0]).any()):
        raise DataError(expected("errors", "finite numbers ≥ 0 that differ", "others", "hand in absolute errors"))
    return errors.double(), groups.unique(return_inverse=True)[1]
