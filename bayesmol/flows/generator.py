"""Boltzmann generators: a flow in good coordinates, trained to a density, with the verdict on its draws."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.coordinates import Composed
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.fitted import FittedGenerator, checked_rows
from bayesmol.flows.flow import Flow
from bayesmol.flows.marginal_fit import fit_marginals
from bayesmol.flows.mixed_couplings import MixedCouplings
from bayesmol.flows.objectives import MixedKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.renewal import RenewedKL
from bayesmol.flows.systems import Exploration, Kind, coordinates, suitable
from bayesmol.flows.training import Training
from bayesmol.flows.transport import ConstrainedMassTransport
from bayesmol.flows.unfolding import SymmetricFlow, UnfoldedKL
from bayesmol.flows.viewed import Viewed
from bayesmol.inference.random import generator, integer_seed

__all__ = ["BoltzmannGenerator", "check_members", "inside", "suitable_architecture", "trained_members"]

_MANY = 5  # dimensions, from which on a broad start is too far from the density
_HELD_OUT = 0.1  # of the samples, the last ones; the report judges by them


@dataclass(frozen=True)
class BoltzmannGenerator:
    """A flow to be trained to a Boltzmann density, from its energy alone or with samples.

    Attributes
    ----------
    coordinates
        ``"internal"``, ``"planar"``, ``"mean-free"``, ``"cartesian"``; ``"auto"`` takes what suits the density
        (:func:`bayesmol.flows.systems.coordinates`).
    architecture
        Specification of the flow, with ``build``: by default mixed couplings for molecules, autoregressive below
        five dimensions, spline couplings otherwise.
    objective
        What is minimised. By default the forward divergence on draws of chains, which start at the samples, or where
        ``exploration`` leads, and go on in training, and on draws of the flow itself
        (:class:`~bayesmol.flows.renewal.RenewedKL`); of particles with a symmetry one image of each is learnt
        (:class:`~bayesmol.flows.unfolding.UnfoldedKL`). Without samples, symmetry and species and below five dimensions
        it is constrained mass transport from a broad start.
    exploration
        How chains find the configurations of a density.
    minutes
        CPU minutes of each member's default objective; ``None`` for a fixed number of steps.
    members
        Flows that are trained from different seeds; the density is their equal mixture.
    broad
        Share of draws from a broader copy of each flow, which bounds the weights.
    """

    coordinates: Kind = "auto"
    architecture: Any = None
    objective: Any = None
    exploration: Exploration = field(default_factory=Exploration)
    minutes: float | None = None
    members: int = 1
    broad: float = 0.05

    def __post_init__(self) -> None:
        check_members(self.members, self.broad)

    def fit(
        self,
        density: BoltzmannDensity,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> FittedGenerator:
        """Train; the result makes its trust report when it is first asked for draws.

        Parameters
        ----------
        samples
            Draws of the density in the order of their simulation, as rows or in the shape of a configuration; the last
            tenth is held out, and the trust report takes it for draws of the density. Samples that are not at
            equilibrium are corrected by weights, but judge by others then, or by chains: ``fitted.on(density)``.
        checkpoint
            Name of the files in which the state of training is kept; where they exist, training goes on from them.

        Raises
        ------
        ShapeError, DataError
            If samples do not fit the density.
        ConvergenceError
            If training fails.
        """
        source = generator(seed)
        rows = None if samples is None else checked_rows(samples, density)
        kept, reference = (None, None) if rows is None else _parted(rows)
        found, cost = self._found(density, kept, source)
        system = coordinates(density, found, self.coordinates, seed=integer_seed(source))
        learned = found if kept is not None or self._from_chains(density) else None
        seeds = tuple(integer_seed(source) for _ in range(self.members))
        flows, trainings = trained_members(
            lambda own, path: self._member(density, system, learned, own, path), seeds, cost, checkpoint
        )
        architecture = self.architecture or suitable_architecture(density, system)
        return FittedGenerator(density, system, flows, trainings, architecture, seeds, self.broad, reference)

    def _found(self, density: BoltzmannDensity, rows: Tensor | None, source: torch.Generator) -> tuple[Tensor, int]:
        """Configurations that show where the density is, and what their energies cost."""
        molecule = self.objective is None and suitable(density, self.coordinates) == "internal"
        if rows is None or molecule:
            return self.exploration.fit(density, rows, seed=source, kind=self.coordinates)
        return rows, 0

    def _from_chains(self, density: BoltzmannDensity) -> bool:
        known = density.species is not None or density.symmetry is not None or density.dimension >= _MANY
        return isinstance(self.objective, MixedKL) or (self.objective is None and known)

    def _member(
        self, density: BoltzmannDensity, system: Composed, rows: Tensor | None, seed: int, path: Path | None
    ) -> tuple[Flow, Training]:
        architecture = self.architecture or suitable_architecture(density, system)
        flow = architecture.build(system.circular.cpu(), seed=seed).to(system.circular.device)
        objective = self.objective or self._default(density, samples=rows is not None)
        if density.symmetry is None:
            y = None if rows is None else inside(system, rows).to(flow.dtype)
            if y is not None:
                fit_marginals(flow, y, seed=seed)
            training = objective.fit(flow, Viewed(density, system), y, seed=seed, checkpoint=path)
        else:
            trained = SymmetricFlow(flow, system, density)
            training = objective.fit(trained, density, rows, seed=seed, checkpoint=path)
        return flow.double().eval().requires_grad_(False), training

    def _default(self, density: BoltzmannDensity, *, samples: bool) -> Any:
        if not samples:
            return ConstrainedMassTransport(optimisation=self._budget(rate=1e-2, batch=128))
        if density.symmetry is not None:
            return UnfoldedKL(optimisation=self._budget(rate=4e-3, batch=512))
        if density.species is not None:
            return RenewedKL(optimisation=self._budget(rate=2e-3, batch=512, marginal=1.0))
        return RenewedKL(optimisation=self._budget(rate=1e-3, batch=256, marginal=3.0))

    def _budget(self, **options: Any) -> Optimisation:
        if self.minutes is None:
            return Optimisation(**options)
        return Optimisation(steps=None, minutes=self.minutes, **options)


def check_members(members: int, broad: float) -> None:
    """See that there is a member, and that the share of broad draws is one.

    Raises
    ------
    DataError
        If not.
    """
    if members < 1 or not 0 < broad < 1:
        raise DataError(expected("members, broad", "one or more, and a share below 1", (members, broad)))


def trained_members(
    member: Callable[[int, Path | None], tuple[Flow, Training]],
    seeds: Sequence[int],
    cost: int,
    checkpoint: str | os.PathLike[str] | None,
) -> tuple[tuple[Flow, ...], tuple[Training, ...]]:
    """A flow from each seed, with its own checkpoint; each training counts the energies of the exploration too."""
    path, made = None if checkpoint is None else Path(checkpoint), []
    for k, seed in enumerate(seeds):
        flow, training = member(seed, None if path is None else path.with_name(f"{path.name}.{k}"))
        made.append((flow, replace(training, energy_evaluations=training.energy_evaluations + cost)))
    flows, trainings = zip(*made, strict=True)
    return flows, trainings


def suitable_architecture(density: BoltzmannDensity, system: Composed) -> Any:
    """Mixed couplings for molecules, autoregressive below five dimensions, spline couplings otherwise."""
    if density.species is not None:
        return MixedCouplings()
    return Autoregressive() if len(system.circular) < _MANY else Couplings(layers=4, width=64, bins=16)


def _parted(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that are learned from, and the last ones, which are held out."""
    kept = len(rows) - int(_HELD_OUT * len(rows))
    return rows[:kept], rows[kept:]


def inside(system: Composed, rows: Tensor) -> Tensor:
    """Samples in the coordinates of the flow.

    Raises
    ------
    DataError
        If one is outside of the coordinates, such as a molecule of the other handedness.
    """
    y, volume = system(rows)
    if outside := int(torch.isinf(volume).sum()):
        raise DataError(expected("samples", "configurations inside the coordinates", f"{outside} outside", "leave out"))
    return y
