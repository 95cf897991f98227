"""Controllers of online conformal intervals: what to do to the threshold after each label.

A controller is a frozen specification; what it has learned is the ``control``, a tensor that each update replaces.
Its threshold bounds the score of the next step: infinite is the whole line, minus infinity the empty set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected

__all__ = ["ACI", "PID", "Controller", "DynamicACI", "pool_quantile", "pool_tails"]

Pool = Float[Tensor, "steps entries"]
Control = Float[Tensor, " numbers"]


@runtime_checkable
class Controller(Protocol):
    """What the adaptive intervals ask of a controller; ``target`` is 1 − level."""

    def initial(self, target: float, pool: Pool) -> Control:
        """Control before the first step, from the scores of calibration steps."""
        ...

    def threshold(self, control: Control, pool: Pool) -> float:
        """Bound of the scores of the next step."""
        ...

    def updated(
        self, control: Control, pool: Pool, scores: Float[Tensor, " entries"], missed: float, target: float
    ) -> Control:
        """Control after a step with these scores, of which the share ``missed`` was above the threshold."""
        ...

    def guarantee(self, target: float, steps: int) -> str:
        """What holds of the share of misses in ``steps`` steps."""
        ...


@dataclass(frozen=True)
class ACI:
    r"""Adaptive conformal inference: the level of the quantile moves against the errors.

    .. math:: \alpha_{t+1} = \alpha_t + \gamma (\alpha - \mathrm{err}_t), \quad
       \Big|\frac1T \sum_t \mathrm{err}_t - \alpha\Big| \le \frac{\max(\alpha, 1 - \alpha) + \gamma}{\gamma T}

    for any sequence of scores. Intervals are infinite while :math:`\alpha_t \le 0`.

    Attributes
    ----------
    rate
        :math:`\gamma`.

    References
    ----------
    Gibbs, Candès, NeurIPS 2021, arXiv:2106.00170, equation 2 and proposition 4.1.
    """

    rate: float = 0.01

    def __post_init__(self) -> None:
        _check_rates((self.rate,))

    def initial(self, target: float, pool: Pool) -> Control:
        """The nominal rate of misses."""
        return pool.new_tensor([target])

    def threshold(self, control: Control, pool: Pool) -> float:
        """Quantile of the newest scores at the adapted level."""
        return pool_quantile(pool, float(control[0]))

    def updated(
        self, control: Control, pool: Pool, scores: Float[Tensor, " entries"], missed: float, target: float
    ) -> Control:
        """One step of the recursion; of several entries the share of misses is the error."""
        return control + self.rate * (target - missed)

    def bound(self, target: float, steps: int) -> float:
        """Largest possible difference of the share of misses in ``steps`` steps from the nominal one."""
        return (max(target, 1 - target) + self.rate) / (self.rate * steps) if steps else math.inf

    def guarantee(self, target: float, steps: int) -> str:
        """The bound in words."""
        return _bounded(self.bound(target, steps), target, steps)


@dataclass(frozen=True)
class DynamicACI:
    r"""Dynamically tuned adaptive conformal inference: a mixture of :class:`ACI` with several rates.

    The weights of the rates fall exponentially with the pinball loss
    :math:`\ell(\beta, \theta) = \alpha (\beta - \theta) - \min(0, \beta - \theta)` of their levels, where
    :math:`\beta_t` is the level at which the label is just missed, and flow back evenly with
    :math:`\sigma = 1/(2I)`. The level is the weighted mean. For constant rates the paper bounds the regret over each
    stretch of I steps, not the long-run error.

    Attributes
    ----------
    rates
        Candidates for the rate.
    horizon
        I, steps over which the best rate stays the same.

    References
    ----------
    Gibbs, Candès, J. Mach. Learn. Res. 25 (2024), arXiv:2208.08401, algorithm 1 and section 3.
    """

    rates: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128)
    horizon: int = 500

    def __post_init__(self) -> None:
        _check_rates(self.rates)
        if self.horizon < 1:
            raise DataError(expected("horizon", "at least 1 step", self.horizon))

    def initial(self, target: float, pool: Pool) -> Control:
        """Level of each rate, then the weights."""
        count = len(self.rates)
        return torch.cat([pool.new_full((count,), target), pool.new_full((count,), 1 / count)])

    def threshold(self, control: Control, pool: Pool) -> float:
        """Quantile of the newest scores at the weighted mean of the levels."""
        levels, weights = control.chunk(2)
        return pool_quantile(pool, float(levels @ weights))

    def updated(
        self, control: Control, pool: Pool, scores: Float[Tensor, " entries"], missed: float, target: float
    ) -> Control:
        """Levels by their own rates; weights by the pinball loss."""
        levels, weights = control.chunk(2)
        gaps = pool_tails(pool, scores) - levels[:, None]
        losses = (target * gaps - gaps.clamp_max(0.0)).mean(1)
        errors = (gaps <= 0).double().mean(1)
        weights = weights * (-self._eta(target) * losses).exp()
        share = 1 / (2 * self.horizon)
        weights = (1 - share) * weights / weights.sum() + share / len(weights)
        return torch.cat([levels + levels.new_tensor(self.rates) * (target - errors), weights])

    def guarantee(self, target: float, steps: int) -> str:
        """What the regret bound means."""
        return (
            f"misses a share of about {target:g} of the labels in any {self.horizon} steps, close to the best of "
            f"{len(self.rates)} rates (regret bound); no finite bound of the long-run share"
        )

    def _eta(self, target: float) -> float:
        logarithm = math.log(len(self.rates) * self.horizon) + 2
        spread = (1 - target) ** 2 * target**3 + target**2 * (1 - target) ** 3
        return math.sqrt(3 * logarithm / (self.horizon * spread))


@dataclass(frozen=True)
class PID:
    r"""Conformal PID control: the threshold itself is tracked, and errors that pile up push it back.

    .. math:: q_{t+1} = \hat q_{t+1} + b \tan \frac{\pi E_t}{2 c \sqrt t}, \quad
       \hat q_{t+1} = \hat q_t + \eta b (\mathrm{err}_t - \alpha), \quad E_t = \sum_{i \le t} (\mathrm{err}_i - \alpha)

    with the tangent infinite beyond its pole, so that :math:`|E_T|/T \le (c\sqrt T + 1)/T` for any scores. The forecast
    of the score (D) is the predicted standard deviation, by which normalised scores are divided. The scale b is the
    quantile of the calibration scores at which the tracking starts.

    Attributes
    ----------
    rate
        :math:`\eta`.
    saturation
        c: smaller bounds the error more tightly, at the cost of more infinite intervals.

    References
    ----------
    Angelopoulos, Candès, Tibshirani, NeurIPS 2023, arXiv:2307.16895, section 2; the saturation function is ours, and
    admissible in their sense.
    """

    rate: float = 0.05
    saturation: float = 2.0

    def __post_init__(self) -> None:
        _check_rates((self.rate, self.saturation))

    def initial(self, target: float, pool: Pool) -> Control:
        """Tracked threshold, sum of errors, steps, and scale.

        Raises
        ------
        DataError
            If there are too few calibration steps for the level.
        """
        scale = pool_quantile(pool, target)
        if not math.isfinite(scale):
            needed = math.ceil((1 - target) / target - 1e-9)
            raise DataError(expected("scores", f"at least {needed} calibration steps for PID", len(pool)))
        return pool.new_tensor([scale, 0.0, 0.0, scale])

    def threshold(self, control: Control, pool: Pool) -> float:
        """Tracked threshold and the push of the sum of errors."""
        tracked, total, steps, scale = control.tolist()
        share = total / (self.saturation * math.sqrt(steps)) if steps else 0.0
        return math.copysign(math.inf, share) if abs(share) >= 1 else tracked + scale * math.tan(math.pi / 2 * share)

    def updated(
        self, control: Control, pool: Pool, scores: Float[Tensor, " entries"], missed: float, target: float
    ) -> Control:
        """One step of the tracking and of the sum."""
        tracked, total, steps, scale = control.tolist()
        error = missed - target
        return control.new_tensor([tracked + self.rate * scale * error, total + error, steps + 1, scale])

    def bound(self, target: float, steps: int) -> float:
        """Largest possible difference of the share of misses in ``steps`` steps from the nominal one."""
        return (self.saturation * math.sqrt(steps) + 1) / steps if steps else math.inf

    def guarantee(self, target: float, steps: int) -> str:
        """The bound in words."""
        return _bounded(self.bound(target, steps), target, steps)


def pool_quantile(pool: Pool, miss: float) -> float:
    r"""Score that bounds a random entry of a new step with probability ≥ 1 − ``miss``, were steps exchangeable.

    The :math:`\lceil (1 - \mathrm{miss})(G + 1) N \rceil`-th smallest of the N entries of G steps; infinite above the
    last, minus infinity below the first.
    """
    rank = math.ceil((1 - miss) * (len(pool) + 1) * pool.shape[1] * (1 - 1e-12))
    if rank > pool.numel():
        return math.inf
    return float(pool.flatten().kthvalue(rank).values) if rank > 0 else -math.inf


def pool_tails(pool: Pool, scores: Float[Tensor, " scores"]) -> Float[Tensor, " scores"]:
    """Rate of misses at which :func:`pool_quantile` just misses each score."""
    below = (pool.flatten() < scores[:, None]).sum(1).double()
    return 1 - below / ((len(pool) + 1) * pool.shape[1])


def _check_rates(rates: tuple[float, ...]) -> None:
    if not rates or not all(0 < rate < math.inf for rate in rates):
        raise DataError(expected("rate", "positive numbers", rates))


def _bounded(bound: float, target: float, steps: int) -> str:
    text = "bounded for any sequence of scores; a single interval has no probability"
    if not steps:
        return f"the share of missed labels tends to {target:g} as steps go on: its distance is {text}"
    return (
        f"the share of missed labels in the first {steps} steps differs from {target:g} by at most {bound:.3g}, {text}"
    )
