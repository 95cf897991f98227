"""Predictions in files, of any program: means, standard deviations and the labels to judge them by."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.posterior import Gaussian, Posterior

__all__ = ["Predicted", "read_predictions"]

_COLUMNS = ("mean", "stddev", "truth")
_OPTIONAL = ("error", "group")


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictive distributions of one quantity, and its labels.

    Attributes
    ----------
    name
        ``"energy"``, ``"force"``, or ``""`` for a table.
    groups
        Structure of each row.
    errors
        Standard errors of the labels; ``None`` for exact ones.
    conditions
        Further columns, one number or category a row.
    """

    name: str
    posterior: Posterior
    truth: Float[Tensor, " rows *shape"]
    groups: Int[Tensor, " rows"]
    errors: Float[Tensor, " rows *shape"] | None = None
    conditions: dict[str, Shaped[Tensor, " rows"]] = field(default_factory=dict)


def read_predictions(path: str | os.PathLike[str], *, unit: str = "") -> list[Predicted]:
    """Predictions with their labels from a table or from structures.

    A ``csv`` has the columns ``mean``, ``stddev`` and ``truth``, may have ``error`` (standard error of the label) and
    ``group`` (rows of one group depend on each other), and all other columns of numbers or of few words are
    conditions. In a file that ASE reads, energies and forces are the means, ``energy_stddev`` of the info and
    ``forces_stddev`` of the arrays the standard deviations, ``REF_energy`` and ``REF_forces`` the labels: what
    ``bayesmol predict`` writes.

    Parameters
    ----------
    unit
        Of a table; structures are in eV and Å.

    Raises
    ------
    DataError
        If the file is missing, a column is, a number is not finite, or nothing has a standard deviation and a label.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(expected("path", "an existing file", str(path)))
    return [_table(file, unit)] if file.suffix.lower() == ".csv" else _frames(file)


def _table(file: Path, unit: str) -> Predicted:
    with file.open(newline="", encoding="utf-8-sig") as handle:
        rows = list(csv.DictReader(handle))
    names = [name for name in (rows[0] if rows else {}) if name]
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise DataError(expected(str(file), f"columns {', '.join(_COLUMNS)}", f"none called {', '.join(missing)}"))
    mean, stddev, truth = (_numbers(rows, name) for name in _COLUMNS)
    groups = _kinds([row["group"] for row in rows]) if "group" in names else torch.arange(len(rows))
    others = [name for name in names if name not in (*_COLUMNS, *_OPTIONAL)]
    conditions = {name: column for name in others if (column := _condition(rows, name)) is not None}
    errors = _numbers(rows, "error") if "error" in names else None
    return Predicted("", Gaussian(mean, stddev.square(), unit=unit), truth, groups, errors, conditions)


def _frames(file: Path) -> list[Predicted]:
    import ase.io

    try:
        frames = list(ase.io.read(file, ":"))
    except Exception as error:  # ASE raises whatever its many readers raise
        raise DataError(expected("path", "a csv, or a file that ASE reads", f"{file}: {error}")) from error
    found = [part for part in (_energies(frames), _forces(frames)) if part is not None]
    if not found:
        remedy = "bayesmol predict writes both; see bayesmol evaluate --help"
        names = "energy_stddev with REF_energy, or forces_stddev with REF_forces"
        raise DataError(expected(str(file), names, "neither", remedy))
    return found


def _energies(frames: list[Any]) -> Predicted | None:
    chosen = [frame for frame in frames if {"energy_stddev", "REF_energy"} <= set(frame.info)]
    if not chosen:
        return None
    mean = torch.tensor([frame.get_potential_energy() for frame in chosen], dtype=torch.float64)
    stddev, truth = (
        torch.tensor([float(frame.info[name]) for frame in chosen], dtype=torch.float64)
        for name in ("energy_stddev", "REF_energy")
    )
    atoms = torch.tensor([len(frame) for frame in chosen])
    posterior = Gaussian(mean, stddev.square(), unit="eV")
    return Predicted("energy", posterior, truth, torch.arange(len(chosen)), None, {"atoms": atoms})


def _forces(frames: list[Any]) -> Predicted | None:
    chosen = [frame for frame in frames if {"forces_stddev", "REF_forces"} <= set(frame.arrays)]
    if not chosen:
        return None
    mean = torch.from_numpy(np.concatenate([frame.get_forces() for frame in chosen]))
    stddev, truth = (
        torch.from_numpy(np.concatenate([np.asarray(frame.arrays[name], dtype=np.float64) for frame in chosen]))
        for name in ("forces_stddev", "REF_forces")
    )
    groups = torch.arange(len(chosen)).repeat_interleave(torch.tensor([len(frame) for frame in chosen]))
    species = torch.from_numpy(np.concatenate([frame.numbers for frame in chosen]).astype(np.int64))
    posterior = Gaussian(mean, stddev.square(), unit="eV/Å")
    return Predicted("force", posterior, truth, groups, None, {"species": species})


def _numbers(rows: list[dict[str, str]], name: str) -> Float[Tensor, " rows"]:
    try:
        return torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
    except (TypeError, ValueError) as error:
        raise DataError(expected(f"column {name!r}", "numbers", str(error))) from error


def _condition(rows: list[dict[str, str]], name: str) -> Tensor | None:
    """A column of numbers, of whole ones as categories, or of words as categories; ``None`` if it is of many words."""
    words = [row[name] for row in rows]
    try:
        return torch.tensor([int(word) for word in words])
    except (TypeError, ValueError):
        pass
    try:
        return torch.tensor([float(word) for word in words], dtype=torch.float64)
    except (TypeError, ValueError):
        if name == "species" and (found := _species(words)) is not None:
            return found
        return _kinds(words) if len(set(words)) <= 50 else None


def _species(words: list[str]) -> Int[Tensor, " rows"] | None:
    """Atomic numbers, if all words are chemical symbols."""
    from ase.data import atomic_numbers

    return torch.tensor([atomic_numbers[word] for word in words]) if set(words) <= set(atomic_numbers) else None


def _kinds(words: list[str]) -> Int[Tensor, " rows"]:
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    return torch.tensor([numbers[word] for word in words])
