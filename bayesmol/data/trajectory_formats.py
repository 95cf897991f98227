"""Frames of one file after another: how each format of trajectories is read, piece by piece."""

from __future__ import annotations

import itertools
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bayesmol.data.text_files import check_end, check_xyz
from bayesmol.errors import DataError, FormatError, ShapeError, expected
from bayesmol.optional import optional

__all__ = ["FORMATS", "Piece", "Topology", "pieces_of"]

_TIMED = {".xtc", ".trr", ".nc", ".ncdf", ".netcdf"}  # MDTraj makes up the times of all others
_WITH_TOPOLOGY = {".pdb", ".gro"}
_MDTRAJ = _TIMED | _WITH_TOPOLOGY | {".dcd", ".mdcrd"}
_ASE = {".xyz", ".extxyz", ".traj"}
_TABLES = {".csv", ".tsv", ".txt", ".dat", ".colvar"}
FORMATS = sorted(_MDTRAJ | _ASE | _TABLES | {".npy", ".npz"})


@dataclass(frozen=True, eq=False)
class Topology:
    """What stays the same along a trajectory.

    Attributes
    ----------
    species
        Atomic numbers.
    reference
        Positions of the first frame of the first file in Å; bonds that no file names follow from it, once for all.
    bonds
        Pairs of bonded atoms, if a file names them.
    """

    species: Int[Tensor, " atoms"]
    reference: Float[Tensor, "atoms 3"]
    bonds: Int[Tensor, "bonds 2"] | None = None

    def __post_init__(self) -> None:
        if self.reference.shape != (len(self.species), 3):
            raise ShapeError(expected("reference", f"({len(self.species)}, 3) in Å", tuple(self.reference.shape)))


class Piece(NamedTuple):
    """Consecutive frames: features, states, or positions in Å; times in ps, or the step between two of the file."""

    values: Any
    topology: Topology | None = None
    times: NDArray[np.float64] | None = None
    step: float | None = None


def pieces_of(file: Path, topology: Any, stride: int, frames: int) -> Iterator[Piece]:
    """Frames of a file in order, every ``stride``-th, at most ``frames`` at once; positions in Å."""
    suffix = file.suffix.lower()
    if suffix in _MDTRAJ:
        return _by_mdtraj(file, suffix, topology, stride, frames)
    if suffix in _ASE:
        return _by_ase(file, stride, frames)
    if suffix in _TABLES:
        return _of_table(file, stride)
    return _of_arrays(file, topology, stride, frames)


def _by_mdtraj(file: Path, suffix: str, topology: Any, stride: int, frames: int) -> Iterator[Piece]:
    mdtraj = optional("mdtraj", "md")
    if topology is None and suffix not in _WITH_TOPOLOGY:
        remedy = 'topology="system.pdb" (or gro, prmtop) of the same atoms'
        raise DataError(expected("topology", f"the atoms of {file}, which does not name them", "none", remedy))
    top = (
        {}
        if suffix in _WITH_TOPOLOGY
        else {"top": os.fspath(topology) if isinstance(topology, (str, os.PathLike)) else topology}
    )
    if suffix in _ENDS:
        _check_whole(file, _ENDS[suffix])
    known = None
    for part in mdtraj.iterload(os.fspath(file), chunk=frames, stride=stride, **top):
        if part.unitcell_lengths is not None and part.topology.n_bonds:
            part.make_molecules_whole(inplace=True)
        known = known or _topology(part)
        times = np.asarray(part.time, dtype=np.float64) if suffix in _TIMED else None
        yield Piece(10.0 * part.xyz.astype(np.float64), known, times)


def _topology(part: Any) -> Topology:
    """Atoms and bonds of MDTraj; no bonds if it does not know those of a residue."""
    elements = [atom.element for atom in part.topology.atoms]
    species = torch.tensor([0 if element is None else element.atomic_number for element in elements])
    edges = [(first.index, second.index) for first, second in part.topology.bonds]
    lone = {atom.index for atom in part.topology.atoms if atom.residue.n_atoms > 1} - set(itertools.chain(*edges))
    bonds = None if lone or not edges else torch.tensor(edges)
    return Topology(species, torch.from_numpy(10.0 * part.xyz[0].astype(np.float64)), bonds)


def _by_ase(file: Path, stride: int, frames: int) -> Iterator[Piece]:
    import ase.io

    if file.suffix.lower() != ".traj":
        check_xyz(file)
    images = itertools.islice(ase.io.iread(file, ":", do_not_split_by_at_sign=True), 0, None, stride)
    while batch := list(itertools.islice(images, frames)):
        species = torch.as_tensor(batch[0].numbers).long()
        for image in batch:
            if not np.array_equal(image.numbers, batch[0].numbers):
                got = f"{image.get_chemical_formula()} after {batch[0].get_chemical_formula()}"
                raise DataError(expected("paths", f"the same atoms in all frames of {file}", got))
        positions = np.stack([image.positions for image in batch])
        yield Piece(positions, Topology(species, torch.from_numpy(positions[0].copy())))


