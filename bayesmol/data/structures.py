"""Structures: a batch of molecules and cells of unequal size, without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Structures", "chosen_structures", "completed_cell", "selected_atoms"]

_LONGEST = 1e6  # Å, of a vector of a cell
_FLAT = 1e-6  # volume of the unit vectors along a cell
_CLOSEST = 0.1  # Å; nearer than this, two atoms are one atom written twice
_ELEMENTS = 118


@dataclass(frozen=True, eq=False)
class Structures:
    r"""A ragged batch: structure :math:`s` owns the atoms ``pointer[s]:pointer[s + 1]``.

    Parameters
    ----------
    positions
        Cartesian coordinates in Å.
    species
        Atomic numbers, 1 to 118.
    pointer
        Offsets of the structures, from 0 to the number of atoms.
    cell
        Lattice vectors in rows, in Å; zeros where a direction is not periodic and has none.
    pbc
        Which lattice vectors repeat.

    Raises
    ------
    ShapeError
        If the arrays do not fit together.
    DataError
        If there is no atom, a number is not finite, a species is unknown, two atoms are nearer than 0.1 Å,
        or the lattice vectors of the periodic directions are linearly dependent.
    """

    positions: Float[Tensor, "atoms 3"]
    species: Int[Tensor, " atoms"]
    pointer: Int[Tensor, " offsets"]
    cell: Float[Tensor, "structures 3 3"]
    pbc: Bool[Tensor, "structures 3"]

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_values(self)
        _check_overlaps(self)

    @classmethod
    def from_ase(cls, atoms: "Atoms | Sequence[Atoms]") -> "Structures":
        """Structures of one or more :class:`ase.Atoms`; labels are not read, see :class:`~bayesmol.data.Labelled`."""
        frames: list[Any] = [atoms] if hasattr(atoms, "get_atomic_numbers") else list(atoms)
        if not frames:
            raise DataError(expected("atoms", "at least one structure", "an empty list"))
        for frame in frames:
            if not hasattr(frame, "get_atomic_numbers"):
                raise DataError(expected("atoms", "ase.Atoms or a list of them", type(frame).__name__))
        return cls(
            torch.from_numpy(np.concatenate([frame.positions for frame in frames]).astype(np.float64)),
            torch.from_numpy(np.concatenate([frame.numbers for frame in frames]).astype(np.int64)),
            _offsets(torch.tensor([len(frame) for frame in frames])),
            torch.from_numpy(np.stack([frame.cell.array for frame in frames]).astype(np.float64)),
            torch.from_numpy(np.stack([frame.pbc for frame in frames]).astype(bool)),
        )

    @classmethod
    def coerce(cls, structures: Any) -> "Structures":
        """Structures of whatever holds them: ``Structures``, ``Labelled``, ``ase.Atoms`` or a list of these."""
        if isinstance(structures, cls):
            return structures
        if isinstance(inner := getattr(structures, "structures", None), cls):
            return inner
        if not hasattr(structures, "__iter__") or isinstance(structures, str | Tensor):
            kind = type(structures).__name__
            raise DataError(expected("structures", "Structures, Labelled, ase.Atoms or a list of ase.Atoms", kind))
        if hasattr(structures, "get_atomic_numbers"):
            return cls.from_ase(structures)
        items = list(structures)
        if any(isinstance(item, cls) or hasattr(item, "structures") for item in items):
            return cls.concatenate([cls.coerce(item) for item in items])
        return cls.from_ase(items)

    @classmethod
    def concatenate(cls, parts: Sequence["Structures"]) -> "Structures":
        """One batch of all structures of ``parts``, in order."""
        if not parts:
            raise DataError(expected("parts", "at least one Structures", "none"))
        counts = torch.cat([part.counts for part in parts])
        names = ("positions", "species", "cell", "pbc")
        arrays = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
        return _checked(pointer=_offsets(counts), **arrays)

    def __len__(self) -> int:
        return self.pointer.numel() - 1

    def __getitem__(self, index: "int | slice | Sequence[int] | Tensor | np.ndarray") -> "Structures":
        chosen = chosen_structures(index, len(self), self.pointer.device)
        atoms = selected_atoms(self.pointer, chosen)
        return _checked(
            positions=self.positions[atoms],
            species=self.species[atoms],
            pointer=_offsets(self.counts[chosen]),
            cell=self.cell[chosen],
            pbc=self.pbc[chosen],
        )

    def __repr__(self) -> str:
        return f"Structures({len(self)} structures, {self.positions.shape[0]} atoms)"

    @property
    def counts(self) -> Int[Tensor, " structures"]:
        """Number of atoms of each structure."""
        return self.pointer.diff()

    @property
    def structure_index(self) -> Int[Tensor, " atoms"]:
        """Structure to which each atom belongs."""
        indices = torch.arange(len(self), device=self.pointer.device)
        return indices.repeat_interleave(self.counts, output_size=self.positions.shape[0])

    def composition(self, index: int) -> dict[int, int]:
        """Atomic number → number of atoms in structure ``index``."""
        numbers, counts = self[index].species.unique(return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Structures":
        """The same structures on another device or with coordinates of another floating type."""
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        return _checked(**{k: v.to(device, dtype if v.is_floating_point() else v.dtype) for k, v in arrays.items()})

    def to_ase(self) -> "list[Atoms]":
        """One :class:`ase.Atoms` for each structure."""
        from ase import Atoms

        arrays = (self.species, self.positions.detach(), self.cell.detach(), self.pbc)
        numbers, positions, cell, pbc = (array.cpu().numpy() for array in arrays)
        pairs = enumerate(pairwise(self.pointer.tolist()))
        return [Atoms(numbers[a:b], positions[a:b], cell=cell[s], pbc=pbc[s]) for s, (a, b) in pairs]


def chosen_structures(index: Any, size: int, device: torch.device) -> Int[Tensor, " chosen"]:
    """Positions ``0 … size − 1`` that an index of any kind (integer, slice, list, tensor, mask) selects."""
    if isinstance(index, slice):
        chosen = torch.tensor(range(size)[index], dtype=torch.long, device=device)
    else:
        chosen = torch.as_tensor(index, device=device)
        if chosen.dtype == torch.bool and chosen.shape != (size,):
            raise ShapeError(expected("index", f"a mask of shape ({size},)", tuple(chosen.shape)))
        chosen = chosen.nonzero().squeeze(1) if chosen.dtype == torch.bool else chosen.reshape(-1).long()
        if chosen.numel() and (chosen.max() >= size or chosen.min() < -size):
            raise IndexError(expected("index", f"structures {-size} to {size - 1}", index))
        chosen = chosen % size
    if not chosen.numel():
        raise DataError(
            expected("index", "a selection of at least one structure", "an empty one", "test for it before")
        )
    return chosen


def selected_atoms(pointer: Int[Tensor, " offsets"], chosen: Int[Tensor, " chosen"]) -> Int[Tensor, " atoms"]:
    """Indices of the atoms of the ``chosen`` structures, in their order."""
    counts = pointer.diff()[chosen]
    shift = (pointer[chosen] - _offsets(counts)[:-1]).repeat_interleave(counts)
    return shift + torch.arange(shift.numel(), device=pointer.device)


def _checked(**arrays: Tensor) -> Structures:
    """Structures from arrays that were checked before; a subset of valid structures is valid."""
    structures = object.__new__(Structures)
    for name, value in arrays.items():
        object.__setattr__(structures, name, value)
    return structures


def _offsets(counts: Int[Tensor, " structures"]) -> Int[Tensor, " offsets"]:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _check_shapes(s: Structures) -> None:
    if s.positions.ndim != 2 or s.positions.shape[1] != 3:
        raise ShapeError(expected("positions", "(atoms, 3) in Å", tuple(s.positions.shape), "transpose it?"))
    if not s.positions.is_floating_point():
        raise DataError(expected("positions", "floating-point numbers in Å", s.positions.dtype, "use .double()"))
    if s.pointer.ndim != 1 or s.pointer.numel() < 2:
        raise DataError(expected("pointer", "offsets of at least one structure", tuple(s.pointer.shape)))
    atoms, structures = s.positions.shape[0], s.pointer.numel() - 1
    if s.species.shape != (atoms,):
        raise ShapeError(expected("species", f"({atoms},), one for each row of positions", tuple(s.species.shape)))
    if s.pointer[0] != 0 or s.pointer[-1] != atoms or (s.pointer.diff() < 1).any():
        got = s.pointer.tolist() if structures < 8 else f"offsets from {s.pointer[0]} to {s.pointer[-1]}"
        raise DataError(expected("pointer", f"increasing offsets from 0 to {atoms}, no structure empty", got))
    for name, shape in (("cell", (structures, 3, 3)), ("pbc", (structures, 3))):
        if getattr(s, name).shape != shape:
            raise ShapeError(expected(name, f"{shape}", tuple(getattr(s, name).shape)))


def _check_values(s: Structures) -> None:
    for name in ("positions", "cell"):
        if not (finite := getattr(s, name).isfinite()).all():
            bad = int((~finite).nonzero()[0, 0])
            raise DataError(expected(name, "finite numbers in Å", f"NaN or infinity in row {bad}", "remove that frame"))
    if ((s.species < 1) | (s.species > _ELEMENTS)).any():
        got = sorted(set(s.species[(s.species < 1) | (s.species > _ELEMENTS)].tolist()))
        raise DataError(expected("species", f"atomic numbers 1 to {_ELEMENTS}", got, "are these type indices?"))
    cell = completed_cell(s.cell, s.pbc)
    lengths = cell.norm(dim=2)
    volume = torch.linalg.det(cell / lengths.unsqueeze(2)).abs()  # of the unit vectors; NaN where one vanishes
    if (sound := (volume > _FLAT) & (lengths > _CLOSEST).all(1) & (lengths < _LONGEST).all(1)).logical_not().any():
        bad = int((~sound).nonzero()[0])
        wanted = f"independent vectors of {_CLOSEST} to {_LONGEST:g} Å"
        raise DataError(expected("cell", wanted, f"{s.cell[bad].tolist()} (structure {bad})"))


def _check_overlaps(s: Structures) -> None:
    """Refuse atoms nearer than 0.1 Å, images included, in time linear in the number of atoms.

    One tree holds every structure: its axes are the fractional coordinates modulo 1 and the number of the structure.
    Its candidates are measured exactly; rounding finds the nearest image of atoms that close.
    """
    from scipy.spatial import cKDTree

    cell = completed_cell(s.cell, s.pbc) * torch.where(s.pbc, 1.0, 100.0).unsqueeze(
        2
    )  # free axes: few false candidates
    cell = cell.detach().cpu().double()
    owner = s.structure_index.cpu()
    fractional = torch.linalg.solve(cell[owner].mT, s.positions.detach().cpu().double().unsqueeze(2)).squeeze(2)
    reach = _CLOSEST / float(torch.linalg.svdvals(cell).min())
    wrapped = (fractional - fractional.floor()).clamp(max=1 - 1e-12)
    points = torch.cat([wrapped, (2 * reach + 1) * owner.unsqueeze(1)], 1).numpy()
    pairs = torch.from_numpy(cKDTree(points, boxsize=[1, 1, 1, 0]).query_pairs(reach, output_type="ndarray")).long()
    difference = fractional[pairs[:, 0]] - fractional[pairs[:, 1]]
    difference = difference - difference.round() * s.pbc.cpu()[owner[pairs[:, 0]]]
    distance = torch.einsum("pk,pkx->px", difference, cell[owner[pairs[:, 0]]]).norm(dim=1)
    if (near := distance < _CLOSEST).any():
        bad = int(near.nonzero()[0])
        i, j, structure = *pairs[bad].tolist(), int(owner[pairs[bad, 0]])
        got = f"{distance[bad]:.3f} Å between atoms {i} and {j} of structure {structure}"
        remedy = "are the positions in nm (read takes a length_unit), or is an atom written twice?"
        raise DataError(expected("positions", f"atoms at least {_CLOSEST} Å apart", got, remedy))


def completed_cell(cell: Float[Tensor, "structures 3 3"], pbc: Bool[Tensor, "structures 3"]) -> Tensor:
    """Cells in which the vectors that do not repeat are replaced by unit vectors normal to those that do."""
    kept = cell * pbc.unsqueeze(2)
    normals = torch.linalg.svd(kept).Vh  # the last rows span what no periodic vector reaches
    free = ~pbc
    row = (3 - free.sum(1, keepdim=True) + free.cumsum(1) - 1).clamp(min=0)
    return torch.where(free.unsqueeze(2), normals.gather(1, row.unsqueeze(2).expand(-1, -1, 3)), kept)
