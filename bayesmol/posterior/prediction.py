"""Prediction: what a potential says about a set of structures."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior.base import Posterior

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    """Predictive distributions of new labels of a set of structures.

    ``energy`` is the distribution of a new label; ``energy.epistemic`` is the band of its mean.

    Attributes
    ----------
    energy
        Shape ``(structures,)``, in eV.
    forces
        Shape ``(atoms, 3)``, in eV/Å.
    pointer
        First atom of each structure, and the number of atoms at the end.
    stress
        Shape ``(structures, 3, 3)``, in eV/Å³; ``None`` where no structure has a cell.
    atomic_energies
        Shape ``(atoms,)``, in eV.
    inside
        Whether each structure lies in the domain of the model; ``None`` without a domain.
    p_value
        Conformal p-value of each structure under the calibration data.
    provenance
        Model, versions and data behind the numbers.

    Raises
    ------
    ShapeError
        If the parts do not describe the same structures and atoms.
    """

    energy: Posterior
    forces: Posterior
    pointer: Int[Tensor, " offsets"]
    stress: Posterior | None = None
    atomic_energies: Posterior | None = None
    inside: Bool[Tensor, " structures"] | None = None
    p_value: Float[Tensor, " structures"] | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        structures, atoms = len(self.pointer) - 1, int(self.pointer[-1])
        shapes = {"energy": (structures,), "forces": (atoms, 3), "stress": (structures, 3, 3)}
        shapes |= {"atomic_energies": (atoms,), "inside": (structures,), "p_value": (structures,)}
        for name, shape in shapes.items():
            part = getattr(self, name)
            if part is not None and tuple(part.shape) != shape:
                raise ShapeError(expected(name, f"shape {shape}", tuple(part.shape)))

    def __len__(self) -> int:
        return len(self.pointer) - 1

    def __getitem__(self, index: int | slice | Tensor) -> Prediction:
        """Prediction of the structures that ``index`` selects; an integer gives a prediction of one structure."""
        chosen = self._chosen(index)
        counts = self.pointer.diff()[chosen]
        pointer = torch.cat([self.pointer.new_zeros(1), counts.cumsum(0)])
        starts = torch.repeat_interleave(self.pointer[:-1][chosen] - pointer[:-1], counts)
        atoms = starts + torch.arange(int(pointer[-1]), device=self.pointer.device)
        rows = {"energy": chosen, "stress": chosen, "inside": chosen, "p_value": chosen}
        rows |= {"forces": atoms, "atomic_energies": atoms}
        parts = {name: getattr(self, name) for name in rows}
        parts = {name: None if part is None else part[rows[name]] for name, part in parts.items()}
        return Prediction(pointer=pointer, provenance=self.provenance, **parts)

    def _chosen(self, index: int | slice | Tensor) -> Tensor:
        everything = torch.arange(len(self), device=self.pointer.device)
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(expected("index", f"an integer below {len(self)}", index))
            index = slice(index % len(self), index % len(self) + 1)
        chosen = everything[index]
        if len(chosen) == 0:
            raise DataError(expected("index", "at least one structure", "none"))
        return chosen
