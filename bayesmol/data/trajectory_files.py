"""Trajectories from files: molecular dynamics, arrays, and tables; piece by piece where they do not fit in memory."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.data.trajectory_formats import FORMATS, Piece, Topology, pieces_of
from bayesmol.errors import BayesmolError, DataError, FormatError, ShapeError, expected

__all__ = ["Topology", "chunks", "read_trajectories"]

_RUN_CODE = {".pkl", ".pickle", ".pt", ".pth", ".joblib", ".h5", ".hdf5", ".lh5"}

Features = Callable[[Tensor, Topology], Tensor]


def read_trajectories(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    topology: Any = None,
    features: Features | None = None,
    stride: int = 1,
    time_step: float | None = None,
    unit: str = "ps",
) -> Trajectories:
    """Trajectories of files, one from each; only the features are kept in memory.

    Molecular dynamics is read by MDTraj (xtc, trr, dcd, nc, mdcrd, pdb, gro) or ASE (xyz, extxyz, traj), arrays from
    ``npy`` and ``npz``, tables from text. An ``npz`` has one array, or one that is called ``features``, ``states`` or
    ``positions``, and may have ``time_step_ps``; a table of PLUMED may have a column ``time`` in ps. HDF5 files and
    pickles are refused, as reading them can run code.

    Parameters
    ----------
    paths
        A file, a pattern such as ``"run*.xtc"``, or several files; a pattern is sorted, run2 before run10.
    topology
        A pdb, gro or prmtop file or an ``mdtraj.Topology`` for formats without atoms; a :class:`Topology` for
        positions in arrays.
    features
        Function of positions (frames, atoms, 3) in Å and a :class:`Topology` that gives (frames, features), such as
        :data:`bayesmol.representation.torsions`. Arrays and tables need none.
    stride
        Keep each so many-th frame.
    time_step, unit
        Between two frames of the files; if omitted, that of the files in ps, else one frame.

    Raises
    ------
    DataError, FormatError
        If there is no file, or one is truncated, of an unknown format, of other atoms, with numbers that are not
        finite or frames that are not equally far apart, or lacks its topology.
    DependencyError
        If the format needs MDTraj and that is not installed.
    """
    files = _files(paths)
    parts, steps = [], []
    for pieces in _opened(files, topology, features, stride, 10_000):
        found = list(pieces)
        parts.append(torch.cat([piece.values for piece in found]))
        steps.append(_step(found, stride) if time_step is None else time_step * stride)
    known = [step for step in steps if step is not None]
    if len(known) < len(steps) or not known:
        return Trajectories(tuple(parts), float(stride), "frames")
    if max(known) - min(known) > 1e-3 * min(known):
        remedy = "read them apart, or give time_step"
        raise DataError(expected("paths", "files with one time step", f"steps of {sorted(set(known))} {unit}", remedy))
    return Trajectories(tuple(parts), known[0], unit if time_step is not None else "ps")


def chunks(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    topology: Any = None,
    features: Features | None = None,
    stride: int = 1,
    frames: int = 10_000,
) -> Iterator[Iterator[Tensor]]:
    """For each trajectory the features of at most so many frames at once, in order; see :func:`read_trajectories`.

    At no time is more than one chunk in memory, except of compressed arrays, tables, pdb and gro.
    """
    opened = _opened(_files(paths), topology, features, stride, frames)
    return ((piece.values for piece in pieces) for pieces in opened)


def _files(paths: Any) -> list[Path]:
    if isinstance(paths, (str, os.PathLike)):
        text = os.fspath(paths)
        pattern = glob.has_magic(text) and not Path(text).exists()
        found = sorted(glob.glob(text, recursive=True), key=_natural) if pattern else [text]
    else:
        found = list(paths)
    if not found:
        raise DataError(expected("paths", "at least one file", f"none for {paths!r}", "is the pattern right?"))
    files = [Path(path) for path in found]
    for file in files:
        if not file.is_file():
            raise DataError(expected("paths", "existing files", str(file)))
        if file.suffix.lower() in _RUN_CODE:
            remedy = "reading it can run code; convert it, for example to xtc or npz"
            raise DataError(expected("paths", "a data format", str(file), remedy))
        if file.suffix.lower() not in FORMATS:
            raise DataError(expected("paths", f"one of {', '.join(FORMATS)}", str(file)))
    return files


def _natural(name: str) -> list[Any]:
    """Key that puts run2 before run10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _opened(
    files: list[Path], topology: Any, features: Features | None, stride: int, frames: int
) -> Iterator[Iterator[Piece]]:
    """For each file its pieces with features in place of positions."""
    if isinstance(stride, bool) or stride < 1 or frames < 1:
        raise DataError(expected("stride, frames", "whole numbers from 1 on", (stride, frames)))
    first: list[Topology] = []
    for file in files:
        yield _featured(file, pieces_of(file, topology, stride, frames), features, first)


