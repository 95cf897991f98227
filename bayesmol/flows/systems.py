"""Which coordinates suit a density, and where its configurations are found before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.coordinates import Cartesian, Composed, MeanFree, Planar
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.molecular_coordinates import molecular
from bayesmol.flows.viewed import Viewed
from bayesmol.flows.whitened import whitening
from bayesmol.inference.metropolis import HamiltonianMonteCarlo
from bayesmol.inference.random import generator
from bayesmol.inference.tempering import ParallelTempering, Tempered

__all__ = ["Exploration", "Kind", "coordinates", "suitable"]

_CHUNK = 8192

Kind = Literal["auto", "internal", "planar", "mean-free", "cartesian"]


@dataclass(frozen=True)
class Exploration:
    """Configurations before a flow is trained: parallel tempering finds the basins, many short chains fill them.

    Only the coldest of the tempered walkers count, so they give few configurations; chains that start from these give
    many that differ in all fast motions.

    Attributes
    ----------
    hottest, rungs
        Highest temperature as a multiple of that of the density, and number of temperatures.
    walkers
        Independent ladders.
    warmup, draws, thin, leapfrogs
        As in :class:`~bayesmol.inference.tempering.ParallelTempering`.
    chains, length
        Number of chains at the temperature of the density, and draws of each; for molecules.
    warm
        Share of these chains that start where the lower half of the other temperatures has led. A basin that is rare at
        the temperature of the density is then less rare among the configurations, a flow learns it from many, and
        weights say how rare it is; the effective size of the draws is less by this share at most.
    """

    hottest: float = 4.0
    rungs: int = 8
    walkers: int = 32
    warmup: int = 200
    draws: int = 100
    thin: int = 2
    leapfrogs: int = 10
    chains: int = 512
    length: int = 40
    warm: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.warm < 1:
            raise DataError(expected("warm", "a share from 0 to below 1", self.warm))

    def fit(
        self,
        density: BoltzmannDensity,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        kind: Kind = "auto",
    ) -> tuple[Float[Tensor, "points dimension"], int]:
        """Configurations at the temperature of the density, in the order of their simulation, and what they cost.

        Molecules move in whitened internal coordinates, in which one step suits all of them. With ``samples`` of a
        molecule tempering starts from these and finds only where it is warmer: how much is in each basin is what the
        samples say.

        Raises
        ------
        DataError
            If there are no samples and the density has no ``start``.
        """
        source = _source(density, samples, seed)
        view, found = self._tempered(density, samples, kind, source)
        if view is None:
            return _by_draw(found.values[0]), found.evaluations
        cold = view.inverse(_by_draw(found.values[0]))[0] if samples is None else samples.double()
        warm = view.inverse(found.values[1 : self.rungs // 2 + 1].flatten(0, 2))[0]
        filled, cost = self.filled(density, cold, warm, seed=source)
        return filled, found.evaluations + cost

    def ladder(
        self, density: BoltzmannDensity, hottest: float, *, seed: int | torch.Generator, kind: Kind = "auto"
    ) -> tuple[Float[Tensor, "rungs points dimension"], tuple[float, ...], int]:
        """Configurations at the temperatures up to the first from ``hottest`` on, these, and what all cost.

        Temperatures are multiples of that of the density. Of molecules, draws of short chains are added, as in
        :meth:`filled`, so that basins that are rare at a temperature are less rare among its configurations.

        Raises
        ------
        DataError
            If the density has no ``start``, or the ladder ends below ``hottest``.
        """
        if not hottest <= self.hottest * (1 + 1e-9):
            raise DataError(expected("hottest", f"at most that of the ladder, {self.hottest:g}", hottest))
        source = _source(density, None, seed)
        view, found = self._tempered(density, None, kind, source)
        ladder = found.ladder.tolist()
        count = 1 + sum(ratio < hottest * (1 - 1e-9) for ratio in ladder)
        rows = [_by_draw(values) for values in found.values[:count]]
        if view is None:
            return torch.stack(rows), tuple(ladder[:count]), found.evaluations
        rungs, cost = [view.inverse(own)[0] for own in rows], found.evaluations
        each = replace(self, chains=max(self.chains // count, 1))
        for k in range(count):
            warmer = found.values[min(k + 1, self.rungs - 1) : k + 1 + self.rungs // 2]
            warm = view.inverse(warmer.flatten(0, 2))[0]
            filled, spent = each.filled(density.at(ladder[k] * density.temperature), rungs[k], warm, seed=source)
            rungs[k], cost = torch.cat([rungs[k], filled]), cost + spent
        return torch.stack(rungs), tuple(ladder[:count]), cost

    def _tempered(
        self, density: BoltzmannDensity, samples: Tensor | None, kind: Kind, source: torch.Generator
    ) -> tuple[Composed | None, Tempered]:
        """Parallel tempering, of a molecule in internal coordinates."""
        start = self._start(density, samples, source)
        view = molecular(density, samples, seed=source) if suitable(density, kind) == "internal" else None
        sampler = ParallelTempering(
            ParallelTempering.geometric(self.hottest, self.rungs),
            leapfrogs=self.leapfrogs,
            warmup=self.warmup,
            draws=self.draws,
            thin=self.thin,
        )
        if view is None:
            return None, sampler.fit(density, start, seed=source)
        return view, sampler.fit(Viewed(density, view), view(start)[0], seed=source)

    def _start(self, density: BoltzmannDensity, samples: Tensor | None, source: torch.Generator) -> Tensor:
        if samples is None:
            start = _given_start(density).double()
            return start[torch.arange(self.walkers) % len(start)]
        return _some(samples.double(), self.walkers, source)

    def filled(
        self,
        density: BoltzmannDensity,
        rows: Float[Tensor, "points dimension"],
        warm: Float[Tensor, "more dimension"] | None = None,
        *,
        seed: int | torch.Generator,
    ) -> tuple[Float[Tensor, "points dimension"], int]:
        """Draws of short chains at the temperature of the density that start at some of the rows, and their cost.

        Within a basin they are at equilibrium soon; how much is in each basin is what the rows say, and for a share of
        the chains the rows of higher temperatures.
        """
        source = generator(seed, rows.device)
        view = molecular(density, rows, seed=source)
        start = _some(rows, self.chains, source)
        if warm is not None:
            count = int(self.warm * self.chains)
            start[:count] = _some(warm, count, source)
        sampler = HamiltonianMonteCarlo(step=0.2, leapfrogs=self.leapfrogs, warmup=20, draws=self.length)
        walk = sampler.fit(Viewed(density, view), view(start)[0], seed=source)
        drawn = walk.values.transpose(0, 1).flatten(0, 1)
        parts = [view.inverse(part)[0] for part in drawn.split(_CHUNK)]
        return torch.cat(parts), walk.evaluations


def coordinates(
    density: BoltzmannDensity, rows: Float[Tensor, "points dimension"], kind: Kind = "auto", *, seed: int = 0
) -> Composed:
    """Coordinates in which a flow learns the density, with mean and covariance of ``rows`` taken out.

    By default internal ones for molecules, those without translation and rotation for particles in the plane, without
    translation for other particles, and the numbers themselves otherwise.

    Raises
    ------
    DataError
        If the kind is unknown, or does not suit the density.
    """
    kind = suitable(density, kind)
    if kind == "internal":
        return molecular(density, rows, seed=seed)
    if kind == "cartesian":
        plain = Cartesian(density.dimension)
    elif density.space:
        particles = density.dimension // density.space
        plain = Planar(particles, _spread(rows)) if kind == "planar" else MeanFree(particles, density.space)
    else:
        raise DataError(expected("coordinates", "'cartesian' for a density without space", repr(kind)))
    plain = plain.to(rows.device)
    y, _ = plain(rows.double())
    return Composed([plain, whitening(y, plain.circular)])


def suitable(density: BoltzmannDensity, kind: Kind) -> Kind:
    """The kind itself, or for ``"auto"`` what suits the density.

    Raises
    ------
    DataError
        If the kind is unknown.
    """
    if kind not in get_args(Kind):
        raise DataError(expected("coordinates", f"one of {get_args(Kind)}", repr(kind)))
    if kind != "auto":
        return kind
    if density.species is not None and len(density.species) > 2:
        return "internal"
    return "cartesian" if density.space == 0 else "planar" if density.space == 2 else "mean-free"


def _source(density: BoltzmannDensity, samples: Tensor | None, seed: int | torch.Generator) -> torch.Generator:
    return generator(seed, (_given_start(density) if samples is None else samples).device)


def _given_start(density: BoltzmannDensity) -> Float[Tensor, "starts dimension"]:
    if density.start is None:
        raise DataError(expected("density.start", "a configuration to start from", None, "or give samples"))
    return density.start


def _by_draw(values: Float[Tensor, "walkers draws dimension"]) -> Float[Tensor, "points dimension"]:
    """Rows in the order of their simulation."""
    return values.transpose(0, 1).flatten(0, 1)


def _some(rows: Tensor, count: int, source: torch.Generator) -> Float[Tensor, "count dimension"]:
    return rows[torch.randint(len(rows), (count,), generator=source, device=rows.device)]


def _spread(rows: Tensor) -> float:
    """Root mean square of a coordinate about the centre."""
    return float(rows.double().square().mean().sqrt())
