"""When a simulation has failed: numbers that are no numbers, broken or crushed bonds, atoms inside each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import covalent_radii

__all__ = ["Failure", "Watch"]

BONDED = 1.3  # of the sum of the covalent radii: up to here two atoms are bonded at the start


@dataclass(frozen=True)
class Failure:
    """Why and when one replica of a simulation was stopped.

    Attributes
    ----------
    replica
        Its number.
    step, time
        The look at which it was noticed, and the time then in fs; it happened since the look before.
    reason
        In words.
    """

    replica: int
    step: int
    time: float
    reason: str

    def __str__(self) -> str:
        return f"replica {self.replica} failed by step {self.step} ({self.time:g} fs): {self.reason}"


@dataclass(frozen=True)
class Watch:
    """What counts as a failure; a reaction that is wanted needs ``longest=inf``.

    Attributes
    ----------
    longest, shortest
        Length of a bond in lengths of its start; atoms nearer than 1.3 times the sum of their covalent radii at the
        start are bonded.
    contact
        Smallest distance of two atoms in sums of their covalent radii.

    Raises
    ------
    DataError
        If a start lies beyond the limits.
    """

    longest: float = 2.0
    shortest: float = 0.5
    contact: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.shortest < 1 < self.longest or not 0 <= self.contact < 1:
            got = f"shortest={self.shortest}, longest={self.longest}, contact={self.contact}"
            raise DataError(expected("watch", "shortest and contact from 0 to below 1, longest above 1", got))

    def start(self, structures: Structures) -> Watched:
        """Bonds of the start."""
        radii = covalent_radii(structures.species).to(structures.positions)
        edges = neighbours(structures, BONDED * 2 * float(radii.max()))
        lengths = edges.vectors.norm(dim=1)
        bonded = lengths < BONDED * (radii[edges.first] + radii[edges.second])
        parts = edges.first[bonded], edges.second[bonded], edges.shifts[bonded], lengths[bonded]
        return Watched(self, radii, *parts)


@dataclass(frozen=True, eq=False)
class Watched:
    """The bonds of the start of a simulation, by which later frames are judged."""

    limits: Watch
    radii: Tensor
    first: Tensor
    second: Tensor
    shifts: Tensor
    lengths: Tensor

    def verdicts(self, structures: Structures, finite: Bool[Tensor, " structures"]) -> dict[str, Tensor]:
        """By reason, which replicas have failed; those that are not ``finite`` must hold some finite positions."""
        positions, owner = structures.positions, structures.structure_index
        vectors = positions[self.second] - positions[self.first]
        if bool(structures.pbc.any()):
            shifts = torch.einsum("ek,ekx->ex", self.shifts.to(positions), structures.cell[owner[self.first]])
            vectors = vectors + shifts
        ratio, bond = vectors.norm(dim=1) / self.lengths, owner[self.first]
        found = {"an energy, a force or a position is not a finite number": ~finite}
        found[f"a bond is longer than {self.limits.longest:g} times its start"] = _any(
            ratio > self.limits.longest, bond, finite
        )
        found[f"a bond is shorter than {self.limits.shortest:g} times its start"] = _any(
            ratio < self.limits.shortest, bond, finite
        )
        if self.limits.contact > 0:
            edges = neighbours(structures, self.limits.contact * 2 * float(self.radii.max()))
            reach = self.limits.contact * (self.radii[edges.first] + self.radii[edges.second])
            close = edges.vectors.norm(dim=1) < reach
            reason = f"two atoms are closer than {self.limits.contact:g} times the sum of their covalent radii"
            found[reason] = _any(close, owner[edges.first], finite)
        return found


def _any(flags: Tensor, owner: Tensor, like: Bool[Tensor, " structures"]) -> Bool[Tensor, " structures"]:
    """Which structures own a raised flag."""
    found = torch.zeros_like(like)
    found[owner[flags]] = True
    return found
