"""Frozen regression tasks of chemistry and materials science, to judge predictive distributions by.

Six tasks come from what is installed anyway; seven more from tables inside two wheels, which are read as they are:

    pip download --no-deps madml==2.6.7 chemicals==1.5.2 -d TABLES

Features are made by operations that IEEE 754 rounds in one way (+, −, ·, /, √, sorting, counting), so a task has one
fingerprint on every machine; a task with another is refused.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from math import fsum
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import DataError, expected

ROWS = 800  # at most
MADML, CHEMICALS = "madml-2.6.7", "chemicals-1.5.2"
ELEMENTS = ("C", "H", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I")
PATTERNS = {"double": "=", "triple": "#", "carbonyl": "=O", "branches": r"\(", "stereo": "@+", "charged": r"\+"}
PATTERNS |= {"ring_digits": r"\d", "hydroxyl": r"(?<![=#])O(?=\)|$)", "amine": r"(?<![=#])N(?=\)|$)"}

_SOURCES = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))

Columns = tuple[Any, Any, Sequence[Any], tuple[str, ...]]  # inputs, targets, group of each row, names of the inputs


@dataclass(frozen=True, eq=False)
class Task:
    """Rows of features and targets; rows of one group (frame, composition, formula) stay on one side of a split."""

    name: str
    inputs: Float[Tensor, "rows features"]
    targets: Float[Tensor, " rows"]
    groups: Int[Tensor, " rows"]
    names: tuple[str, ...]
    unit: str
    licence: str
    citation: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names and arrays."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for array, kind in ((self.inputs, "<f8"), (self.targets, "<f8"), (self.groups, "<i8")):
            digest.update(array.numpy().astype(kind).tobytes())
        return digest.hexdigest()


def names() -> list[str]:
    """All tasks."""
    return list(COLUMNS)


def load(name: str, tables: Path | None = None) -> Task:
    """A task, checked by its fingerprint; ``tables`` is the folder with the two wheels.

    Raises
    ------
    DataError
        If there is no such task, or its data are not what they were.
    FileNotFoundError
        If its wheel is not in ``tables``.
    """
    if name not in COLUMNS:
        raise DataError(expected("--tasks", f"among {', '.join(COLUMNS)}", repr(name)))
    task, fingerprint = frozen(name, tables), _SOURCES[name]["fingerprint"]
    if task.fingerprint != fingerprint:
        remedy = "its data are not what they were; take the versions that its citation names"
        raise DataError(expected(f"fingerprint of {name}", fingerprint, task.fingerprint, remedy))
    return task


def available(chosen: Sequence[str] | None = None, tables: Path | None = None) -> tuple[list[Task], list[str]]:
    """The chosen tasks (default: all) that can be loaded, and a sentence on each that cannot."""
    found, notes = [], []
    for name in chosen or names():
        try:
            found.append(load(name, tables))
        except FileNotFoundError as error:
            notes.append(f"task {name} is skipped: {error}")
    return found, notes


def frozen(name: str, tables: Path | None) -> Task:
    """A task without the check: at most ``ROWS`` rows, the same on every machine, and the features that vary."""
    inputs, targets, groups, columns = COLUMNS[name](tables)
    rows = _chosen(name, len(targets))
    inputs = np.asarray(inputs, dtype=np.float64)[rows]
    varies = (inputs != inputs[0]).any(0)
    inputs = torch.from_numpy(np.ascontiguousarray(inputs[:, varies]))
    columns = tuple(column for column, kept in zip(columns, varies, strict=True) if kept)
    targets = torch.from_numpy(np.asarray(targets, dtype=np.float64)[rows])
    labels = [str(groups[row]) for row in rows]
    place = {label: number for number, label in enumerate(sorted(set(labels)))}
    index = torch.tensor([place[label] for label in labels])
    return Task(
        name, inputs, targets, index, columns, **{k: _SOURCES[name][k] for k in ("unit", "licence", "citation")}
    )


def _chosen(name: str, rows: int) -> list[int]:
    """Rows by the hash of their number, so that no random generator can change them."""
    order = sorted(range(rows), key=lambda row: hashlib.sha256(f"{name}:{row}".encode()).digest())
    return sorted(order[:ROWS])


def _diabetes(tables: Path | None) -> Columns:
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return found.data, found.target, range(len(found.target)), tuple(found.feature_names)


def _atomisation(tables: Path | None) -> Columns:
    """Composition, pairs by the distance in units of the sum of covalent radii, and parts of the Coulomb repulsion."""
    from ase.data import atomic_numbers, covalent_radii
    from ase.data.g2 import data, molecule_names

    inputs, targets, formulas = [], [], []
    elements = ("H", "C", "N", "O", "F", "Si", "S", "Cl")
    for molecule in molecule_names:
        entry = data[molecule]
        symbols = re.findall("[A-Z][a-z]?", entry["symbols"])
        atoms = [data[symbol]["enthalpy"] - data[symbol]["thermal correction"] for symbol in symbols]
        energy = fsum([*atoms, -entry["enthalpy"], entry["ZPE"], entry["thermal correction"]])
        targets.append(energy * 0.0433641)  # kcal/mol → eV
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols])
        pairs = np.triu_indices(len(symbols), 1)
        inverse = _inverse(np.array(entry["positions"])[None])[0][pairs]
        bonded = inverse * (covalent_radii[numbers[pairs[0]]] + covalent_radii[numbers[pairs[1]]]) > 1 / 1.3
        repulsion = numbers[pairs[0]] * numbers[pairs[1]] * inverse
        hydrogens = (numbers[pairs[0]] == 1).astype(int) + (numbers[pairs[1]] == 1)
        sums = [fsum(repulsion[hydrogens == count]) for count in range(3)]
        others = sum(symbol not in elements for symbol in symbols)
        counts = [symbols.count(element) for element in elements]
        inputs.append([*counts, others, int(bonded.sum()), sum(entry["magmoms"] or [0]), *sums])
        formulas.append("".join(sorted(symbols)))
    last = ("others", "bonds", "unpaired", "repulsion_heavy", "repulsion_mixed", "repulsion_hydrogen")
    return inputs, targets, formulas, elements + last


def _energies(tables: Path | None, name: str) -> Columns:
    """Inverse distances, sorted within each pair of elements; of hydrogens the two largest, where there are many."""
    frames = _frames(name)
    positions, species = _cartesian(frames)
    inverse, parts, columns = _inverse(positions), [], []
    for first, second in combinations_with_replacement(sorted(set(species)), 2):
        rows, others = np.nonzero(species == first)[0], np.nonzero(species == second)[0]
        pairs = np.array([(i, j) for i in rows for j in others if i < j or first != second], dtype=int).reshape(-1, 2)
        found = np.sort(inverse[:, *pairs.T], axis=1)[:, ::-1]
        kept = found.shape[1] if len(species) < 10 or first > 1 else 8
        parts.append(found[:, :kept])
        columns += [f"inverse_distance_{first}_{second}_{k}" for k in range(min(kept, found.shape[1]))]
    return np.concatenate(parts, axis=1), frames.energies.numpy(), range(len(frames)), tuple(columns)


def _bond_forces(tables: Path | None, name: str, element: int, limit: int) -> Columns:
    """Force on each atom of an element along its shortest bond to another element but hydrogen; a row an atom."""
    frames = _frames(name)[:limit]
    positions, species = _cartesian(frames)
    forces, inverse = frames.forces.numpy().reshape(positions.shape), _inverse(positions)
    heavy = np.nonzero((species > 1) & (species != element))[0]
    kinds = sorted(set(species))
    inputs, targets, groups = [], [], []
    for atom in np.nonzero(species == element)[0]:
        partner = heavy[inverse[:, atom, heavy].argmax(1)]
        every = np.arange(len(positions))
        bond = (positions[:, atom] - positions[every, partner]) * inverse[every, atom, partner][:, None]
        product = forces[:, atom] * bond
        targets.append(product[:, 0] + product[:, 1] + product[:, 2])
        others = [[j for j in np.nonzero(species == kind)[0] if j != atom] for kind in kinds]
        sorts = [np.sort(inverse[:, atom, chosen], axis=1)[:, ::-1] for chosen in others]
        inputs.append(np.concatenate([species[partner][:, None] / 10, *sorts], axis=1))
        groups.append(every)
    counts = [int((species == kind).sum()) - (kind == element) for kind in kinds]
    columns = [f"inverse_distance_{kind}_{k}" for kind, count in zip(kinds, counts, strict=True) for k in range(count)]
    return np.concatenate(inputs), np.concatenate(targets), np.concatenate(groups), ("bonded_element", *columns)


def madml_columns(
    tables: Path | None, file: str, target: str, group: Callable[[dict[str, str]], str] | None
) -> Columns:
    """Inputs, targets, groups and names of a table in the wheel of madml."""
    rows = list(csv.DictReader(_member(tables, MADML, f"madml/data/{file}.csv").splitlines()))
    columns = tuple(name for name in rows[0] if name not in {"group", "mat", target})
    inputs = [[float(row[name]) for name in columns] for row in rows]
    groups = range(len(rows)) if group is None else [group(row) for row in rows]
    return inputs, [float(row[target]) for row in rows], groups, columns


def _chemicals(tables: Path | None, file: str, target: str) -> Columns:
    """Counts of elements and of patterns in the SMILES string; isomers are one group."""
    identifiers = {}
    for part in ("large", "small"):
        text = _member(tables, CHEMICALS, f"chemicals/Identifiers/chemical identifiers pubchem {part}.tsv")
        for line in text.splitlines():
            fields = line.split("\t", 6)
            identifiers[fields[1]] = fields[2], fields[4]
    inputs, targets, formulas = [], [], []
    for row in csv.DictReader(_member(tables, CHEMICALS, f"chemicals/{file}").splitlines(), delimiter="\t"):
        formula, smiles = identifiers.get(row["CAS"], ("", "."))
        counts = {symbol: int(count or 1) for symbol, count in re.findall(r"([A-Z][a-z]?)(\d*)", formula)}
        if "." not in smiles and counts.keys() <= set(ELEMENTS) and "C" in counts and row[target]:
            patterns = [len(re.findall(pattern, smiles)) for pattern in PATTERNS.values()]
            inputs.append([counts.get(element, 0) for element in ELEMENTS] + patterns)
            targets.append(float(row[target]))
            formulas.append(formula)
    return inputs, targets, formulas, (*ELEMENTS, *PATTERNS)


def _member(tables: Path | None, wheel: str, path: str) -> str:
    """Text of a file in a wheel."""
    found = sorted(tables.glob(f"{wheel}-*.whl")) if tables else []
    if not found:
        raise FileNotFoundError(f"needs the wheel {wheel} in the folder --tables")
    with zipfile.ZipFile(found[0]) as archive:
        content = archive.read(path)
    return (gzip.decompress(content) if path.endswith(".gz") else content).decode()


def _frames(name: str) -> Labelled:
    return bm.data.load(name)


def _cartesian(frames: Labelled) -> tuple[Any, Any]:
    """Positions (frames, atoms, 3) and the species that all frames share."""
    atoms = int(frames.structures.counts[0])
    positions = frames.structures.positions.numpy().reshape(len(frames), atoms, 3)
    return positions, frames.structures.species[:atoms].numpy()


def _inverse(positions: Any) -> Any:
    """Inverse distances (frames, atoms, atoms) in 1/Å; zero on the diagonal."""
    gap = positions[:, :, None] - positions[:, None]
    square = gap[..., 0] * gap[..., 0] + gap[..., 1] * gap[..., 1] + gap[..., 2] * gap[..., 2]
    return np.divide(1.0, np.sqrt(square), out=np.zeros_like(square), where=square > 0)


def _elements(row: dict[str, str]) -> str:
    return "-".join(sorted(set(re.findall("[A-Z][a-z]?", row["mat"]))))


def alloy(row: dict[str, str]) -> str:
    """Composition of a steel."""
    return " ".join(row[name] for name in row if name.startswith("wt_percent"))


def _solute(row: dict[str, str]) -> str:
    return re.findall(r"\[(\w+)\]", row["mat"])[1]


COLUMNS: dict[str, Callable[[Path | None], Columns]] = {
    "diabetes": _diabetes,
    "atomisation": _atomisation,
    "ethanol_energy": partial(_energies, name="rmd17/ethanol"),
    "ethanol_force": partial(_bond_forces, name="rmd17/ethanol", element=1, limit=166),
    "acetylacetone_energy": partial(_energies, name="acetylacetone/train"),
    "acetylacetone_force": partial(_bond_forces, name="acetylacetone/train", element=8, limit=500),
    "superconductor": partial(madml_columns, file="super_cond", target="Tc", group=_elements),
    "embrittlement": partial(madml_columns, file="fluence", target="Measured_DT41J_[C]", group=alloy),
    "diffusion": partial(madml_columns, file="diffusion", target="E_regression", group=_solute),
    "steel": partial(madml_columns, file="steel_strength", target="yield_strength", group=None),
    "melting": partial(_chemicals, file="Phase Change/OpenNotebook Melting Points.tsv", target="Tm"),
    "partition": partial(_chemicals, file="Environment/Syrres logP data.csv.gz", target="logP"),
    "critical": partial(_chemicals, file="Critical Properties/IUPACOrganicCriticalProps.tsv", target="Tc"),
}
