"""Labelled structures prepared for training: neighbours found once, batches cut out by index."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.representation.ace import Environments

_EDGE_ARRAYS = ("vectors", "radial", "radial_slope", "harmonics", "harmonics_slope")


@dataclass(frozen=True)
class Batch:
    """Environments of some structures with their labels above the baseline.

    Attributes
    ----------
    counts
        Atoms of each structure.
    energies, forces, virials
        In eV, eV/Å and eV; zero where there is none.
    has_energies, has_forces, has_virials
        1 where there is a label of the structure, else 0.
    """

    environment: Environments
    counts: Int[Tensor, " structures"]
    energies: Float[Tensor, " structures"]
    forces: Float[Tensor, "atoms 3"]
    virials: Float[Tensor, "structures 3 3"]
    has_energies: Float[Tensor, " structures"]
    has_forces: Float[Tensor, " structures"]
    has_virials: Float[Tensor, " structures"]

    @classmethod
    def of(cls, energy: NeuralEnergy, data: Labelled) -> Batch:
        """All structures of a data set, labels in the precision of the network."""
        double = data.to(dtype=torch.float64)
        environment = energy.network.environments(double.structures)
        base = energy.baseline(double.structures)
        volume = double.structures.cell.det().abs()[:, None, None]
        labels = {
            "energies": (double.energies, base[0], torch.full_like(double.has_forces, double.energies is not None)),
            "forces": (double.forces, base[1], double.has_forces),
            "virials": (None if double.stresses is None else double.stresses * volume, base[2], double.has_stresses),
        }
        arrays: dict[str, Tensor] = {}
        for name, (label, below, mask) in labels.items():
            known = mask[double.structures.structure_index] if name == "forces" else mask
            shape = (-1, *(1,) * (below.ndim - 1))
            value = torch.zeros_like(below) if label is None else (label - below) * known.to(below).reshape(shape)
            arrays |= {name: value.to(environment.radial), f"has_{name}": mask.to(environment.radial)}
        return cls(environment, double.structures.counts, **arrays)

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, chosen: Int[Tensor, " chosen"]) -> Batch:
        """The chosen structures, their atoms renumbered."""
        whole, counts = self.environment, self.counts[chosen]
        atoms, moved = _members(self.counts, chosen)
        edges, _ = _members(self._edge_counts, chosen)
        shift = moved.repeat_interleave(self._edge_counts[chosen])
        environment = replace(
            whole,
            species=whole.species[atoms],
            structure=torch.arange(len(chosen), device=atoms.device).repeat_interleave(counts),
            structures=len(chosen),
            first=whole.first[edges] + shift,
            second=whole.second[edges] + shift,
            buckets=(),
            **{name: getattr(whole, name)[edges] for name in _EDGE_ARRAYS},
        )
        names = [f.name for f in fields(self) if f.name not in ("environment", "counts", "forces")]
        rows = {name: getattr(self, name)[chosen] for name in names}
        return Batch(environment=environment, counts=counts, forces=self.forces[atoms], **rows)

    @cached_property
    def _edge_counts(self) -> Int[Tensor, " structures"]:
        return torch.bincount(self.environment.structure[self.environment.first], minlength=len(self))


def _members(counts: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of what belongs to the chosen structures, and by how much the numbers of each structure move."""
    ends, sizes = counts.cumsum(0), counts[chosen]
    moved = sizes.cumsum(0) - sizes - (ends - counts)[chosen]
    total = int(sizes.sum())
    return torch.arange(total, device=counts.device) - moved.repeat_interleave(sizes), moved
