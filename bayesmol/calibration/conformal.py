"""Conformal intervals: a coverage that holds whatever the model, if calibration and test are exchangeable.

The unit of exchangeability is the structure. An interval is ``mean ± factor · max(stddev, floor)``: the factor is a
quantile of the standardised residuals seen in calibration. A rule is elementwise and sees no other entry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.reference import conformal_rank
from bayesmol.errors import DataError, FormatError, ShapeError, expected
from bayesmol.posterior import Interval, Posterior
from bayesmol.posterior.interval import checked_level

__all__ = ["ConformalRule", "SplitConformal", "StructureConformal"]

Source = Literal["calibration", "leave-one-out"]
Target = Literal["value", "component", "structure"]


@dataclass(frozen=True)
class SplitConformal:
    r"""Split conformal intervals for one value a structure, such as the energy.

    The factor is the :math:`\lceil (n+1)\,\mathrm{level} \rceil`-th smallest :math:`|y - \mu|/\sigma`, by MAPIE.

    Attributes
    ----------
    source
        ``"calibration"``: frames that the model has not seen. ``"leave-one-out"``: posteriors that leave out their
        own structure, which costs no data; it is the jackknife, and the guarantee says so.
    floor
        Least standard deviation, in the unit of the quantity, chosen before the calibration labels are seen: a
        single tiny standard deviation would otherwise give a huge score, and with many the interval explodes.

    References
    ----------
    Papadopoulos et al., ECML 2002; Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018), theorem 2.2.
    """

    source: Source = "calibration"
    floor: float = 0.0

    def fit(self, posterior: Posterior, truth: Float[Tensor, " structures"]) -> ConformalRule:
        """Rule from the posteriors of calibration structures and their labels, one value a structure.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, or a standard deviation is zero without a floor.
        """
        if truth.ndim != 1:
            remedy = "use StructureConformal for several values a structure"
            raise ShapeError(expected("truth", "shape (structures,)", tuple(truth.shape), remedy))
        scores = _scores(posterior, truth, self.floor)
        return ConformalRule(scores.sort().values, None, scores.numel(), "value", self.source, self.floor)


@dataclass(frozen=True)
class StructureConformal:
    r"""Conformal intervals for quantities with many components a structure, such as forces.

    Components of one structure are not exchangeable with those of another, structures are. By default the factor
    is the quantile of all component scores with the weight :math:`1/((G+1) N_g)` for each of the :math:`N_g`
    components of structure g of G, and :math:`1/(G+1)` at infinity: a random component of a new structure is covered
    with probability ≥ level. ``simultaneous=True`` takes the largest score of each structure: all components of a
    new structure are covered together with probability ≥ level. Cartesian components are judged one by one, so a
    rotated frame has other scores; the guarantee holds in any frame that is chosen without looking at the labels.

    Attributes
    ----------
    simultaneous
        Whether the intervals of one structure shall hold together.
    source, floor
        As in :class:`SplitConformal`.

    References
    ----------
    Lee, Barber, Willett, arXiv:2306.06342, theorem 1 (hierarchical conformal prediction).
    """

    simultaneous: bool = False
    source: Source = "calibration"
    floor: float = 0.0

    def fit(
        self, posterior: Posterior, truth: Float[Tensor, " rows *shape"], pointer: Int[Tensor, " offsets"]
    ) -> ConformalRule:
        """Rule from calibration structures; ``pointer`` has the first row of each, and the number of rows at the end.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a structure has no rows, a label is not finite, or a standard deviation is zero
            without a floor.
        """
        counts = pointer.diff()
        if len(pointer) < 2 or int(pointer[0]) != 0 or int(pointer[-1]) != len(truth):
            raise ShapeError(expected("pointer", f"offsets from 0 to {len(truth)}", pointer.tolist()[-3:]))
        if not bool((counts > 0).all()):
            raise DataError(expected("pointer", "at least one row a structure", "an empty structure"))
        scores = _scores(posterior, truth, self.floor).reshape(len(truth), -1)
        structures, components = len(counts), scores.shape[1]
        owner = torch.repeat_interleave(torch.arange(structures, device=scores.device), counts.to(scores.device))
        if self.simultaneous:
            largest = scores.new_zeros(structures).scatter_reduce(0, owner, scores.amax(1), "amax")
            return ConformalRule(largest.sort().values, None, structures, "structure", self.source, self.floor)
        weights = 1.0 / ((structures + 1) * components * counts.to(scores).double())
        ordered, order = scores.flatten().sort()
        weights = weights[owner].repeat_interleave(components)[order]
        return ConformalRule(ordered, weights, structures, "component", self.source, self.floor)


@dataclass(frozen=True, eq=False)
class ConformalRule:
    """Fitted rule: makes the intervals of any posterior of the quantity that it was calibrated on.

    Attributes
    ----------
    scores
        Standardised absolute residuals of the calibration, ascending.
    weights
        Probability of each score; ``None`` for equal ones.
    count
        Number of exchangeable structures.
    target
        What the level is the probability of: ``"value"``, ``"component"`` or ``"structure"`` (all components).
    source, floor
        As in :class:`SplitConformal`.
    """

    scores: Float[Tensor, " scores"]
    weights: Float[Tensor, " scores"] | None
    count: int
    target: Target
    source: Source = "calibration"
    floor: float = 0.0

    def __post_init__(self) -> None:
        if self.source not in ("calibration", "leave-one-out"):
            raise DataError(expected("source", "'calibration' or 'leave-one-out'", self.source))

    def factor(self, level: float) -> float:
        """Half-width in standard deviations; infinite if there are fewer structures than :meth:`needed`."""
        if self.count < self.needed(level):
            return math.inf
        if self.weights is None:
            return _mapie_quantile(self.scores, conformal_rank(self.count, level))
        reached = self.weights.cumsum(0) >= level - 1e-12
        return float(self.scores[reached][0]) if bool(reached.any()) else float(self.scores[-1])

    def interval(self, posterior: Posterior, level: float) -> Interval:
        """``mean ± factor · max(stddev, floor)`` with its guarantee; infinite if the sample cannot give the level."""
        factor = self.factor(level)
        if math.isinf(factor):
            half = torch.full_like(posterior.mean, math.inf)
        else:
            half = factor * posterior.stddev.clamp_min(self.floor)
        return Interval(posterior.mean - half, posterior.mean + half, level, posterior.unit, self.guarantee(level))

    @staticmethod
    def needed(level: float) -> int:
        r"""Least structures for a finite interval, :math:`\lceil \mathrm{level}/(1-\mathrm{level}) \rceil`."""
        return math.ceil(checked_level(level) / (1 - level) - 1e-9)

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        sample = f"n = {self.count} structures, needs n ≥ {self.needed(level)}"
        if self.count < self.needed(level):
            return f"infinite: level {level:g} needs n ≥ {self.needed(level)} structures, got {self.count}"
        subject = {
            "value": "a new label",
            "component": "a random component of a new structure",
            "structure": "all components of a new structure together",
        }[self.target]
        if self.source == "leave-one-out":
            return (
                f"covers {subject} with probability about {level:g}: jackknife on leave-one-structure-out residuals "
                f"({sample}); approximate, no distribution-free bound"
            )
        return (
            f"covers {subject} with probability ≥ {level:g} if calibration and new structures are exchangeable "
            f"({sample})"
        )

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header (JSON) and arrays that :meth:`from_state` reads back."""
        header = {"count": self.count, "target": self.target, "source": self.source, "floor": self.floor}
        arrays = {"scores": self.scores} | ({} if self.weights is None else {"weights": self.weights})
        return header, arrays

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> ConformalRule:
        """Rule from :meth:`state`; raises :class:`FormatError` if a part is missing or contradictory."""
        parts = {"count", "target", "source", "floor"}
        weights = arrays.get("weights")
        if (
            not parts <= set(header)
            or "scores" not in arrays
            or (header["target"] == "component") != (weights is not None)
        ):
            raise FormatError(expected("state", f"{sorted(parts)} with scores", [*header, *arrays]))
        return cls(arrays["scores"], weights, **{name: header[name] for name in parts})


