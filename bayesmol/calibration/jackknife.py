"""Jackknife intervals: leave-one-out in closed form, and after the bootstrap without any further fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.cross import ENTRIES, CrossRule
from bayesmol.calibration.regressors import GaussianProcess, Models, Ridge, checked_rows, trained
from bayesmol.calibration.shifted import ShiftedResiduals
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.progress import progress

__all__ = ["Jackknife", "JackknifeAfterBootstrap"]


@dataclass(frozen=True)
class Jackknife:
    r"""Leave-one-out intervals of ridge regression, least squares or a Gaussian process, by one factorisation.

    ``"plus"`` takes the order statistics of :math:`\mu_{-i}(x) \pm R_i`, and covers with probability at least
    :math:`2\,\mathrm{level} - 1` whatever the data; ``"minmax"`` is wider and covers with probability at least
    ``level``; ``"plain"`` puts the quantile of the residuals :math:`R_i` about :math:`\mu(x)`, which has no guarantee:
    with as many rows as coefficients it covers far less than ``level``. Time is :math:`O(n)` a point.

    Attributes
    ----------
    method
        ``"plus"``, ``"minmax"`` or ``"plain"``.

    References
    ----------
    Barber, Candès, Ramdas, Tibshirani, Ann. Stat. 49, 486 (2021), theorem 1 (jackknife+).
    """

    method: Literal["plus", "minmax", "plain"] = "plus"

    def __post_init__(self) -> None:
        if self.method not in ("plus", "minmax", "plain"):
            raise DataError(expected("method", "'plus', 'minmax' or 'plain'", repr(self.method)))

    def fit(
        self,
        regressor: Ridge | GaussianProcess,
        inputs: Float[Tensor, "rows features"],
        truth: Float[Tensor, " rows"],
        *,
        unit: str = "",
    ) -> CrossRule:
        """Models without each row, and their residuals.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, or the regressor has no closed form.
        """
        if not isinstance(regressor, Ridge | GaussianProcess):
            remedy = "CrossConformal(folds=n) refits any regressor"
            raise DataError(expected("regressor", "a Ridge or GaussianProcess", type(regressor).__name__, remedy))
        models, residuals = regressor.leave_one_out(inputs, truth)
        folds = torch.arange(len(truth), device=truth.device)
        if self.method == "plain":
            models, folds = regressor.fit(inputs, truth), torch.zeros_like(folds)
        found = ShiftedResiduals.of(residuals, folds)
        return CrossRule(models, found, self.method, torch.ones_like(folds), unit)


@dataclass(frozen=True)
class JackknifeAfterBootstrap:
    r"""Jackknife+ intervals of a bagged regressor, from the bootstrap samples that happen to lack a row.

    The model without row i is the mean or the median of those fitted to samples without row i, so nothing is fitted
    but the B members of the ensemble. The guarantee :math:`2\,\mathrm{level} - 1` needs a random number of samples,
    :math:`B \sim \mathrm{Binomial}(\tilde B, (1 - 1/(n+1))^n)`, as if those with a test row among n + 1 had been
    thrown away. A row that is in all samples has no such model and counts as an infinite residual.

    Attributes
    ----------
    bootstraps
        Expected number of samples.
    aggregation
        ``"mean"`` or ``"median"`` of the members.

    References
    ----------
    Kim, Xu, Barber, NeurIPS 2020 (arXiv:2002.09025), theorem 1.
    """

    bootstraps: int = 30
    aggregation: Literal["mean", "median"] = "mean"

    def __post_init__(self) -> None:
        if self.bootstraps < 1:
            raise DataError(expected("bootstraps", "at least 1", self.bootstraps))
        if self.aggregation not in ("mean", "median"):
            raise DataError(expected("aggregation", "'mean' or 'median'", repr(self.aggregation)))

    def fit(
        self,
        regressor: Any,
        inputs: Float[Tensor, "rows features"],
        truth: Float[Tensor, " rows"],
        *,
        groups: Int[Tensor, " rows"] | None = None,
        unit: str = "",
        seed: int | torch.Generator,
    ) -> CrossRule:
        """Models of the bootstrap samples, and the residual of each row from those without it.

        Parameters
        ----------
        regressor
            A :class:`Ridge`, a :class:`GaussianProcess`, or anything with ``fit`` and ``predict`` of arrays.
        groups
            Group of each row, such as its structure: whole groups are drawn.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, or no sample was drawn.
        """
        inputs, truth = checked_rows(inputs, truth)
        owner = torch.arange(len(truth), device=truth.device) if groups is None else groups
        if owner.shape != truth.shape:
            raise ShapeError(expected("groups", f"shape {tuple(truth.shape)}", tuple(owner.shape)))
        _, owner = owner.unique(return_inverse=True)
        counts = _drawn(int(owner.max()) + 1, self.bootstraps, generator(seed, truth.device))[:, owner]
        members = []
        with progress("bootstrap", len(counts)) as advance:
            for count in counts:
                rows = torch.repeat_interleave(count)
                members.append(trained(regressor, inputs[rows], truth[rows]))
                advance()
        return self.rule(
            lambda points: torch.stack([m(points) for m in members]), inputs, truth, counts == 0, owner, unit
        )

    def rule(
        self,
        members: Models,
        inputs: Float[Tensor, "rows features"],
        truth: Float[Tensor, " rows"],
        absent: Bool[Tensor, "members rows"],
        groups: Int[Tensor, " rows"],
        unit: str = "",
    ) -> CrossRule:
        """Rule of an ensemble that is fitted already, when it is known which rows each member has not seen.

        Its guarantee holds if the number of members was drawn as :meth:`fit` draws it.

        Parameters
        ----------
        members
            Function from inputs to the prediction of each member, ``(members, points)``.
        absent
            Whether a row is absent from the sample of a member.
        """
        predictions = members(inputs).double()
        if absent.shape != predictions.shape or groups.shape != absent.shape[1:]:
            shapes = tuple(absent.shape), tuple(groups.shape)
            raise ShapeError(expected("absent, groups", f"shapes for {tuple(predictions.shape)}", shapes))
        own = _median(predictions, absent) if self.aggregation == "median" else _mean(predictions, absent)
        residuals = torch.where(absent.any(0), truth - own, torch.inf)
        patterns, folds = absent.T.unique(dim=0, return_inverse=True)
        found = ShiftedResiduals.of(residuals, folds, groups)
        alone = torch.ones(found.groups, dtype=torch.long)
        return CrossRule(_Aggregated(members, patterns, self.aggregation), found, "plus", alone, unit)


@dataclass(frozen=True, eq=False)
class _Aggregated:
    """Mean or median of the members that each pattern names; 0 for a pattern without any."""

    members: Models
    patterns: Bool[Tensor, "patterns members"]
    aggregation: Literal["mean", "median"]

    def __call__(self, inputs: Float[Tensor, "points features"]) -> Float[Tensor, "patterns points"]:
        predictions = self.members(inputs).double()
        if self.aggregation == "mean":
            chosen = self.patterns.to(predictions)
            return (chosen @ predictions) / chosen.sum(1, keepdim=True).clamp_min(1.0)
        parts = predictions.split(max(1, ENTRIES // self.patterns.numel()), dim=1)
        return torch.cat([_median(part[:, None], self.patterns.T[..., None]) for part in parts], 1)


def _mean(values: Float[Tensor, "members rows"], mask: Bool[Tensor, "members rows"]) -> Float[Tensor, " rows"]:
    return (values * mask).sum(0) / mask.sum(0).clamp_min(1)


def _median(values: Tensor, mask: Tensor) -> Tensor:
    """Median along the first axis of the values that the mask names; 0 where there is none."""
    ordered = torch.where(mask, values, torch.inf).sort(0).values
    counts = mask.expand(ordered.shape).sum(0, keepdim=True)
    middle = [ordered.gather(0, (counts - odd).clamp_min(0) // 2) for odd in (1, 0)]
    return torch.where(counts > 0, (middle[0] + middle[1]) / 2, 0.0)[0]


def _drawn(groups: int, bootstraps: int, source: torch.Generator) -> Int[Tensor, "members groups"]:
    """How often each group is in each of a random number of samples."""
    kept = (1 - 1 / (groups + 1)) ** groups
    trials = torch.rand(max(1, round(bootstraps / kept)), generator=source, device=source.device)
    members = int((trials < kept).sum())
    if not members:
        raise DataError(expected("bootstraps", "so many that one is drawn", bootstraps, "take more"))
    drawn = torch.randint(groups, (members, groups), generator=source, device=source.device)
    return torch.zeros_like(drawn).scatter_add_(1, drawn, torch.ones_like(drawn))
