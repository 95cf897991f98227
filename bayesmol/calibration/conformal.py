"""Conformal intervals: a coverage that holds whatever the model, if calibration and test are exchangeable.

What is exchangeable must be said: single labels, or structures with all their atoms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from bayesmol.calibration.observed import Observed, paired
from bayesmol.calibration.rules import ConformalRule, Sample, Source, Target
from bayesmol.calibration.scores import Absolute, Central, Normalised, Score, automatic_floor
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Interval, Posterior

__all__ = ["Conformal", "QuantileRule", "mapie_estimator"]

Kind = Literal["normalised", "absolute", "quantile"]
Unit = Literal["entry", "structure"]


@dataclass(frozen=True)
class Conformal:
    r"""Conformal intervals from labels that the model has not seen.

    The radius r is the :math:`\lceil (n+1)\,\mathrm{level} \rceil`-th smallest score of n exchangeable units.

    Attributes
    ----------
    score
        ``"normalised"``: :math:`|y-\mu|/\max(\sigma, \mathrm{floor})`, intervals
        :math:`\mu \pm r \max(\sigma, \mathrm{floor})`. ``"absolute"``: :math:`|y-\mu|`, intervals :math:`\mu \pm r`.
        ``"quantile"``: :math:`\max(q_- - y, y - q_+)` of the central quantiles of the posterior at the level asked,
        intervals :math:`[q_- - r, q_+ + r]`.
    unit
        What is exchangeable. ``"entry"``: single labels, such as energies. ``"structure"``: structures. Components of
        one structure are not exchangeable with those of another, so the radius is the quantile of all scores with
        the weight :math:`1/((G+1) N_g)` for each of the :math:`N_g` components of structure g of G, and
        :math:`1/(G+1)` at infinity: a random component of a new structure is covered with probability ≥ level.
    simultaneous
        With the unit ``"structure"``, take the largest score of each structure: all components of a new structure are
        covered together with probability ≥ level.
    source
        ``"calibration"``: labels that the model has not seen. ``"leave-one-out"``: posteriors that leave out their
        own structure, which costs no data; it is the jackknife, and the guarantee says so.
    floor
        Least standard deviation of normalised scores, in the unit of the quantity, chosen before the labels are seen:
        many tiny standard deviations would otherwise make r, and so the other intervals, explode. ``"auto"``: by
        :func:`automatic_floor`, which keeps normalised intervals below three times the mean width of absolute ones.
    bins
        Number of bins of the predicted standard deviation with a radius each, so that the level holds in each bin. The
        edges are order statistics of the calibration; these entries are left out, which keeps the level exact.

    References
    ----------
    Papadopoulos et al., ECML 2002 (normalised scores). Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018), theorem 2.2.
    Romano, Patterson, Candès, NeurIPS 2019 (quantile scores). Lee, Barber, Willett, arXiv:2306.06342, theorem 1
    (structures). Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World (2005) (categories).
    """

    score: Kind = "normalised"
    unit: Unit = "entry"
    simultaneous: bool = False
    source: Source = "calibration"
    floor: float | Literal["auto"] = 0.0
    bins: int | None = None

    def __post_init__(self) -> None:
        for name, allowed in {"score": Kind, "unit": Unit, "source": Source}.items():
            if getattr(self, name) not in get_args(allowed):
                raise DataError(expected(name, f"one of {get_args(allowed)}", repr(getattr(self, name))))
        if self.simultaneous and self.unit == "entry":
            raise DataError(expected("simultaneous", "false for single entries", "true", "give unit='structure'"))
        if self.floor != "auto" and not (isinstance(self.floor, float | int) and 0 <= self.floor < math.inf):
            raise DataError(expected("floor", "a finite number ≥ 0 or 'auto'", self.floor))
        if self.floor != 0 and self.score != "normalised":
            raise DataError(expected("floor", f"0 for {self.score} scores, which have none", self.floor))
        if self.bins is not None and self.bins < 2:
            raise DataError(expected("bins", "at least 2 or None", self.bins))

    def fit(
        self,
        posterior: Posterior,
        truth: Tensor | Labelled | Posterior,
        *,
        groups: Int[Tensor, " rows"] | None = None,
        categories: Int[Tensor, " rows"] | None = None,
    ) -> ConformalRule | QuantileRule:
        """Rule from posteriors of calibration data and their labels.

        Parameters
        ----------
        truth
            Labels in the unit of the posterior, or labelled structures (which know the structure of each row).
        groups
            Structure of each row; by default each row is one of its own.
        categories
            Category of each row, such as its chemical element. Each has its own radius (Mondrian), so the level holds
            in each; where it has too few units, its intervals are infinite.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, or a standard deviation is zero without a floor.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        if categories is not None and self.bins is not None:
            raise DataError(expected("categories", "none beside bins", "both", "give one of them"))
        if categories is not None and categories.shape != observed.groups.shape:
            aim = f"one for each of the {len(observed.groups)} rows with a label"
            raise ShapeError(expected("categories", aim, tuple(categories.shape)))
        if self.score == "quantile":
            return QuantileRule(self, posterior, observed, categories)
        if self.score == "absolute":
            return self._rule(posterior, observed, categories, Absolute(), Absolute())
        floors = automatic_floor(posterior.stddev) if self.floor == "auto" else (self.floor, self.floor)
        return self._rule(posterior, observed, categories, *map(Normalised, floors))

    @property
    def _target(self) -> Target:
        return "entry" if self.unit == "entry" else "structure" if self.simultaneous else "component"

    def _rule(
        self, posterior: Posterior, observed: Observed, categories: Tensor | None, calibrating: Score, predicting: Score
    ) -> ConformalRule:
        """Rule of the scores by ``calibrating`` that makes its intervals by ``predicting``."""
        scores, owner = calibrating.scores(posterior, observed.values).flatten(), observed.owner
        labels = edges = None
        if self.bins is not None:
            edges, place = _binned(posterior.stddev.double().flatten(), self.bins)
            samples = _samples(scores, owner, place, self.bins, self._target)
        elif categories is not None:
            labels, inverse = categories.unique(return_inverse=True)
            place = observed.spread(inverse.to(owner.device))
            samples = _samples(scores, owner, place, len(labels), self._target)
        else:
            samples = (Sample.of(scores, owner, self._target),)
        shared = self.unit == "structure" and (self.floor == "auto" or self.bins is not None)
        remark = "; up to order 1/n, because the same structures gave the floor or the bins" if shared else ""
        return ConformalRule(predicting, samples, self._target, self.source, labels, edges, remark)


