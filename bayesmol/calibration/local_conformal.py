"""Localised conformal intervals: as wide as the errors are in the neighbourhood, with the coverage of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.conformal import Conformal, Unit
from bayesmol.calibration.locality import ErrorField, FittedErrorField
from bayesmol.calibration.observed import paired
from bayesmol.calibration.rules import ConformalRule
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Gaussian, Interval, IntervalRule, Posterior
from bayesmol.typing import Features

__all__ = ["LocalConformal", "LocalRule"]

_FLOOR = 0.01  # of the mean error, so that no neighbourhood has an interval of width zero


@dataclass(frozen=True)
class LocalConformal:
    r"""Split conformal intervals normalised by an error field, :math:`\mu \pm r\, m(x)`.

    One part of the structures teaches the field m of the mean absolute error, the other calibrates the scores
    :math:`|y - \mu| / m(x)`. The coverage is that of split conformal intervals whatever the field; the better the
    field, the closer is the coverage to the level in each part of feature space.

    Attributes
    ----------
    field
        How the field is learned; by default a forest with leaves of 10 rows.
    unit, simultaneous
        As in :class:`~bayesmol.calibration.Conformal`.
    share
        Fraction of the structures that teach the field.

    References
    ----------
    Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018), section 5.2 (locally weighted conformal inference).
    """

    field: ErrorField | None = None
    unit: Unit = "entry"
    simultaneous: bool = False
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise DataError(expected("share", "a fraction strictly between 0 and 1", self.share))

    def fit(
        self,
        posterior: Posterior,
        truth: Tensor | Labelled | Posterior,
        features: Features,
        *,
        groups: Int[Tensor, " rows"] | None = None,
        seed: int | torch.Generator,
    ) -> LocalRule:
        """Rule from posteriors of calibration data, their labels, and the features of each row.

        Parameters
        ----------
        features
            Whatever may tell where errors are large: coordinates, species, the standard deviation itself.
        groups
            Structure of each row; a ``Labelled`` knows it.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a number is not finite, or there are too few rows for the field.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        if features.shape[:1] != observed.groups.shape:
            raise ShapeError(expected("features", f"{len(observed.groups)} rows", tuple(features.shape)))
        source = generator(seed)
        order = torch.randperm(observed.structures, generator=source).to(observed.groups.device)
        teaching = order[observed.groups] < round(self.share * observed.structures)
        errors = (observed.values - posterior.mean).double().abs().reshape(len(features), -1).mean(1)
        field = (self.field or ErrorField()).fit(
            features[teaching], errors[teaching], groups=observed.groups[teaching], seed=source
        )
        rest = (~teaching).nonzero()[:, 0]
        scaled = _scaled(posterior[rest], field, features[rest])
        conformal = Conformal("normalised", unit=self.unit, simultaneous=self.simultaneous)
        rule = conformal.fit(scaled, observed.values[rest], groups=observed.groups[rest])
        return LocalRule(field, cast(ConformalRule, rule))


@dataclass(frozen=True, eq=False)
class LocalRule:
    """Fitted :class:`LocalConformal`: makes intervals of a posterior from the features of its rows.

    Attributes
    ----------
    field
        Local mean absolute error.
    rule
        Conformal rule of the errors in units of the field.
    """

    field: FittedErrorField
    rule: ConformalRule

    def interval(self, posterior: Posterior, level: float, features: Features) -> Interval:
        """Interval of each entry with its guarantee; infinite if the calibration cannot give the level."""
        return self.rule.interval(_scaled(posterior, self.field, features), level)

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        return self.rule.guarantee(level)

    def at(self, features: Features) -> IntervalRule:
        """Rule for a posterior of the rows with these features, for ``posterior.with_rule``.

        It fits no slice of that posterior: a slice needs the rule at the features of the slice.
        """
        return _RuleAt(self, features)


@dataclass(frozen=True, eq=False)
class _RuleAt:
    local: LocalRule
    features: Features

    def interval(self, posterior: Posterior, level: float) -> Interval:
        return self.local.interval(posterior, level, self.features)


def _scaled(posterior: Posterior, field: FittedErrorField, features: Tensor) -> Gaussian:
    """A stand-in whose standard deviation is the field, equal for all entries of a row."""
    if features.shape[:1] != posterior.shape[:1]:
        remedy = "make the rule of a slice at its own features"
        raise ShapeError(expected("features", f"{posterior.shape[0]} rows", tuple(features.shape), remedy))
    size: Float[Tensor, " rows"] = field.mean(features).value
    size = size.clamp_min(_FLOOR * float(field.residuals.mean())).to(posterior.mean)
    spread = size.square().reshape(-1, *[1] * (len(posterior.shape) - 1)).expand(posterior.shape)
    return Gaussian(posterior.mean, spread, unit=posterior.unit)
