"""Boltzmann generators for a range of temperatures: one exploration, one flow."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.coordinates import Composed
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.flow import Flow
from bayesmol.flows.generator import check_members, inside, suitable_architecture, trained_members
from bayesmol.flows.marginal_fit import fit_marginals
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.steering import TemperatureSteering
from bayesmol.flows.systems import Exploration, Kind, coordinates
from bayesmol.flows.training import Training
from bayesmol.flows.viewed import Viewed
from bayesmol.inference.random import generator, integer_seed

__all__ = ["SteerableGenerator"]


@dataclass(frozen=True)
class SteerableGenerator:
    """A flow to be trained for all temperatures from that of a density to a higher one, from its energy alone.

    Parallel tempering visits all of them anyway, and none of its configurations is thrown away: the flow, conditional
    on the temperature, learns from those of every rung. What is rare at the lowest temperature is common at the
    highest. Coordinates are whitened at the highest, where configurations reach farthest.

    Attributes
    ----------
    hottest
        Highest temperature, as a multiple of that of the density.
    coordinates, architecture, minutes, members, broad
        As in :class:`~bayesmol.flows.generator.BoltzmannGenerator`.
    exploration
        The ladder; its highest temperature should lie well above ``hottest``, where barriers are crossed that the
        hottest flow has to know both sides of.
    """

    hottest: float = 10 / 3
    coordinates: Kind = "auto"
    architecture: Any = None
    exploration: Exploration = field(
        default_factory=lambda: Exploration(hottest=20 / 3, rungs=12, walkers=48, warmup=100, draws=300, thin=1)
    )
    minutes: float | None = None
    members: int = 1
    broad: float = 0.05

    def __post_init__(self) -> None:
        check_members(self.members, self.broad)
        if not 1 < self.hottest <= self.exploration.hottest:
            limits = f"above 1, and at most that of the exploration, {self.exploration.hottest:g}"
            raise DataError(expected("hottest", limits, self.hottest))

    def fit(
        self,
        density: BoltzmannDensity,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> FittedGenerator:
        """Train; ``fitted.at(temperature)`` is the generator at a temperature of the range, with its own report.

        Parameters
        ----------
        checkpoint
            Name of the files in which the state of training is kept; where they exist, training goes on from them.

        Raises
        ------
        DataError
            If the density has no ``start``, or a symmetry, which conditional flows cannot have.
        ConvergenceError
            If training fails, or neighbouring temperatures of the exploration do not overlap.
        """
        if density.symmetry is not None:
            raise DataError(expected("density", "one without symmetry", density.name, "train a generator for each"))
        source = generator(seed)
        rows, ladder, cost = self.exploration.ladder(density, self.hottest, seed=source, kind=self.coordinates)
        system = coordinates(density, rows[-1], self.coordinates, seed=integer_seed(source))
        learned = inside(system, rows.flatten(0, 1))
        ratios = learned.new_tensor(ladder).repeat_interleave(rows.shape[1])
        seeds = tuple(integer_seed(source) for _ in range(self.members))
        flows, trainings = trained_members(
            lambda own, path: self._member(density, system, (learned, ratios), own, path), seeds, cost, checkpoint
        )
        return FittedGenerator(
            density,
            system,
            flows,
            trainings,
            self._architecture(density, system),
            seeds,
            self.broad,
            temperatures=(density.temperature, self.hottest * density.temperature),
        )

    def _member(
        self,
        density: BoltzmannDensity,
        system: Composed,
        learned: tuple[Float[Tensor, "points columns"], Float[Tensor, " points"]],
        seed: int,
        path: Path | None,
    ) -> tuple[Flow, Training]:
        rows, ratios = learned
        architecture, circular = self._architecture(density, system), system.circular
        flow = architecture.build(circular.cpu(), seed=seed, context=1).to(circular.device)
        fit_marginals(flow, rows[ratios == ratios[-1]].to(flow.dtype), seed=seed)
        limits: dict[str, Any] = {} if self.minutes is None else {"steps": None, "minutes": self.minutes}
        budget = Optimisation(rate=2e-3, batch=512, marginal=1.0, **limits)
        steering = TemperatureSteering(budget, hottest=self.hottest, reverse=0.0, reference=self.hottest)
        training = steering.fit(flow, Viewed(density, system), rows, ratios, seed=seed, checkpoint=path)
        return flow.double().eval().requires_grad_(False), training

    def _architecture(self, density: BoltzmannDensity, system: Composed) -> Any:
        return self.architecture or suitable_architecture(density, system)
