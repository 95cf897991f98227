"""Features of atoms: one row an atom, and the structure to which it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures, chosen_structures, selected_atoms
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.representation.design import Representation
from bayesmol.representation.radial import RadialBasis

__all__ = ["AtomicFeatures", "atomic_features"]


@dataclass(frozen=True, eq=False)
class AtomicFeatures:
    """A ragged batch: structure s owns the rows ``pointer[s]:pointer[s + 1]``.

    Attributes
    ----------
    values
        One row an atom.
    species
        Atomic number of each.
    pointer
        Offsets of the structures, from 0 to the number of atoms.

    Raises
    ------
    ShapeError
        If the three do not describe the same atoms.
    """

    values: Float[Tensor, "atoms features"]
    species: Int[Tensor, " atoms"]
    pointer: Int[Tensor, " offsets"]

    def __post_init__(self) -> None:
        atoms = len(self.values)
        if self.values.ndim != 2 or self.species.shape != (atoms,) or int(self.pointer[-1]) != atoms:
            got = f"{tuple(self.values.shape)}, {tuple(self.species.shape)}, {int(self.pointer[-1])} atoms in pointer"
            raise ShapeError(expected("values, species, pointer", "one row, one species an atom", got))

    @classmethod
    def concatenate(cls, parts: Sequence[AtomicFeatures]) -> AtomicFeatures:
        """One batch of all structures of ``parts``, in order."""
        if not parts:
            raise DataError(expected("parts", "at least one AtomicFeatures", "none"))
        counts = torch.cat([part.counts for part in parts])
        pointer = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return cls(torch.cat([part.values for part in parts]), torch.cat([part.species for part in parts]), pointer)

    def __len__(self) -> int:
        return len(self.pointer) - 1

    def __getitem__(self, index: Any) -> AtomicFeatures:
        chosen = chosen_structures(index, len(self), self.pointer.device)
        atoms, counts = selected_atoms(self.pointer, chosen), self.counts[chosen]
        return AtomicFeatures(
            self.values[atoms], self.species[atoms], torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        )

    @property
    def counts(self) -> Int[Tensor, " structures"]:
        """Number of atoms of each structure."""
        return self.pointer.diff()

    @property
    def structure_index(self) -> Int[Tensor, " atoms"]:
        """Structure to which each atom belongs."""
        return torch.arange(len(self), device=self.pointer.device).repeat_interleave(self.counts)


def atomic_features(structures: Any, representation: Representation | None = None) -> AtomicFeatures:
    """Body-ordered invariants of the environment of each atom.

    Parameters
    ----------
    structures
        Structures, labelled structures, or ASE atoms.
    representation
        By default 8 random channels of 2- and 3-body and 4 of 4-body invariants within 5 Å of the elements present;
        give the one of a fitted potential, or one made for all data, where sets with other elements are compared.
    """
    batch = Structures.coerce(structures).to(dtype=torch.float64)
    if representation is None:
        species = tuple(batch.species.unique().tolist())
        representation = Representation.random(species, RadialBasis(cutoff=5.0, size=6), (8, 4, 0), (3, 2, 1), seed=0)
    parts = []
    for chunk in representation.chunks(batch):
        parts.append(representation.design(representation.environments(batch[chunk]), forces=False).atomic)
    return AtomicFeatures(torch.cat(parts), batch.species, batch.pointer)