def _featured(file: Path, pieces: Iterator[Piece], features: Features | None, first: list[Topology]) -> Iterator[Piece]:
    """Check each piece and take its features; ``first`` keeps the topology of the first file."""
    seen = 0
    for piece in _guarded(file, pieces):
        if np.ndim(piece.values) == 3:
            first += [] if first or piece.topology is None else [piece.topology]
            piece = piece._replace(values=_of_positions(file, seen, piece, features, first))
        values = piece.values if isinstance(piece.values, Tensor) else _numbers(file, piece.values)
        _check_finite(file, seen, values)
        seen += len(values)
        yield piece._replace(values=values)
    if not seen:
        raise FormatError(expected(str(file), "at least one frame", "none"))


def _numbers(file: Path, values: Any) -> Tensor:
    """Features in 64 bits, or indices of states."""
    if values.dtype.kind not in "fiu" or values.ndim not in (1, 2):
        got = f"{values.shape} of {values.dtype}"
        raise ShapeError(expected(str(file), "real numbers (frames, features), or indices of states", got))
    if values.ndim == 1 and values.dtype.kind in "iu":
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.astype(np.float64).reshape(len(values), -1))


def _of_positions(file: Path, seen: int, piece: Piece, features: Features | None, first: list[Topology]) -> Tensor:
    """Features of one piece of positions."""
    if features is None:
        remedy = "features=bayesmol.representation.torsions; positions themselves change as a molecule turns"
        raise DataError(expected("features", f"a function of the positions in {file}", "none", remedy))
    if piece.topology is None or not first:
        raise DataError(expected("topology", f"a Topology for the positions in {file}", "none"))
    own, species = first[0], first[0].species
    if not torch.equal(piece.topology.species, species) or piece.values.shape[1:] != own.reference.shape:
        got = f"{piece.values.shape[1]} in {file} from frame {seen} on, or others"
        raise DataError(expected("paths", f"the {len(species)} atoms of the first frame in their order", got))
    positions = torch.from_numpy(np.ascontiguousarray(piece.values, dtype=np.float64))
    _check_finite(file, seen, positions.flatten(1))
    found = features(positions, own)
    if found.ndim != 2 or len(found) != len(positions):
        raise ShapeError(expected("features", f"({len(positions)}, features)", tuple(found.shape)))
    return found.double()


def _check_finite(file: Path, seen: int, values: Tensor) -> None:
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(1)
    if bool(bad.any()):
        frame = seen + int(bad.nonzero()[0])
        raise DataError(expected(str(file), "finite numbers", f"NaN or infinity in kept frame {frame}"))


def _guarded(file: Path, pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The pieces; whatever a parser raises becomes an error that names the file."""
    try:
        yield from pieces
    except BayesmolError:
        raise
    except Exception as error:
        remedy = "is the file truncated, or of another format or topology?"
        got = f"{type(error).__name__} {error}"
        raise FormatError(expected(str(file), "a complete file", got, remedy)) from error


def _step(pieces: list[Piece], stride: int) -> float | None:
    """Time between two kept frames in ps; none if the file does not say."""
    if pieces[0].step is not None:
        return pieces[0].step * stride
    times = np.concatenate([piece.times for piece in pieces]) if pieces[0].times is not None else np.empty(0)
    steps = np.diff(times)
    if not len(steps) or not steps.any():
        return None
    mean = float(steps.mean())
    slack = 1e-3 * abs(mean) + 4 * float(np.spacing(np.float32(np.abs(times).max())))  # times are in single precision
    if mean <= 0 or np.abs(steps - mean).max() > slack:
        worst = int(np.abs(steps - np.median(steps)).argmax())
        got = f"{steps[worst]:g} ps after kept frame {worst} and {np.median(steps):g} ps else"
        raise DataError(expected("paths", "frames that are equally far apart", got, "cut the file there"))
    return mean
