"""Conformal intervals of a stationary time series: blocks longer than its memory stand for independent structures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.observed import paired
from bayesmol.calibration.rules import needed
from bayesmol.calibration.weighted import Kind, WeightedConformal, WeightedRule, interval_of, score_of
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Interval, Posterior
from bayesmol.posterior.estimate import effective_sample_size

__all__ = ["BlockConformal", "BlockRule", "consecutive", "correlation_time"]


@dataclass(frozen=True)
class BlockConformal:
    r"""Split conformal intervals from one correlated stream, such as a molecular dynamics trajectory.

    The steps are cut into blocks of L. G blocks count as G exchangeable structures, however many steps they have: the
    rank of the score is that of G, and a level that G blocks cannot give is infinite. By default L is twice the
    integrated autocorrelation time :math:`\tau = n / n_\mathrm{eff}` of the scores.

    Attributes
    ----------
    score, floor
        As in :class:`~bayesmol.calibration.WeightedConformal`.
    simultaneous
        Whether a whole new block shall be covered together, or a random entry of a random step of it.
    length
        L, in steps; ``None`` for :math:`2\tau`.

    References
    ----------
    Oliveira, Orenstein, Ramos, Romano, J. Mach. Learn. Res. 25 (2024), for split conformal intervals of mixing
    sequences; Chernozhukov, Wüthrich, Zhu, COLT 2018, arXiv:1802.06300, for permutations of blocks.
    """

    score: Kind = "normalised"
    simultaneous: bool = False
    floor: float = 0.0
    length: int | None = None

    def fit(
        self, posterior: Posterior, truth: Tensor | Labelled, *, groups: Int[Tensor, " rows"] | None = None
    ) -> BlockRule:
        """Rule from a stretch of the stream in its order in time.

        Parameters
        ----------
        groups
            Step of each row, ascending; by default each row is a step (of a ``Labelled``: each structure).

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, steps are not in order, or there are fewer than four.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        if bool((observed.groups.diff() < 0).any()):
            raise DataError(expected("groups", "steps in their order in time", "others"))
        scores = score_of(self.score, self.floor).scores(posterior, observed.values).flatten()
        steps, owner = observed.structures, observed.owner
        means = scores.new_zeros(steps).index_add_(0, owner, scores) / owner.bincount(minlength=steps)
        time = correlation_time(means)
        length = math.ceil(2 * time) if self.length is None else self.length
        block = consecutive(steps, length).to(owner.device)
        conformal = WeightedConformal(self.score, self.simultaneous, self.floor)
        weights = scores.new_ones(int(block[-1]) + 1)
        rule = conformal.fit(posterior, observed.values, weights, groups=block[observed.groups])
        return BlockRule(rule, steps, length, time)


@dataclass(frozen=True, eq=False)
class BlockRule:
    """Fitted rule.

    Attributes
    ----------
    rule
        Rule with blocks as structures of equal weight.
    steps, length
        Steps of the calibration, and of a block.
    correlation_time
        Integrated autocorrelation time of the scores, in steps.
    """

    rule: WeightedRule
    steps: int
    length: int
    correlation_time: float

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.rule.weights)

    def radius(self, level: float) -> float:
        """Bound of the scores; infinite if there are too few blocks."""
        return float(self.rule.radii(level, self.rule.weights.new_ones(1))[0])

    def interval(self, posterior: Posterior, level: float) -> Interval:
        """Intervals of new steps: ``mean ± radius``, or ``mean ± radius · max(stddev, floor)``."""
        kind = self.rule.specification
        radii = torch.full((len(posterior),), self.radius(level), dtype=torch.float64, device=posterior.mean.device)
        return interval_of(score_of(kind.score, kind.floor), posterior, radii, level, self.guarantee(level))

    def guarantee(self, level: float) -> str:
        """The sentence that holds for an interval at ``level``."""
        sample = (
            f"{self.blocks} blocks of {self.length} steps, autocorrelation time {self.correlation_time:.3g} steps, "
            f"needs {needed(level)} blocks"
        )
        if self.blocks < needed(level):
            return f"infinite: level {level:g} needs {needed(level)} blocks, got {sample}"
        whole = self.rule.specification.simultaneous
        subject = f"all of {self.length} new steps together" if whole else "a random entry of a random new step"
        return (
            f"covers {subject} with probability about {level:g} if the stream is stationary ({sample}); approximate, "
            "because neighbouring blocks are only nearly independent, and exact if blocks were exchangeable"
        )


def correlation_time(series: Float[Tensor, " steps"]) -> float:
    r"""Integrated autocorrelation time :math:`\tau = 1 + 2 \sum_k \rho_k = n / n_\mathrm{eff}` in steps, at least 1."""
    return max(1.0, len(series) / float(effective_sample_size(series.double()[None])))


def consecutive(steps: int, length: int) -> Int[Tensor, " steps"]:
    """Block of each step, 0 to the number of blocks − 1; steps that are left over join the last block.

    Raises
    ------
    DataError
        If the length is not at least one step.
    """
    if length < 1:
        raise DataError(expected("length", "at least 1 step", length))
    return (torch.arange(steps) // length).clamp_max(max(1, steps // length) - 1)
