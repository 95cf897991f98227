r"""Intervals by cross-validation: every label is used both for fitting and for calibration.

With the model :math:`\mu_{-k}` that has not seen fold k, and residuals :math:`R_i = |y_i - \mu_{-k(i)}(x_i)|`, CV+ is

.. math:: \bigl[\, q^-\{\mu_{-k(i)}(x) - R_i\},\; q^+\{\mu_{-k(i)}(x) + R_i\} \,\bigr], \qquad
          q^+: \text{the } \lceil (n+1)\,\mathrm{level} \rceil\text{-th smallest.}

The residuals of a fold are sorted once; the order statistic of the n shifted residuals is then found by bisection,
which counts in :math:`O(K \log n)`, and ends on the candidate itself, so it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.regressors import Models, Ridge, checked_rows, trained
from bayesmol.calibration.rules import needed
from bayesmol.calibration.shifted import ShiftedResiduals
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Interval
from bayesmol.posterior.interval import checked_level
from bayesmol.progress import progress

__all__ = ["CrossConformal", "CrossRule", "cross_bound", "cross_interval", "fold_of_each_group"]

Method = Literal["plus", "minmax"]
ENTRIES = 2**22  # of the largest temporary array


def cross_interval(
    predictions: Float[Tensor, "folds points"],
    residuals: Float[Tensor, " rows"],
    folds: Int[Tensor, " rows"],
    level: float,
    *,
    method: Method = "plus",
    groups: Int[Tensor, " rows"] | None = None,
    unit: str = "",
) -> Interval:
    r"""CV+ or CV-minmax interval of each point, from what the models of the folds say; jackknife+ with a fold a row.

    Parameters
    ----------
    predictions
        Of the model without fold k at each point, in ``unit``.
    residuals
        Label minus prediction by the model without the fold of the row (the sign has no effect), in ``unit``. An
        infinite one stands for a row without such a model.
    folds
        Fold of each row.
    method
        ``"plus"``, or the wider ``"minmax"``, which adds the quantile of the residuals to the extreme predictions.
    groups
        Group of each row, such as its structure; by default each row is one of its own. A group with :math:`N_g`
        rows gives each the weight :math:`1/N_g`, and the interval holds for a random row of a new group.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a number is NaN, a fold is not among the predictions, or a group is in two folds.

    References
    ----------
    Barber, Candès, Ramdas, Tibshirani, Ann. Stat. 49, 486 (2021).
    """
    found = ShiftedResiduals.of(residuals, folds, groups)
    if len(predictions) != len(found.sizes) or not bool(torch.isfinite(predictions).all()):
        shape = tuple(predictions.shape)
        raise DataError(expected("predictions", f"finite numbers of {len(found.sizes)} folds", f"shape {shape}"))
    rule = CrossRule(lambda _: predictions, found, method, found.sizes, unit)
    return rule._joined(predictions.split(rule._step, dim=1), level, predictions.dtype)


@dataclass(frozen=True)
class CrossConformal:
    """Intervals by K-fold cross-validation of any regressor, which is fitted K times.

    Attributes
    ----------
    folds
        Number of folds; with as many as groups it is the jackknife+.
    method
        As in :func:`cross_interval`.

    Raises
    ------
    DataError
        If there are fewer than two folds, or the method is unknown.
    """

    folds: int = 10
    method: Method = "plus"

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise DataError(expected("folds", "at least 2", self.folds))
        if self.method not in ("plus", "minmax"):
            raise DataError(expected("method", "'plus' or 'minmax'", repr(self.method)))

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
        """Models without each fold, and their residuals.

        Parameters
        ----------
        regressor
            A :class:`Ridge`, fitted in closed form for all folds at once; a :class:`GaussianProcess`; or anything with
            ``fit`` and ``predict`` of arrays, of which each fold gets a copy.
        groups
            Group of each row, such as its structure: a group is left out as a whole.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, or there are fewer groups than folds.
        """
        inputs, truth = checked_rows(inputs, truth)
        owner = torch.arange(len(truth), device=truth.device) if groups is None else groups
        if owner.shape != truth.shape:
            raise ShapeError(expected("groups", f"shape {tuple(truth.shape)}", tuple(owner.shape)))
        folds = fold_of_each_group(owner, self.folds, seed=seed)
        if isinstance(regressor, Ridge):
            models: Models
            models, residuals = regressor.leave_fold_out(inputs, truth, folds)
        else:
            models, residuals = _left_out(regressor, inputs, truth, folds)
        found = ShiftedResiduals.of(residuals, folds, groups)
        return CrossRule(models, found, self.method, found.sizes, unit)


@dataclass(frozen=True, eq=False)
class CrossRule:
    """Fitted models of the folds and their residuals: makes the interval of any new point.

    Attributes
    ----------
    models
        Function from inputs to the prediction of each fold's model, ``(folds, points)``.
    residuals
        Of each row, from the model without its fold.
    method
        ``"plus"``, ``"minmax"``, or ``"plain"`` for the jackknife, which has no guarantee.
    sizes
        Groups that the guarantee takes for one fold.
    """

    models: Models
    residuals: ShiftedResiduals
    method: Literal["plus", "minmax", "plain"]
    sizes: Int[Tensor, " folds"]
    unit: str = ""

    def predict(self, inputs: Float[Tensor, " points *features"]) -> Float[Tensor, " points"]:
        """Median of the predictions of the models; of folds of one size it lies in any interval of level ≥ 1/2."""
        parts = [self.models(part).double().quantile(0.5, dim=0) for part in inputs.split(self._step)]
        return torch.cat(parts).to(inputs.dtype)

    def interval(self, inputs: Float[Tensor, " points *features"], level: float) -> Interval:
        """Interval of each point with its guarantee; infinite if there are too few groups for the level."""
        return self._joined((self.models(part) for part in inputs.split(self._step)), level, inputs.dtype)

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        count, least = self.residuals.groups, needed(level)
        unit, subject = ("rows", "a new label") if self.residuals.whole else ("groups", "a random row of a new group")
        if count < least:
            return f"infinite: level {level:g} needs n ≥ {least} {unit}, got {count}"
        sample = f"n = {count} {unit}, {'leave-one-out' if len(self.sizes) == count else f'{len(self.sizes)} folds'}"
        if self.method == "plain":
            bound = "no distribution-free bound, and far below if the regressor is unstable"
            return f"covers {subject} with probability about {level:g}: plain jackknife ({sample}); {bound}"
        sure = math.floor(1000 * cross_bound(level, self.sizes, self.method) + 1e-6) / 1000
        bound = f"≥ {sure:g} for any regressor" if sure > 0 else "without a bound for any regressor"
        return (
            f"covers {subject} with probability {bound}, about {level:g} for a stable one, if old and new {unit} are "
            f"exchangeable ({sample}, needs n ≥ {least})"
        )

    @property
    def _step(self) -> int:
        """Points at a time."""
        return max(1, ENTRIES // self.residuals.width)

    def _joined(self, predictions: Iterable[Tensor], level: float, dtype: torch.dtype) -> Interval:
        goal = checked_level(level) * (self.residuals.groups + 1)
        ends = [self._ends(part.double(), goal) for part in predictions]
        lower, upper = (torch.cat(end).to(dtype) for end in zip(*ends, strict=True))
        return Interval(lower, upper, level, self.unit, self.guarantee(level))

    def _ends(self, predictions: Tensor, goal: float) -> tuple[Tensor, Tensor]:
        if self.method == "minmax":
            largest = self.residuals.smallest(predictions.new_zeros(len(predictions), 1), goal)
            return predictions.amin(0) - largest, predictions.amax(0) + largest
        ends = self.residuals.smallest(torch.cat([-predictions, predictions], 1), goal)
        return -ends[: predictions.shape[1]], ends[predictions.shape[1] :]


def cross_bound(level: float, sizes: Int[Tensor, " folds"], method: Method = "plus") -> float:
    r"""Probability that holds whatever the regressor and the data, for n exchangeable groups in K folds.

    With :math:`\alpha = 1 - \mathrm{level}`, CV+ covers with probability at least

    .. math:: 1 - 2\alpha - 2 (1 - \alpha) \frac{K-1}{n+K},

    and with folds of one size also :math:`1 - 2\alpha - (1 - K/n)/(K+1)`, which is :math:`1 - 2\alpha` for the
    jackknife+. CV-minmax contains CV+, and with folds of one size covers with probability at least
    :math:`(1-\alpha)(n+1)/(n + n/K)`, which is :math:`1-\alpha` for the jackknife-minmax.

    Notes
    -----
    The first is the bound of an average of K p-values, :math:`P(\bar p \le u) \le 2u`. The others count who can lose
    few enough games in a tournament of all old and new groups, in which the rows of a group share the weight one.

    References
    ----------
    Barber, Candès, Ramdas, Tibshirani, Ann. Stat. 49, 486 (2021), theorem 4 (CV+); Vovk, Wang, Biometrika 107, 791
    (2020) (averages of p-values).
    """
    count, folds = int(sizes.sum()), len(sizes)
    excess = [2 * level * (folds - 1) / (count + folds)]
    even = bool((sizes == sizes[0]).all())
    if even:
        excess.append((1 - folds / count) / (folds + 1))
    bound = 2 * checked_level(level) - 1 - min(excess)
    if method == "minmax" and even:
        bound = max(bound, level * (count + 1) / (count + count / folds))
    return max(bound, 0.0)


def fold_of_each_group(
    groups: Int[Tensor, " rows"], folds: int, *, seed: int | torch.Generator
) -> Int[Tensor, " rows"]:
    """Fold of each row: groups in random order, dealt out one by one.

    Raises
    ------
    DataError
        If there are fewer groups than folds.
    """
    _, owner = groups.unique(return_inverse=True)
    count = int(owner.max()) + 1
    if count < folds:
        raise DataError(expected("groups", f"at least {folds}, one a fold", count, "take fewer folds"))
    order = torch.randperm(count, generator=generator(seed, owner.device), device=owner.device)
    return order[owner] % folds


def _left_out(regressor: Any, inputs: Tensor, truth: Tensor, folds: Tensor) -> tuple[Models, Tensor]:
    """Stacked models of a generic regressor, and the residual of each row from the one without its fold."""
    count, residuals, models = int(folds.max()) + 1, torch.empty_like(truth), []
    with progress("cross-validation", count) as advance:
        for k in range(count):
            held = folds == k
            models.append(trained(regressor, inputs[~held], truth[~held]))
            residuals[held] = truth[held] - models[-1](inputs[held])
            advance()
    return lambda points: torch.stack([model(points) for model in models]), residuals