@dataclass(frozen=True, eq=False)
class QuantileRule:
    """Fitted rule of quantile scores: it keeps the calibration, because these scores depend on the level.

    Attributes
    ----------
    specification
        What was fitted.
    posterior, observed
        The calibration, row by row.
    categories
        Category of each row; ``None`` without.
    """

    specification: Conformal
    posterior: Posterior
    observed: Observed
    categories: Int[Tensor, " rows"] | None = None

    def at(self, level: float) -> ConformalRule:
        """The rule of one level, which needs no calibration data and can be saved."""
        score = Central(level)
        return self.specification._rule(self.posterior, self.observed, self.categories, score, score)

    def interval(
        self, posterior: Posterior, level: float, *, categories: Int[Tensor, " rows"] | None = None
    ) -> Interval:
        """Interval of each entry with its guarantee, see :meth:`ConformalRule.interval`."""
        return self.at(level).interval(posterior, level, categories=categories)

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        return self.at(level).guarantee(level)


def mapie_estimator(predict: Callable[[Any], Posterior]) -> Any:
    """Fitted scikit-learn regressor of a function from features to posteriors, for the methods of MAPIE.

    Its ``predict(X)`` gives means, ``predict(X, return_std=True)`` means and standard deviations, as arrays; so it can
    be the ``prefit`` estimator of ``mapie.regression.SplitConformalRegressor`` with any conformity score.
    """
    from sklearn.base import BaseEstimator, RegressorMixin

    class Estimator(RegressorMixin, BaseEstimator):
        fitted_ = True

        def fit(self, X: Any, y: Any) -> Any:
            raise DataError(expected("estimator", "prefit=True", "a call of fit", "fit the model of bayesmol instead"))

        def predict(self, X: Any, return_std: bool = False) -> Any:
            posterior = predict(X)
            moments = [part.detach().cpu().numpy() for part in (posterior.mean, posterior.stddev)]
            return tuple(moments) if return_std else moments[0]

    return Estimator()


def _binned(stddev: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    r"""Edges of bins with equal probability, and the bin of each entry; −1 for the entries that are the edges.

    With n + 1 exchangeable entries in bins by rank, a new entry lies in bin b if its standard deviation is between two
    of the edges, and the others of that bin are the entries strictly between them.
    """
    count = len(stddev)
    if count < 2 * bins:
        raise DataError(expected("bins", f"at most half of the {count} entries", bins))
    ranks = torch.tensor([round(b * (count + 1) / bins) - 1 for b in range(1, bins)], device=stddev.device)
    order = stddev.argsort(stable=True)
    edges = stddev[order[ranks]]
    place = torch.searchsorted(edges, stddev, right=True)
    place[order[ranks]] = -1
    return edges, place


def _samples(scores: Tensor, owner: Tensor, place: Tensor, number: int, target: Target) -> tuple[Sample, ...]:
    """One sample for each place from 0 to ``number`` − 1."""
    order = place.argsort(stable=True)
    sizes = (place + 1).bincount(minlength=number + 1).tolist()
    parts = [column[order].split(sizes)[1:] for column in (scores, owner)]
    return tuple(Sample.of(one, groups, target) for one, groups in zip(*parts, strict=True))
