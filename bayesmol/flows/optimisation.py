"""How the weights of a flow are moved, and for how long."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow

__all__ = ["Objective", "Optimisation"]


@dataclass(frozen=True)
class Optimisation:
    r"""How the weights of a flow are moved, and for how long.

    Attributes
    ----------
    steps, minutes
        Budget: number of steps, CPU minutes of this process, or both, whichever ends first. Only a budget of steps
        alone gives the same weights again.
    batch
        Rows of each step.
    rate, cosine, warmup
        Rate of Adam; whether it falls to zero over the budget as :math:`(1 + \cos \pi t) / 2`; share of the budget over
        which it first rises from zero.
    marginal
        Factor of the rate for the parameters of marginal maps, which no network multiplies.
    decay
        Decoupled weight decay.
    clip
        Largest norm of the gradient of all weights.
    average
        Memory, in steps, of the exponential moving average of the weights that is kept in the end; 0 for none.
    skips
        Steps with a loss or gradient that is not finite are skipped; so many in a row are an error.
    checks, patience
        Over the budget the held-out draws are looked at so many times: their forward effective sample size goes into
        the history, and the weights that make them most likely are kept. After ``patience`` looks without better ones
        training stops; never if ``None``.
    """

    steps: int | None = 3000
    minutes: float | None = None
    batch: int = 512
    rate: float = 2e-3
    cosine: bool = True
    warmup: float = 0.02
    marginal: float = 10.0
    decay: float = 0.0
    clip: float = 1.0
    average: float = 100.0
    skips: int = 20
    checks: int = 20
    patience: int | None = None

    def __post_init__(self) -> None:
        if self.steps is None and self.minutes is None:
            raise DataError(expected("steps, minutes", "at least one of them", "none"))
        if not all(limit is None or limit > 0 for limit in (self.steps, self.minutes, self.patience)):
            raise DataError(expected("steps, minutes, patience", "positive numbers", self))
        if min(self.batch, self.rate, self.marginal, self.clip, self.skips, self.checks) <= 0:
            raise DataError(expected("batch, rate, marginal, clip, skips, checks", "positive numbers", self))
        if not (0 <= self.warmup < 1 and self.decay >= 0 and self.average >= 0):
            raise DataError(expected("warmup, decay, average", "not negative, warmup below 1", self))

    def share(self, steps: int, seconds: float) -> float:
        """Part of the budget that is used up."""
        used = 0.0 if self.steps is None else steps / self.steps
        return used if self.minutes is None else max(used, seconds / (60 * self.minutes))

    def rate_at(self, share: float) -> float:
        """Rate after this part of the budget."""
        rising = min(1.0, share / self.warmup) if self.warmup else 1.0
        falling = (1 + math.cos(math.pi * min(share, 1.0))) / 2 if self.cosine else 1.0
        return self.rate * rising * falling


class Objective(Protocol):
    """What the loop needs of an objective: data for each round, and a loss for each step."""

    @property
    def optimisation(self) -> Optimisation: ...

    @property
    def rounds(self) -> int: ...

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Data of round ``turn``, from those of the round before."""
        ...

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Loss of one step, and the reverse effective sample size as a fraction where it is known."""
        ...
