"""Trace: what happened at each step of a run, in a file of plain numbers that can be cut back and goes on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data import Structures
from bayesmol.errors import FormatError, expected
from bayesmol.files import extending, writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ACCEPTED", "AUDITED", "COLUMNS", "MISSED", "REFERENCE", "Trace", "TraceFile"]

ACCEPTED, AUDITED, REFERENCE, MISSED = range(4)
COLUMNS = ("kind", "bound", "deviation", "strangeness", "error", "energy", "temperature")


class TraceFile:
    """Rows of numbers in a file; what was added since the last :meth:`flush` is in memory and may be taken back.

    Parameters
    ----------
    rows
        Rows of the file that count; what a killed process wrote after them is removed.

    Raises
    ------
    FormatError
        If the file has fewer.
    """

    def __init__(self, path: Path, width: int, rows: int = 0) -> None:
        self.path, self.width, self.flushed = path, width, rows
        self._new: list[np.ndarray] = []
        with writing(path):
            path.touch()
        if (size := path.stat().st_size) < rows * width * 8:
            raise FormatError(expected("path", f"{rows} rows of {width} numbers", size, "start anew"))
        os.truncate(path, rows * width * 8)

    def __len__(self) -> int:
        return self.flushed + len(self._new)

    def append(self, row: Float[np.ndarray, " width"]) -> None:
        """One more row."""
        self._new.append(np.asarray(row, dtype=np.float64))

    def take_back(self, rows: int) -> None:
        """Remove the last rows, of those in memory."""
        del self._new[len(self._new) - rows :]

    def flush(self) -> None:
        """Write what is in memory to the disk."""
        with extending(self.path, self.flushed * self.width * 8) as file:
            file.write(np.array(self._new, dtype=np.float64).tobytes())
        self.flushed, self._new = len(self), []

    def read(self) -> Float[np.ndarray, "rows width"]:
        """All rows."""
        stored = np.fromfile(self.path, count=self.flushed * self.width).reshape(-1, self.width)
        return np.concatenate([stored, np.array(self._new).reshape(-1, self.width)])


@dataclass(frozen=True, eq=False)
class Trace:
    """Steps of a run on the fly, the accepted ones with their calibrated bound of the force error.

    Attributes
    ----------
    kind
        0 accepted, 1 accepted and checked, 2 forces of the reference, 3 accepted, checked and above the tolerance.
    bound, deviation
        Bound of the largest force error of an atom, and the predicted deviation that it is a multiple of, in eV/Å.
    strangeness
        Of the structure to the model at that time.
    error
        Largest force error of an atom where the reference was asked, else NaN; in eV/Å.
    energy, temperature
        Potential energy in eV, kinetic temperature in K.
    positions, forces
        In Å; those that moved the atoms, in eV/Å.
    template
        The structure, with other positions.
    """

    kind: Float[Tensor, " steps"]
    bound: Float[Tensor, " steps"]
    deviation: Float[Tensor, " steps"]
    strangeness: Float[Tensor, " steps"]
    error: Float[Tensor, " steps"]
    energy: Float[Tensor, " steps"]
    temperature: Float[Tensor, " steps"]
    positions: Float[Tensor, "steps atoms 3"]
    forces: Float[Tensor, "steps atoms 3"]
    template: Structures

    @classmethod
    def of(cls, rows: Float[np.ndarray, "steps width"], template: Structures) -> Trace:
        """Trace of the rows of a file: the columns in order, then the positions and the forces."""
        columns = torch.from_numpy(rows[:, : len(COLUMNS)].copy()).unbind(1)
        vectors = torch.from_numpy(rows[:, len(COLUMNS) :].copy()).view(len(rows), 2, -1, 3)
        named = dict(zip(COLUMNS, columns, strict=True))
        return cls(**named, positions=vectors[:, 0], forces=vectors[:, 1], template=template)

    def __len__(self) -> int:
        return len(self.kind)

    def structures(self, index: Any) -> Structures:
        """Structures of some steps."""
        chosen = self.positions[index]
        count, atoms = chosen.shape[:2]
        like = self.template
        pointer = torch.arange(count + 1) * atoms
        cell, pbc = like.cell.expand(count, 3, 3).clone(), like.pbc.expand(count, 3).clone()
        return Structures(chosen.reshape(-1, 3), like.species.repeat(count), pointer, cell, pbc)

    def plot(self, tolerance: float, timestep: float = 1.0) -> Figure:
        """Bound and measured errors over time, calls of the reference so far, and the temperature.

        Parameters
        ----------
        tolerance
            Shown as a line, in eV/Å.
        timestep
            In fs.
        """
        from matplotlib.figure import Figure

        from bayesmol.calibration.plots import BAD, GOOD, INK, OTHER

        figure = Figure(figsize=(7.2, 6.0), layout="constrained")
        axes = figure.subplots(3, 1, sharex=True, height_ratios=[2, 1, 1])
        time = torch.arange(len(self)) * timestep / 1000
        asked, reference = self.kind > ACCEPTED, self.kind == REFERENCE
        axes[0].plot(time, self.bound, color=GOOD, linewidth=0.5, label="bound of the force error")
        checked = asked & ~reference & self.error.isfinite()
        called = reference & self.error.isfinite()
        axes[0].plot(time[called], self.error[called], "x", color=OTHER, markersize=4, label="reference used")
        axes[0].plot(time[checked], self.error[checked], ".", color=INK, label="random check")
        axes[0].axhline(tolerance, color=BAD, linewidth=1, label="tolerance")
        axes[0].set(ylabel="largest error of an atom / eV/Å", yscale="log")
        axes[0].legend(fontsize="small", ncols=2)
        axes[1].plot(time, asked.cumsum(0), color=INK)
        axes[1].set(ylabel="reference calls")
        axes[2].plot(time, self.temperature, color=INK, linewidth=0.4)
        axes[2].set(ylabel="temperature / K", xlabel="time / ps")
        return figure