def _of_arrays(file: Path, topology: Any, stride: int, frames: int) -> Iterator[Piece]:
    """Arrays; an npy file stays on the disk but for the frames at hand."""
    step = None
    if file.suffix.lower() == ".npy":
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    else:
        with np.load(file, allow_pickle=False) as found:
            values = found[_name(file, found.files)]
            step = float(found["time_step_ps"]) if "time_step_ps" in found.files else None
    atoms = topology if isinstance(topology, Topology) else None
    if values.ndim == 0:
        raise ShapeError(expected(str(file), "(frames, features), (frames,) or (frames, atoms, 3)", "one number"))
    for start in range(0, len(values), frames * stride):
        yield Piece(np.array(values[start : start + frames * stride : stride]), atoms, step=step)


def _name(file: Path, names: list[str]) -> str:
    """The array that is the trajectory."""
    arrays = [name for name in names if name != "time_step_ps"]
    known = arrays if len(arrays) == 1 else [n for n in ("features", "states", "positions") if n in arrays]
    if len(known) != 1:
        wanted = "one array, or one called features, states or positions"
        raise DataError(expected(str(file), wanted, arrays or "none"))
    return known[0]


def _of_table(file: Path, stride: int) -> Iterator[Piece]:
    """Numbers in rows; a line of names may come first, ``#! FIELDS`` of PLUMED or plain."""
    check_end(file)
    with file.open(encoding="utf-8") as lines:
        names = lines.readline().replace(",", " ").split()
    plumed = names[:2] == ["#!", "FIELDS"]
    headed = not plumed and bool(names) and not names[0].startswith("#") and not _is_number(names[0])
    names = names[2:] if plumed else names
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of no rows, which is an error later
        options: dict[str, Any] = {"delimiter": "," if file.suffix.lower() == ".csv" else None, "skiprows": int(headed)}
        values = np.loadtxt(file, ndmin=2, comments="#", encoding="utf-8", **options)[::stride]
    if not len(values):
        raise FormatError(expected(str(file), "rows of numbers", "none"))
    if plumed and names[0] == "time":
        yield Piece(values[:, 1:], times=values[:, 0])
    else:
        yield Piece(values)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_whole(file: Path, frame: Callable[[BinaryIO], int]) -> None:
    """Refuse a file that ends within a frame, which MDTraj may leave out without a word."""
    size, start, number = file.stat().st_size, 0, 0
    with file.open("rb") as content:
        while start < size:
            content.seek(start)
            try:
                start += frame(content)
            except struct.error:
                start = size + 1
            number += 1
    if start > size:
        remedy = "fetch it again, or keep the whole frames (gmx check, mdconvert)"
        raise FormatError(expected(str(file), "whole frames", f"an end within frame {number - 1}", remedy))


def _xtc_frame(content: BinaryIO) -> int:
    """Bytes of a frame; big-endian: magic number, atoms, step, time, cell, atoms, and few positions or packed ones."""
    magic, atoms = struct.unpack(">i48xi", content.read(56))
    if magic not in (1995, 2023):
        raise FormatError(expected(content.name, "a frame of xtc", f"the number {magic} at its start"))
    if atoms <= 9:
        return 56 + 12 * atoms
    count = ">32xq" if magic == 2023 else ">32xi"
    (packed,) = struct.unpack(count, content.read(struct.calcsize(count)))
    return 56 + struct.calcsize(count) + packed + -packed % 4


def _trr_frame(content: BinaryIO) -> int:
    """Bytes of a frame; big-endian: magic number, name, ten sizes, atoms, step, results, time, λ, and the arrays."""
    magic, name = struct.unpack(">i4xi", content.read(12))
    if magic != 1993:
        raise FormatError(expected(content.name, "a frame of trr", f"the number {magic} at its start"))
    name += -name % 4
    numbers = struct.unpack(f">{name}x13i", content.read(name + 52))
    atoms, arrays = numbers[10], numbers[:10]
    double = arrays[2] == 72 or 24 * atoms in arrays[7:]
    return 12 + name + 52 + (16 if double else 8) + sum(arrays)


def _dcd_frames(content: BinaryIO) -> int:
    """Bytes of the head and the whole frames of a file, or more if its last frame is cut; records of Fortran."""
    size = os.fstat(content.fileno()).st_size
    head = content.read(92)
    order = next((order for order in "<>" if struct.unpack(order + "i", head[:4]) == (84,)), None)
    if order is None or struct.unpack(order + "i", head[40:44])[0]:
        return size  # of 64 bits, or with fixed atoms that only the first frame has: left to MDTraj
    start = 92
    for _ in range(2):
        start += _record(content, order, start)
    extra = struct.unpack(order + "i", head[48:52])[0]
    frame = 0
    for _ in range(4 if extra else 3):
        frame += _record(content, order, start + frame)
    return start + -(-(size - start) // frame) * frame


def _record(content: BinaryIO, order: str, start: int) -> int:
    content.seek(start)
    return struct.unpack(order + "i", content.read(4))[0] + 8


_ENDS = {".xtc": _xtc_frame, ".trr": _trr_frame, ".dcd": _dcd_frames}
