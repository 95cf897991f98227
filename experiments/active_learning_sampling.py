"""Dynamics of replicas in one batch, and the distribution of their torsions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.inference.random import numpy_generator
from bayesmol.progress import progress
from bayesmol.report import cpu_seconds

BINS = 36

Forces = Callable[[Structures], Tensor]


@dataclass(frozen=True, eq=False)
class Sampled:
    """Positions of replicas at equal times, in Å, and CPU seconds for each step of one replica."""

    positions: Float[Tensor, "times replicas atoms 3"]
    cost: float


def sampled(
    forces: Forces,
    start: Structures,
    steps: int,
    temperature: float,
    *,
    timestep: float = 1.0,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Sampled:
    """Langevin dynamics (BAOAB, friction 10/ps) of all structures at once until ``stop``; each 5th step is kept."""
    from ase import units
    from ase.data import atomic_masses

    source = numpy_generator(seed)
    step, thermal = timestep * units.fs, units.kB * temperature
    mass = torch.from_numpy(atomic_masses)[start.species][:, None]
    damping = float(np.exp(-0.01 * timestep))
    positions, kept = start.positions.clone(), []
    normal = lambda: torch.from_numpy(source.standard_normal(tuple(positions.shape)))  # noqa: E731
    velocity = (thermal / mass).sqrt() * normal()
    begun, force = cpu_seconds(), forces(start)
    with progress("sampling", steps) as advance:
        for number in range(steps):
            velocity = velocity + 0.5 * step * force / mass
            positions = positions + 0.5 * step * velocity
            velocity = damping * velocity + (thermal / mass * (1 - damping**2)).sqrt() * normal()
            positions = positions + 0.5 * step * velocity
            force = forces(Structures(positions, start.species, start.pointer, start.cell, start.pbc))
            velocity = velocity + 0.5 * step * force / mass
            advance()
            if number % 5 == 4:
                kept.append(positions.view(len(start), -1, 3))
            if stop():
                break
    kept = kept or [positions.view(len(start), -1, 3)]
    return Sampled(torch.stack(kept), (cpu_seconds() - begun) / steps / len(start))


def torsions(positions: Float[Tensor, "*frames atoms 3"], quadruples: list[tuple[int, ...]]) -> Tensor:
    """Dihedral angles in degrees, of all quadruples together."""
    found = []
    for a, b, c, d in quadruples:
        one, two, three = (positions[..., j, :] - positions[..., i, :] for i, j in ((a, b), (b, c), (c, d)))
        left, right = torch.linalg.cross(one, two), torch.linalg.cross(two, three)
        sine = (torch.linalg.cross(left, right) * two).sum(-1) / two.norm(dim=-1)
        found.append(torch.rad2deg(torch.atan2(sine, (left * right).sum(-1))))
    return torch.stack(found, -1)


def histogram(angles: Tensor) -> Float[Tensor, " bins"]:
    """Shares of the angles in 36 bins."""
    counts = torch.histc(angles.flatten(), BINS, -180.0, 180.0)
    return counts / counts.sum()


def divergence(first: Float[Tensor, " bins"], second: Float[Tensor, " bins"]) -> float:
    """Jensen-Shannon divergence in nats."""
    middle = (first + second) / 2
    parts = [(torch.special.xlogy(part, part) - torch.special.xlogy(part, middle)).sum() for part in (first, second)]
    return float(sum(parts) / 2)


def kept(path: Path) -> Sampled | None:
    if not path.exists():
        return None
    with np.load(path) as stored:
        return Sampled(torch.from_numpy(stored["positions"]), float(stored["cost"]))
