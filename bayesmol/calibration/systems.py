"""Conformal predictive systems: a whole predictive distribution, of which each quantile has the conformal guarantee."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.observed import paired
from bayesmol.calibration.rules import needed
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior import Interval, IntervalRule, Posterior
from bayesmol.posterior.interval import checked_level

__all__ = ["ConformalDistribution", "ConformalSystem", "OutwardQuantiles", "PredictiveSystem", "ResidualLaw"]


@dataclass(frozen=True)
class ConformalSystem:
    r"""Split conformal predictive system of the standardised residuals :math:`s_i = (y_i - \mu_i)/\max(\sigma_i, f)`.

    A new label is as likely to fall into each of the n + 1 gaps between the :math:`C_i = \mu + \max(\sigma, f)\, s_i`:

    .. math:: Q(y, \tau) = \frac{\#\{i : C_i < y\} + \tau\,(1 + \#\{i : C_i = y\})}{n + 1}, \qquad \tau \sim U(0, 1),

    is uniform at a new label, whatever the model, if calibration and new rows are exchangeable.

    Attributes
    ----------
    floor
        Least standard deviation f, in the unit of the quantity, chosen before the calibration labels are seen.

    Raises
    ------
    DataError
        If the floor is negative or not finite.

    References
    ----------
    Vovk, Petej, Nouretdinov, Manokhin, Gammerman, Neurocomputing 397, 292 (2020) (split conformal predictive systems);
    Vovk, Shen, Manokhin, Xie, Mach. Learn. 108, 445 (2019).
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.floor < math.inf:
            raise DataError(expected("floor", "a finite number ≥ 0", self.floor))

    def fit(
        self,
        posterior: Posterior,
        truth: Tensor | Labelled | Posterior,
        *,
        groups: Int[Tensor, " rows"] | None = None,
    ) -> PredictiveSystem:
        r"""System from posteriors of rows that the model has not seen, and their labels.

        With several labels in a structure each counts :math:`1/N_g`, and the distribution is that of a random component
        of a new structure. Labels are taken as :func:`~bayesmol.calibration.paired` takes them.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, or a standard deviation is zero without a floor.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        scale = _scale(posterior, self.floor)
        scores = (observed.values.double() - posterior.mean.double()) / scale
        return PredictiveSystem(ResidualLaw.of(scores.flatten(), observed.owner), self.floor)


@dataclass(frozen=True, eq=False)
class PredictiveSystem:
    """Fitted system: turns posteriors into conformal predictive distributions."""

    law: ResidualLaw
    floor: float = 0.0

    def __call__(self, posterior: Posterior) -> ConformalDistribution:
        """Distribution of a new label for each entry; of the posterior only mean and standard deviation count."""
        scale = _scale(posterior, self.floor).to(posterior.mean.dtype)
        return ConformalDistribution(posterior.mean, scale, self.law, unit=posterior.unit, rule=OutwardQuantiles())


@dataclass(frozen=True, eq=False)
class ResidualLaw:
    """Standardised residuals of the calibration with their probabilities; 1 / (groups + 1) is left for infinity.

    Attributes
    ----------
    scores
        Ascending.
    below
        Probability of the first j scores, j from 0 on.
    groups
        Number of exchangeable units.
    """

    scores: Float[Tensor, " scores"]
    below: Float[Tensor, " sums"]
    groups: int

    @classmethod
    def of(cls, scores: Float[Tensor, " scores"], groups: Int[Tensor, " scores"]) -> ResidualLaw:
        """Law of scores of which those of one group share one weight."""
        _, owner, counts = groups.unique(return_inverse=True, return_counts=True)
        ordered, order = scores.double().sort()
        weights = (1.0 / counts.double())[owner][order]
        below = torch.nn.functional.pad(weights.cumsum(0), (1, 0)) / (len(counts) + 1)
        return cls(ordered, below, len(counts))

    @property
    def whole(self) -> bool:
        """Whether each score is a unit of its own."""
        return self.groups == len(self.scores)

    @property
    def open(self) -> float:
        """Probability that is left for infinity, half of it on each side."""
        return 1 / (self.groups + 1)

    @property
    def probabilities(self) -> Float[Tensor, " scores"]:
        """Of each score, if the label is between the extremes; they sum to one."""
        return self.below.diff() / self.below[-1]

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and variance of the scores."""
        mean = self.probabilities @ self.scores
        return float(mean), float(self.probabilities @ (self.scores - mean).square())

    def upper(self, p: float) -> float:
        """Least score that a new one exceeds with probability ≤ 1 − p; infinite if there is none."""
        place = int(torch.searchsorted(self.below, p - 1e-9)) - 1
        return float(self.scores[max(place, 0)]) if place < len(self.scores) else math.inf

    def lower(self, p: float) -> float:
        """Largest score that a new one falls short of with probability ≤ 1 − p; −∞ if there is none."""
        above = self.below[-1] - self.below.flip(0)
        place = int(torch.searchsorted(above, p - 1e-9)) - 1
        return float(self.scores.flip(0)[max(place, 0)]) if place < len(self.scores) else -math.inf


class ConformalDistribution(Posterior):
    r"""Distribution with the mass :math:`1/(n+1)` at each :math:`\mu + \sigma s_i`, and half of that at each infinity.

    It is :math:`Q(y, \tfrac12)`, so quantiles beyond :math:`1/(2(n+1))` are infinite. What is undetermined has no
    moments: ``mean``, ``variance``, ``crps`` and draws are of the finite part, which has the probability
    :math:`n/(n+1)`. There is no density, and entries are independent. A :class:`PredictiveSystem` adds the rule
    :class:`OutwardQuantiles`; the level of the central quantiles without it is true only up to :math:`1/(n+1)`.

    Parameters
    ----------
    centre, scale
        Arrays :math:`\mu` and :math:`\sigma > 0` of one shape, in ``unit``.
    law
        Standardised residuals.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a centre is not finite, or a scale is not positive.
    """

    def __init__(
        self,
        centre: Float[Tensor, "*shape"],
        scale: Float[Tensor, "*shape"],
        law: ResidualLaw,
        *,
        unit: str,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=unit, rule=rule)
        if centre.shape != scale.shape:
            raise ShapeError(expected("scale", f"shape {tuple(centre.shape)}", tuple(scale.shape)))
        if not bool((torch.isfinite(centre) & torch.isfinite(scale) & (scale > 0)).all()):
            raise DataError(expected("centre, scale", "finite centres, positive scales", "others"))
        self._centre, self._scale, self._law = centre, scale, law

    @property
    def law(self) -> ResidualLaw:
        """Standardised residuals of the calibration."""
        return self._law

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Mean of the finite part, in ``unit``."""
        return self._at(self._law.moments[0])

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the finite part, in ``unit`` squared."""
        return self._scale.square() * self._law.moments[1]

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` draws from the finite part, in ``unit``."""
        shape = size, *self._centre.shape
        source, device = generator(seed, self._centre.device), self._centre.device
        drawn = torch.rand(shape, generator=source, dtype=torch.float64, device=device) * self._law.below[-1]
        place = torch.searchsorted(self._law.below, drawn, right=True) - 1
        return self._at(self._law.scores[place.clamp_max(len(self._law.scores) - 1)])

    def pit(self, value: Float[Tensor, "*shape"], *, seed: int | torch.Generator) -> Float[Tensor, "*shape"]:
        r"""Randomised :math:`Q(y, \tau)` of each entry, uniform at new labels (exactly, with one label a structure)."""
        least, most = self._places(self._checked(value))
        device = self._centre.device
        tau = torch.rand(least.shape, generator=generator(seed, device), dtype=torch.float64, device=device)
        low, high = self._law.below[least], self._law.below[most]
        return low + tau * (high - low + self._law.open)

    def crps(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        r"""Continuous ranked probability score :math:`E|X - y| - \tfrac12 E|X - X'|` of the finite part, exact."""
        law, z = self._law, self._standardised(self._checked(value))
        share, total = law.probabilities, torch.nn.functional.pad((law.probabilities * law.scores).cumsum(0), (1, 0))
        place = torch.searchsorted(law.scores, z, right=True)
        reached = torch.nn.functional.pad(share.cumsum(0), (1, 0))
        distance = z * (2 * reached[place] - 1) + total[-1] - 2 * total[place]
        spread = (share * law.scores * (reached[1:] + reached[:-1] - 1)).sum()
        return (self._scale * (distance - spread)).to(self._centre.dtype)

    def __getitem__(self, index: int | slice | Tensor) -> ConformalDistribution:
        return ConformalDistribution(self._centre[index], self._scale[index], self._law, unit=self.unit, rule=self.rule)

    def _cdf(self, value: Tensor) -> Tensor:
        _, most = self._places(value)
        return (self._law.below[most] + self._law.open / 2).to(value.dtype)

    def _quantile(self, p: float) -> Tensor:
        place = int(torch.searchsorted(self._law.below, p - self._law.open / 2 - 1e-12)) - 1
        if place < 0:
            return torch.full_like(self._centre, -torch.inf)
        return self._at(float(self._law.scores[place]) if place < len(self._law.scores) else math.inf)

    def _at(self, score: float | Tensor) -> Tensor:
        """Value with this standardised residual."""
        return (self._centre.double() + self._scale.double() * score).to(self._centre.dtype)

    def _standardised(self, value: Tensor) -> Tensor:
        return (value.double() - self._centre.double()) / self._scale.double()

    def _places(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """How many scores are below each value and how many at most there, equal if they round to the value."""
        size, fine = value.double().abs(), torch.finfo(torch.float64).eps
        slack = 0.51 * torch.finfo(value.dtype).eps * size + 4 * fine * (size + self._centre.double().abs())
        z, slack, scores = self._standardised(value), slack / self._scale.double(), self._law.scores
        return torch.searchsorted(scores, z - slack), torch.searchsorted(scores, z + slack, right=True)


def _scale(posterior: Posterior, floor: float) -> Tensor:
    scale = posterior.stddev.double().clamp_min(floor)
    if not bool((scale > 0).all()):
        raise DataError(expected("posterior", "positive standard deviations", "zeros", "give a floor"))
    return scale


@dataclass(frozen=True)
class OutwardQuantiles:
    """Rule for intervals of a :class:`ConformalDistribution`: each end is the next residual outwards."""

    def interval(self, posterior: Posterior, level: float) -> Interval:
        """Interval with at most ``(1 − level) / 2`` on each side; infinite if there are too few groups."""
        if not isinstance(posterior, ConformalDistribution):
            raise DataError(expected("posterior", "a ConformalDistribution", type(posterior).__name__))
        law, side = posterior.law, (1 + checked_level(level)) / 2
        least, subject = needed(side), "a new label" if law.whole else "a random component of a new structure"
        text = f"infinite: level {level:g} needs n ≥ {least} structures, got {law.groups}"
        if law.groups >= least:
            text = (
                f"covers {subject} with probability ≥ {level:g}, and falls short on each side with probability "
                f"≤ {(1 - level) / 2:g}, if calibration and new structures are exchangeable (conformal predictive "
                f"system, n = {law.groups} structures, needs n ≥ {least})"
            )
        lower, upper = posterior._at(law.lower(side)), posterior._at(law.upper(side))
        return Interval(lower, upper, level, posterior.unit, text)
