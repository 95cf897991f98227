"""Labelled: structures with energies, forces and stresses, and the standard errors of these labels."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures, chosen_structures, selected_atoms
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Labelled", "Source"]

_ERRORS = {"energy_errors": "energies", "force_errors": "forces", "stress_errors": "stresses"}
_MASKS = {"has_forces": "forces", "has_stresses": "stresses"}


@dataclass(frozen=True)
class Source:
    """Where data come from, and on what terms: name, SPDX licence, citation, DOI or address."""

    name: str
    licence: str
    citation: str
    url: str


@dataclass(frozen=True, eq=False)
class Labelled:
    r"""Structures and what was measured on them, each label with its own standard error where it is known.

    Parameters
    ----------
    energies
        Total energies in eV.
    forces
        In eV/Å; rows of frames without forces are zero and masked by ``has_forces``.
    stresses
        In eV/Å³, :math:`\sigma = V^{-1}\,\partial E/\partial\varepsilon` (positive under tension, as in ASE).
    energy_errors, force_errors, stress_errors
        Standard errors of the labels; ``None`` for exact labels.
    has_forces, has_stresses
        Which structures have the label; all of them if omitted.
    source
        Licence and citation.

    Raises
    ------
    ShapeError
        If a label does not fit the structures.
    DataError
        If a label is NaN or infinite, an error is negative, or an error has no label.
    """

    structures: Structures
    energies: Float[Tensor, " structures"] | None = None
    forces: Float[Tensor, "atoms 3"] | None = None
    stresses: Float[Tensor, "structures 3 3"] | None = None
    energy_errors: Float[Tensor, " structures"] | None = None
    force_errors: Float[Tensor, "atoms 3"] | None = None
    stress_errors: Float[Tensor, "structures 3 3"] | None = None
    has_forces: Bool[Tensor, " structures"] = None  # type: ignore[assignment]  # filled in below
    has_stresses: Bool[Tensor, " structures"] = None  # type: ignore[assignment]  # filled in below
    source: Source | None = None

    def __post_init__(self) -> None:
        for name, label in _MASKS.items():
            if getattr(self, name) is None:
                present = getattr(self, label) is not None
                mask = torch.full((len(self),), present, device=self.structures.pointer.device)
                object.__setattr__(self, name, mask)
        _check(self)

    @classmethod
    def from_ase(cls, atoms: "Atoms | Sequence[Atoms]", *, source: Source | None = None) -> "Labelled":
        """Structures and labels of :class:`ase.Atoms`, from the calculator's results, ``info`` and ``arrays``."""
        from bayesmol.data.atoms import labels

        frames: list[Any] = [atoms] if hasattr(atoms, "get_atomic_numbers") else list(atoms)
        found: dict[str, Any] = labels(frames)
        return cls(Structures.from_ase(frames), **found, source=source)

    def to_ase(self) -> "list[Atoms]":
        """One :class:`ase.Atoms` for each structure, its labels in a single-point calculator."""
        from bayesmol.data.atoms import attach

        return attach(self)

    @classmethod
    def concatenate(cls, parts: Sequence["Labelled"]) -> "Labelled":
        """One set of all frames of ``parts``; frames without forces or stresses are masked.

        Raises
        ------
        DataError
            If only some parts have energies.
        """
        if len({part.energies is None for part in parts}) > 1:
            raise DataError(expected("parts", "energies in all or in none", "a mixture", "leave out the parts without"))
        structures = Structures.concatenate([part.structures for part in parts])
        joined: dict[str, Any] = {name: torch.cat([getattr(part, name) for part in parts]) for name in _MASKS}
        for name in (*_ERRORS.values(), *_ERRORS):
            if any(getattr(part, name) is not None for part in parts):
                joined[name] = torch.cat([_filled(part, name) for part in parts])
        sources = {part.source for part in parts}
        return cls(structures, **joined, source=sources.pop() if len(sources) == 1 else None)

    def __len__(self) -> int:
        return len(self.structures)

    def __repr__(self) -> str:
        labels = [name for name in (*_ERRORS.values(), *_ERRORS) if getattr(self, name) is not None]
        return f"Labelled({len(self)} structures, {self.structures.positions.shape[0]} atoms: {', '.join(labels)})"

    def __getitem__(self, index: "int | slice | Sequence[int] | Tensor | np.ndarray") -> "Labelled":
        pointer = self.structures.pointer
        chosen = chosen_structures(index, len(self), pointer.device)
        atoms = selected_atoms(pointer, chosen)
        rows = {"forces": atoms, "force_errors": atoms}
        arrays: dict[str, Any] = {name: value[rows.get(name, chosen)] for name, value in _arrays(self).items()}
        return replace(self, structures=self.structures[chosen], **arrays)

    def given(self, label: Literal["energies", "forces", "stresses"]) -> Tensor:
        """A label that is needed.

        Raises
        ------
        DataError
            If it is not there.
        """
        if (found := getattr(self, label)) is None:
            raise DataError(expected("labelled", label, "none", f"add {label}"))
        return found

    def shuffle(self, *, seed: int | torch.Generator) -> "Labelled":
        """The frames in random order."""
        return self[_permutation(len(self), seed)]

    def split(
        self, *sizes: int, seed: int | torch.Generator | None = None, block: int | Tensor | None = None
    ) -> tuple["Labelled", ...]:
        """Disjoint parts with ``sizes`` frames: consecutive ones, or random ones if a seed is given.

        Parameters
        ----------
        block
            Frames of one block stay in one part: the length of runs of consecutive frames (longer than the
            correlation time of the trajectory), or the block number of each frame.

        Raises
        ------
        DataError
            If there are too few frames, or a part would end within a block.
        """
        if not sizes or any(isinstance(n, bool) or int(n) != n or n < 1 for n in sizes):
            raise DataError(expected("sizes", "positive numbers of frames", sizes))
        if sum(sizes) > len(self):
            remedy = "ask for fewer or add frames"
            raise DataError(expected("sizes", f"at most {len(self)} frames in all", f"{sizes}: {sum(sizes)}", remedy))
        order, blocks = _order(len(self), seed, block)
        bounds = np.cumsum([0, *map(int, sizes)]).tolist()
        for end in bounds[1:]:
            if end < len(self) and blocks is not None and blocks[order[end - 1]] == blocks[order[end]]:
                remedy = "choose sizes that are sums of whole blocks"
                raise DataError(expected("sizes", "parts that end with a block", f"a cut after frame {end}", remedy))
        return tuple(self[order[a:b]] for a, b in pairwise(bounds))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Labelled":
        """The same data on another device or with another floating type."""
        arrays = _arrays(self).items()
        moved: dict[str, Any] = {name: v.to(device, dtype if v.is_floating_point() else v.dtype) for name, v in arrays}
        return replace(self, structures=self.structures.to(device, dtype), **moved)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all structures and labels, in hexadecimal."""
        digest = hashlib.sha256()
        parts = {f.name: getattr(self.structures, f.name) for f in fields(self.structures)} | _arrays(self)
        for name, value in parts.items():
            array = value.detach().cpu().contiguous().numpy()
            digest.update(f"{name} {array.dtype} {array.shape};".encode() + array.tobytes())
        return digest.hexdigest()


def _arrays(data: Labelled) -> dict[str, Tensor]:
    """Labels, errors and masks that are present."""
    names = (*_ERRORS.values(), *_ERRORS, *_MASKS)
    return {name: value for name in names if (value := getattr(data, name)) is not None}


def _filled(part: Labelled, name: str) -> Tensor:
    """An array of ``part``, or zeros in its place: labels are masked, and no standard error means an exact label."""
    if (value := getattr(part, name)) is not None:
        return value
    atoms = part.structures.positions.shape[0]
    shapes = {"energies": (len(part),), "forces": (atoms, 3), "stresses": (len(part), 3, 3)}
    return part.structures.positions.new_zeros(shapes[_ERRORS.get(name, name)])


def _check(data: Labelled) -> None:
    structures, atoms = len(data), data.structures.positions.shape[0]
    shapes = {"energies": (structures,), "forces": (atoms, 3), "stresses": (structures, 3, 3)}
    units = {"energies": "eV", "forces": "eV/Å", "stresses": "eV/Å³"}
    for name, value in _arrays(data).items():
        label = _ERRORS.get(name, name)
        shape = (structures,) if name in _MASKS else shapes[label]
        if value.shape != shape:
            raise ShapeError(expected(name, f"{shape}, one for each of the structures or atoms", tuple(value.shape)))
        if name in _MASKS:
            if value.any() and getattr(data, _MASKS[name]) is None:
                raise DataError(expected(name, f"no true entry without {_MASKS[name]}", "some"))
            continue
        if not (finite := value.isfinite()).all():
            row = int((~finite).nonzero()[0, 0])
            remedy = "remove that frame, or mask it by has_forces or has_stresses"
            raise DataError(
                expected(name, f"finite numbers in {units[label]}", f"NaN or infinity in row {row}", remedy)
            )
        if name in _ERRORS and (getattr(data, label) is None or (value < 0).any()):
            raise DataError(expected(name, f"non-negative standard errors of {label}", "negative ones or no labels"))


def _permutation(size: int, seed: int | torch.Generator) -> Int[Tensor, " size"]:
    source = seed if isinstance(seed, torch.Generator) else generator(seed)
    return torch.randperm(size, generator=source, device=source.device).cpu()


def _order(size: int, seed: int | torch.Generator | None, block: int | Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Order in which frames are dealt out, and the block of each frame."""
    if block is None:
        return (torch.arange(size) if seed is None else _permutation(size, seed)), None
    if isinstance(block, Tensor | np.ndarray | list):
        blocks = torch.as_tensor(block).cpu()
        if blocks.shape != (size,):
            raise ShapeError(expected("block", f"({size},), the block of each frame", tuple(blocks.shape)))
    elif block < 1:
        raise DataError(expected("block", "a length of at least 1 frame", block))
    else:
        blocks = torch.arange(size) // int(block)
    number = blocks.unique(return_inverse=True)[1]
    first = torch.full((int(number.max()) + 1,), size).scatter_reduce(0, number, torch.arange(size), "amin")
    rank = first.argsort().argsort() if seed is None else _permutation(first.numel(), seed)
    return rank[number].argsort(stable=True), blocks