def _scores(posterior: Posterior, truth: Tensor, floor: float) -> Tensor:
    if truth.shape != posterior.shape:
        raise ShapeError(expected("truth", f"shape {tuple(posterior.shape)}", tuple(truth.shape)))
    if truth.numel() == 0 or not bool(torch.isfinite(truth).all()):
        raise DataError(expected("truth", "finite labels", "NaN, infinity or none", "remove entries without a label"))
    if not 0 <= floor < math.inf:
        raise DataError(expected("floor", "a finite number ≥ 0", floor))
    deviation = posterior.stddev.double().clamp_min(floor)
    if not bool((deviation > 0).all()):
        raise DataError(expected("posterior", "positive standard deviations", "zeros", "give a floor"))
    return (truth.double() - posterior.mean.double()).abs() / deviation


def _mapie_quantile(scores: Tensor, rank: int) -> float:
    """The ``rank``-th smallest score, from a split conformal regressor around a prediction of zero."""
    from mapie.regression import SplitConformalRegressor
    from sklearn.dummy import DummyRegressor

    values = scores.detach().cpu().numpy()
    column = np.zeros((len(values), 1))
    zero = DummyRegressor(strategy="constant", constant=0.0).fit(column, values)
    # The middle of the levels that have this rank: rounding of (n + 1) · level cannot move it.
    level = (rank - 0.5) / (len(values) + 1)
    regressor = SplitConformalRegressor(zero, confidence_level=level, conformity_score="absolute", prefit=True)
    _, intervals = regressor.conformalize(column, values).predict_interval(column[:1])
    return float(intervals[0, 1, 0])
