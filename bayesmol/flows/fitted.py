"""Fitted Boltzmann generators: weighted draws of a density, and the verdict on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ApplicabilityError, DataError, ShapeError, expected
from bayesmol.flows.coordinates import Composed
from bayesmol.flows.defensive import Defensive
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.flow import Flow
from bayesmol.flows.mixture import Ensemble
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.saved import generator_parts, generator_state
from bayesmol.flows.steerable import Steered
from bayesmol.flows.symmetrised import Symmetrised
from bayesmol.flows.training import Training
from bayesmol.flows.trust import TrustReport, diagnose
from bayesmol.flows.viewed import Seen
from bayesmol.flows.weighted import BoltzmannDraws
from bayesmol.inference.random import generator
from bayesmol.progress import progress

__all__ = ["FittedGenerator", "checked_rows"]

_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class FittedGenerator:
    """A trained flow with its density.

    Attributes
    ----------
    density, coordinates, flows
        What is sampled, in which coordinates, by which flows (one for each member).
    trainings
        How each was trained.
    architecture, seeds
        How the flows were built.
    broad
        Share of draws from broader copies of the flows.
    reference
        Held-out samples of the density; ``None`` if there were no samples.
    temperatures
        Lowest and highest temperature for which the flows were trained, in the unit of the density; they are then
        conditional on it, with latent numbers of unit variance at the highest. ``None`` if trained for one alone.
    """

    density: BoltzmannDensity
    coordinates: Composed
    flows: tuple[Flow, ...]
    trainings: tuple[Training, ...]
    architecture: Any
    seeds: tuple[int, ...]
    broad: float = 0.05
    reference: Float[Tensor, "points dimension"] | None = None
    temperatures: tuple[float, float] | None = None

    @cached_property
    def proposal(self) -> Proposal:
        """The density of the draws, of configurations."""
        seen = [Seen(Defensive(self._steered(flow), share=self.broad), self.coordinates) for flow in self.flows]
        mixed = seen[0] if len(seen) == 1 else Ensemble(seen)
        if self.density.symmetry is None:
            return mixed
        return Symmetrised(mixed, self.density.symmetry, self.density.signs)

    def _steered(self, flow: Flow) -> Flow:
        if self.temperatures is None:
            return flow
        return Steered(flow, self.density.temperature, self.temperatures[1])

    @cached_property
    def trust(self) -> TrustReport:
        """The report by which draws are judged, made once and with the seed 0."""
        return self.diagnose(seed=0)

    def diagnose(
        self,
        reference: Float[Tensor, "points dimension"] | None = None,
        *,
        draws: int = 10_000,
        seed: int | torch.Generator = 0,
    ) -> TrustReport:
        """May the draws be believed? See :func:`bayesmol.flows.trust.diagnose`.

        Parameters
        ----------
        reference
            Draws of the density; by default those that training held out, if there were any.
        """
        rows = self.reference if reference is None else checked_rows(reference, self.density)
        with torch.no_grad():
            return diagnose(self.proposal, self.density, reference=rows, draws=draws, seed=seed)

    def sample(self, size: int, *, seed: int | torch.Generator) -> BoltzmannDraws:
        """Independent weighted configurations; estimates from them carry the verdict of :attr:`trust`.

        Raises
        ------
        DataError
            If the size is not positive, or no draw has a finite energy.
        """
        if size < 1:
            raise DataError(expected("size", "1 or more", size))
        report = self.trust
        x, log_weights = self.weighted(size, seed=seed)
        shape = self.density.shape or (self.density.dimension,)
        unit = "Å" if self.density.unit == "eV" else ""
        return BoltzmannDraws(x.unflatten(1, shape)[None], log_weights[None], unit=unit, report=report)

    @torch.no_grad()
    def weighted(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Independent configurations as rows, and their log-weights :math:`-u(x) - \\ln q(x)`, in bounded memory."""
        source, parts = generator(seed, self.coordinates.circular.device), []
        with progress("sampling", size) as advance:
            for start in range(0, size, _CHUNK):
                x, log_q = self.proposal.sample(min(_CHUNK, size - start), seed=source)
                usable = torch.isfinite(log_q)
                energy = torch.full_like(log_q, torch.inf)
                energy[usable] = self.density.reduced_energy(x[usable]).to(energy)
                parts.append((x, torch.where(usable, -energy - log_q, -torch.inf)))
                advance(len(x))
        x, log_weights = (torch.cat(columns) for columns in zip(*parts, strict=True))
        return x, log_weights

    @torch.no_grad()
    def log_prob(self, x: Float[Tensor, "points ..."]) -> Float[Tensor, " points"]:
        """Log-density of configurations, in nats: how usual they are, for the domain of applicability."""
        return torch.cat([self.proposal.log_prob(part) for part in checked_rows(x, self.density).split(_CHUNK)])

    def on(self, density: BoltzmannDensity) -> FittedGenerator:
        """The same flows as the proposal for another density of the same system, to be judged anew.

        Raises
        ------
        ShapeError
            If its configurations have another length.
        ApplicabilityError
            If flows for a range of temperatures were not trained for its own.
        """
        if density.dimension != self.density.dimension:
            raise ShapeError(expected("density", f"{self.density.dimension} coordinates", density.dimension))
        if self.temperatures is not None:
            low, high = self.temperatures
            if not low * (1 - 1e-9) <= density.temperature <= high * (1 + 1e-9):
                remedy = "train over a wider range"
                raise ApplicabilityError(
                    expected("temperature", f"from {low:g} to {high:g}", density.temperature, remedy)
                )
        return replace(self, density=density, reference=None)

    def at(self, temperature: float) -> FittedGenerator:
        """The same flows as the proposal for another temperature, to be judged anew.

        Flows of a :class:`~bayesmol.flows.steered.SteerableGenerator` follow it within their range; others stay as
        they are, and near temperatures only are green.
        """
        return self.on(self.density.at(temperature))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and arrays of a file, for :func:`bayesmol.persistence.save`.

        The energy is saved with a force field of this package only; else load, and then give it with :meth:`on`.

        Raises
        ------
        DataError
            If coordinates or architecture have no form in a file.
        """
        return generator_state(self)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> FittedGenerator:
        """The generator that :meth:`state` described."""
        return cls(**generator_parts(header, arrays))


def checked_rows(samples: Tensor, density: BoltzmannDensity) -> Float[Tensor, "points dimension"]:
    """Configurations as rows in float64, centred where the density has no place.

    Raises
    ------
    ShapeError, DataError
        If they are no configurations of the density, or not finite.
    """
    if samples.ndim < 2 or samples[0].numel() != density.dimension:
        shape = density.shape or (density.dimension,)
        raise ShapeError(expected("samples", f"(points, {', '.join(map(str, shape))})", tuple(samples.shape)))
    if not bool(torch.isfinite(samples).all()):
        raise DataError(expected("samples", "finite numbers", "NaN or infinity"))
    rows = samples.flatten(1).double()
    if not density.space:
        return rows
    positions = rows.unflatten(1, (-1, density.space))
    return (positions - positions.mean(1, keepdim=True)).flatten(1)
