"""Temperature annealing: a flow is trained where nothing is rare, and cooled in steps."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.matching import drawn, matching_loss, stage
from bayesmol.flows.objectives import checked_samples, path_loss
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Target
from bayesmol.flows.training import Training, train
from bayesmol.flows.viewed import Viewed

__all__ = ["TemperatureAnnealing", "heated"]


def heated(target: Any, ratio: float) -> Any:
    r"""The target at a temperature higher by a factor; volumes of coordinates are not touched.

    Raises
    ------
    DataError
        If the target neither has a temperature nor is a density with one seen in other coordinates.
    """
    if isinstance(target, Viewed):
        return Viewed(heated(target.density, ratio), target.coordinates)
    if not (hasattr(target, "at") and hasattr(target, "temperature")):
        remedy = "give a BoltzmannDensity, or use ConstrainedMassTransport"
        raise DataError(expected("target", "a density with a temperature", type(target).__name__, remedy))
    return target.at(ratio * target.temperature)


@dataclass(frozen=True)
class TemperatureAnnealing:
    r"""Reverse divergence at a high temperature, then cooling by reweighted draws.

    After the share ``first`` of the budget at the hottest temperature each further round divides the temperature by a
    constant, draws from the flow, and fits it to the next density by the forward divergence with weights
    :math:`e^{-u_{i+1}} / q` (:func:`~bayesmol.flows.matching.matching_loss`). The last two rounds are both at the
    temperature of the target.

    Attributes
    ----------
    hottest
        Highest temperature, as a multiple of that of the target.
    coolings
        Number of steps down; the temperature falls by :math:`\text{hottest}^{1/\text{coolings}}` in each.
    first
        Rounds at the hottest temperature, each as long as a round of cooling.
    draws, share, clip, cut
        As in :class:`~bayesmol.flows.transport.ConstrainedMassTransport`.

    References
    ----------
    Schopmans, Friederich, Temperature-annealed Boltzmann generators (arXiv:2501.19077).
    """

    optimisation: Optimisation = field(default_factory=lambda: Optimisation(rate=5e-3, batch=256))
    hottest: float = 4.0
    coolings: int = 9
    first: int = 8
    draws: int = 10_000
    share: float = 0.2
    clip: float = 10.0
    cut: float = 1e8

    def __post_init__(self) -> None:
        if not (self.hottest > 1 and min(self.coolings, self.first, self.draws, self.clip) > 0 and 0 < self.share < 1):
            raise DataError(expected("hottest, coolings, first, draws, clip", "above 1, and positive numbers", self))

    @property
    def rounds(self) -> int:
        """Rounds that share the budget equally."""
        return self.first + self.coolings + 1

    def ratio(self, turn: int) -> float:
        """Temperature of a round, as a multiple of that of the target."""
        return self.hottest ** (1 - min(max(turn - self.first + 1, 0), self.coolings) / self.coolings)

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters in place; ``samples`` of the target only tell the forward effective sample size.

        Raises
        ------
        DataError
            If the target has no temperature.
        """
        heated(target, self.hottest)
        held_out = None if samples is None else lambda target, source: checked_samples(samples, flow)
        return train(self, flow, target, cut=self.cut, held_out=held_out, seed=seed, checkpoint=checkpoint)

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Nothing while it is hot; then draws with weights for the next temperature."""
        ratio = torch.tensor(self.ratio(turn), dtype=torch.float64)
        if turn < self.first:
            return {"ratio": ratio}
        with target.replaced(heated(target.target, float(ratio))):
            draws = drawn(flow, target, self.draws, self.share, source)
        return stage(draws, -draws.energy) | {"ratio": ratio}

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Path gradient while it is hot, else the match to the next temperature."""
        if "x" in data:
            return matching_loss(flow, data, self.optimisation.batch, self.clip, source), data["reverse_ess"]
        with target.replaced(heated(target.target, float(data["ratio"]))):
            return path_loss(flow, target, self.optimisation.batch, source)[0], None
