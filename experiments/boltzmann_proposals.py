"""Proposals with known faults for densities with known answers: tables in the plane, their products, Gaussians."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.lattice_densities import harmonic
from bayesmol.flows.model_densities import double_well, gaussian_mixture, many_well, mueller_brown
from bayesmol.flows.proposal import Proposal
from bayesmol.inference.random import generator

__all__ = ["CASES", "KINDS", "Case", "Gaussians", "Product", "Table", "cases"]

KINDS = ("right", "wide", "narrow_09", "narrow_08", "narrow_06", "defended_08", "weights", "starved", "missing")
_SHARPNESS = {"wide": 1 / 1.25**2, "narrow_09": 1 / 0.9**2, "narrow_08": 1 / 0.8**2, "narrow_06": 1 / 0.6**2}
_SHIFT = {"weights": -1.0, "starved": -4.0, "missing": -14.0}  # of the log-density of the state that suffers


class Table:
    """A density in a rectangle of the plane that is constant in each of its cells."""

    dimension = 2

    def __init__(
        self,
        log_density: Callable[[Float[Tensor, "points 2"]], Float[Tensor, " points"]],
        bounds: tuple[tuple[float, float], tuple[float, float]],
        cells: int = 300,
    ) -> None:
        self.lower = torch.tensor([low for low, _ in bounds], dtype=torch.float64)
        self.width = (torch.tensor([high for _, high in bounds], dtype=torch.float64) - self.lower) / cells
        axes = [self.lower[k] + self.width[k] * (torch.arange(cells) + 0.5) for k in (0, 1)]
        self.centres, self.cells = torch.cartesian_prod(*axes), cells
        logs = log_density(self.centres)
        self.probabilities = logs.softmax(0)
        self.log_density = logs.log_softmax(0) - float(self.width.log().sum())

    def log_prob(self, x: Float[Tensor, "points 2"]) -> Float[Tensor, " points"]:
        """Log-density of the cell of each row; minus infinity outside."""
        place = ((x - self.lower) / self.width).floor().long()
        inside = ((place >= 0) & (place < self.cells)).all(1)
        place = place.clamp(0, self.cells - 1)
        return torch.where(inside, self.log_density[place[:, 0] * self.cells + place[:, 1]], -math.inf)

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Independent rows and their log-density."""
        source = generator(seed)
        cell = torch.multinomial(self.probabilities, size, replacement=True, generator=source)
        within = torch.rand(size, 2, generator=source, dtype=torch.float64) - 0.5
        return self.centres[cell] + self.width * within, self.log_density[cell]


class Product:
    """Independent planes."""

    def __init__(self, parts: list[Table]) -> None:
        self.parts, self.dimension = parts, 2 * len(parts)

    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each row."""
        return sum(part.log_prob(x[:, 2 * k : 2 * k + 2]) for k, part in enumerate(self.parts))

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Independent rows and their log-density."""
        source = generator(seed)
        drawn = [part.sample(size, seed=source) for part in self.parts]
        return torch.cat([x for x, _ in drawn], 1), sum(log_q for _, log_q in drawn)


class Gaussians:
    """Mixture of Gaussians of one covariance each."""

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor) -> None:
        self.weights, self.dimension = weights / weights.sum(), means.shape[1]
        self.law = torch.distributions.MultivariateNormal(means, covariances)

    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Log-density of each row."""
        return (self.law.log_prob(x.unsqueeze(1)) + self.weights.log()).logsumexp(1)

    def sample(self, size: int, *, seed: int | torch.Generator) -> tuple[Tensor, Tensor]:
        """Independent rows and their log-density."""
        source = generator(seed)
        which = torch.multinomial(self.weights, size, replacement=True, generator=source)
        noise = torch.randn(size, self.dimension, generator=source, dtype=torch.float64)
        x = self.law.loc[which] + torch.einsum("sij,sj->si", self.law.scale_tril[which], noise)
        return x, self.log_prob(x)


@dataclass(frozen=True, eq=False)
class Case:
    """A density with its answers, and its proposals by kind.

    Attributes
    ----------
    pair
        States whose free-energy difference is asked; ``None`` if there are none.
    truths
        ``log_partition``, ``energy`` (reduced), ``position`` (first coordinate) and ``free_energy_difference``.
    proposal
        By kind; ``None`` where a kind makes no sense.
    """

    density: BoltzmannDensity
    pair: tuple[int, int] | None
    truths: dict[str, float]
    proposal: Callable[[str], Proposal | None]


def cases() -> dict[str, Case]:
    """All cases by name."""
    return {name: build() for name, build in CASES.items()}


def _planar(density: BoltzmannDensity, bounds: tuple, pair: tuple[int, int], suffers: int, copies: int = 1) -> Case:
    """A density in the plane, or a sum of independent ones: tables of it at other temperatures, and of other states."""
    plane, states = density if copies == 1 else many_well(dimension=2), None
    assert plane.states is not None and density.states is not None
    states = plane.states

    def log_density(kind: str) -> Callable[[Tensor], Tensor]:
        def value(x: Tensor) -> Tensor:
            energy = plane.reduced_energy(x)
            shift = torch.where(states(x) == suffers, _SHIFT.get(kind, 0.0), 0.0)
            if kind == "defended_08":
                parts = [(-sharp * energy).log_softmax(0) + math.log(share) for sharp, share in _DEFENDED]
                return torch.logaddexp(*parts)
            return -_SHARPNESS.get(kind, 1.0) * energy + shift

        return value

    def proposal(kind: str) -> Proposal:
        if copies == 1:
            return Table(log_density(kind), bounds)
        # Only one of the pairs loses a state: this is harder to see than the loss in all.
        others = "right" if kind in _SHIFT else kind
        return Product([Table(log_density(kind), bounds)] + (copies - 1) * [Table(log_density(others), bounds)])

    exact = density.known()
    assert exact is not None and exact.mean_energy is not None
    fine = Table(log_density("right"), bounds, 1200)
    first, second = (exact.populations[k] for k in pair)
    truths = {
        "log_partition": exact.log_partition,
        "energy": exact.mean_energy,
        "position": float(fine.probabilities @ fine.centres[:, 0]),
        "free_energy_difference": math.log(first / second),
    }
    return Case(density, pair, truths, proposal)


_DEFENDED = ((1 / 0.8**2, 0.8), (1 / 1.25**2, 0.2))


def _double_well() -> Case:
    return _planar(double_well(), ((-3.2, 3.2), (-6.0, 6.0)), (0, 1), 1)


def _mueller_brown() -> Case:
    return _planar(mueller_brown(), ((-2.3, 1.9), (-1.1, 2.9)), (0, 1), 1)


def _many_well() -> Case:
    return _planar(many_well(dimension=4), ((-3.4, 3.4), (-6.0, 6.0)), (1, 2), 0, copies=2)


def _mixture() -> Case:
    """Two round Gaussians ten deviations apart in six dimensions: their overlap is below 1e-6."""
    means = torch.zeros(2, 6, dtype=torch.float64)
    means[1, 0] = 10.0
    weights, unit = torch.tensor([0.95, 0.05], dtype=torch.float64), torch.eye(6, dtype=torch.float64).repeat(2, 1, 1)
    density = gaussian_mixture(means, torch.ones(2, dtype=torch.float64), weights)
    entropy = 3 * math.log(2 * math.pi * math.e) - float((weights * weights.log()).sum())

    def proposal(kind: str) -> Proposal:
        shares = weights * torch.tensor([1.0, math.exp(_SHIFT.get(kind, 0.0))], dtype=torch.float64)
        if kind == "defended_08":
            both = torch.cat([share * weights for _, share in _DEFENDED])
            return Gaussians(means.repeat(2, 1), torch.cat([unit / sharp for sharp, _ in _DEFENDED]), both)
        return Gaussians(means, unit / _SHARPNESS.get(kind, 1.0), shares)

    truths = {
        "log_partition": 0.0,
        "energy": entropy,
        "position": 0.5,
        "free_energy_difference": math.log(19.0),
    }
    return Case(density, (0, 1), truths, proposal)


def _harmonic() -> Case:
    """A chain of six atoms on springs."""
    stiffness = 2.2 * torch.eye(6, dtype=torch.float64) - torch.ones(5, dtype=torch.float64).diag(1)
    stiffness = stiffness - torch.ones(5, dtype=torch.float64).diag(-1)
    density, covariance = harmonic(stiffness), torch.linalg.inv(stiffness)
    exact = density.known()
    assert exact is not None

    def proposal(kind: str) -> Proposal | None:
        if kind in _SHIFT:
            return None
        parts = _DEFENDED if kind == "defended_08" else ((_SHARPNESS.get(kind, 1.0), 1.0),)
        shares = torch.tensor([share for _, share in parts], dtype=torch.float64)
        return Gaussians(
            torch.zeros(len(parts), 6, dtype=torch.float64), torch.stack([covariance / s for s, _ in parts]), shares
        )

    truths = {"log_partition": exact.log_partition, "energy": 3.0, "position": 0.0}
    return Case(density, None, truths, proposal)


CASES: dict[str, Callable[[], Case]] = {
    "double_well": _double_well,
    "mueller_brown": _mueller_brown,
    "many_well": _many_well,
    "gaussian_mixture": _mixture,
    "harmonic": _harmonic,
}
