"""A potential curve: wavefunctions of many geometries, whose energies become labels with standard errors."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayesmol.checkpoints import read_checkpoint, write_checkpoint
from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.files import made
from bayesmol.inference.random import integer_seed
from bayesmol.progress import progress
from bayesmol.units import convert
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training import train
from bayesmol.wavefunctions.trees import VERSION, leaves, restored
from bayesmol.wavefunctions.warm_start import warm_start

if TYPE_CHECKING:
    from bayesmol.wavefunctions.ansatz import Ansatz, Trial

__all__ = ["RefusedLabelsError", "curve", "stretched"]


class RefusedLabelsError(ConvergenceError):
    """Some energies are refused and cannot be labels.

    Attributes
    ----------
    labelled
        The other geometries; ``None`` if there are none.
    refused
        Reasons by the position of the geometry.
    """

    def __init__(self, labelled: Labelled | None, refused: dict[int, str]) -> None:
        self.labelled, self.refused = labelled, refused
        reasons = "; ".join(f"geometry {position}: {reason}" for position, reason in refused.items())
        remedy = "take more minutes or draws, or leave these geometries out; the others are in `labelled` of this error"
        super().__init__(expected("energies", "none that is refused", reasons, remedy))


def stretched(molecule: Molecule, bond_length: float) -> Molecule:
    """A diatomic molecule with another bond length in bohr, its axis and its centre as they were.

    Raises
    ------
    DataError
        If it has not two nuclei, or the length is not a positive number.
    """
    if len(molecule.charges) != 2:
        remedy = "give a list of molecules instead of bond lengths"
        raise DataError(expected("molecule", "two nuclei", len(molecule.charges), remedy))
    if not 0 < bond_length < np.inf:
        raise DataError(expected("bond_lengths", "positive numbers of bohr", bond_length))
    middle, apart = molecule.positions.mean(0), molecule.positions[1] - molecule.positions[0]
    half = bond_length / 2 * apart / np.linalg.norm(apart)
    return replace(molecule, positions=np.stack([middle - half, middle + half]))


def curve(
    molecule: Molecule | Sequence[Molecule],
    bond_lengths: Sequence[float] | None = None,
    ansatz: Ansatz | None = None,
    *,
    seed: int | torch.Generator,
    draws: int = 2000,
    minutes: float | None = None,
    minutes_each: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Labelled:
    """Energies of several geometries, each from a wavefunction of its own, as labels for a potential.

    The first geometry is trained from its orbitals, each other one from the wavefunction of the nearest geometry that
    is done (:func:`~bayesmol.wavefunctions.warm_start.warm_start`), with less time. Their energies come from
    evaluations with independent seeds.

    The standard errors are those of sampling. What the wavefunctions lack is not in them; along a curve it is smooth
    only as far as training ends equally well everywhere. Measure the scatter by a second curve of another ``seed``, or
    by :func:`~bayesmol.wavefunctions.sensitivity.seeds`.

    A suspect energy becomes a label with a warning. A refused one does not: a label without an error bar would weigh
    more than all others. It is not dropped in silence either, since whoever fits the curve must know where it has a
    hole: when all geometries are done, :class:`RefusedLabelsError` names each and holds the rest.

    Parameters
    ----------
    molecule
        A diatomic molecule, or a sequence of molecules with the same nuclei and electrons.
    bond_lengths
        In bohr; not for a sequence.
    ansatz
        By default a :class:`~bayesmol.wavefunctions.pauli_net.PauliNet`.
    draws
        Of each walker in the evaluation.
    minutes, minutes_each
        Wall time of the training of the first geometry and of each other one, with compilation, which only the
        first needs; by default that of the ansatz, and a third of the first.
    checkpoint
        Folder in which every geometry is kept as soon as it is done, and the training that is under way: the same call
        goes on there.

    Returns
    -------
    Structures in Å with energies and standard errors in eV, in the order given.

    Raises
    ------
    RefusedLabelsError
        If an energy is refused.
    DataError
        If geometries do not belong together, or the folder holds another curve.
    """
    from bayesmol.wavefunctions.pauli_net import PauliNet

    molecules, ansatz = _geometries(molecule, bond_lengths), PauliNet() if ansatz is None else ansatz
    budgets = _budgets(ansatz, minutes, minutes_each)
    folder = None if checkpoint is None else Path(checkpoint)
    if folder is not None:
        made(folder)
    seeds = np.random.SeedSequence(integer_seed(seed)).generate_state(2 * len(molecules)).reshape(-1, 2)
    run = _Run(ansatz, draws, budgets, folder)
    points: list[Any] = []
    with progress("curve", len(molecules)) as advance:
        for place, one in enumerate(molecules):
            points.append(run.point(one, points, (int(seeds[place, 0]), int(seeds[place, 1]))))
            advance(note=f"geometry {place + 1}: {points[-1].text}")
    return _labelled(points)


@dataclass(eq=False)
class _Point:
    """A geometry that is done; its trial function is as built, not as warmed, so that it can be built again."""

    molecule: Molecule
    value: float
    error: float
    verdict: str
    text: str
    arrays: dict[str, np.ndarray]
    seed: int
    trial: Trial | None = None

    def known(self, ansatz: Ansatz) -> Trial:
        if self.trial is None:
            self.trial = ansatz.build(self.molecule, seed=self.seed)
        return self.trial


@dataclass(frozen=True)
class _Run:
    ansatz: Ansatz
    draws: int
    budgets: tuple[float | None, float | None]
    folder: Path | None

    def point(self, molecule: Molecule, done: list[_Point], seeds: tuple[int, int]) -> _Point:
        path, purpose = self._path(molecule, seeds), self._purpose(molecule, seeds, first=not done)
        if path is not None and path.exists():
            header, arrays = read_checkpoint(path, purpose)
            return _Point(molecule, arrays=arrays, seed=seeds[0], **header)
        found = self._computed(molecule, done, seeds, None if path is None else path.with_suffix(".training"))
        if path is not None:
            names = ("value", "error", "verdict", "text")
            write_checkpoint(path, purpose, {name: getattr(found, name) for name in names}, found.arrays)
            path.with_suffix(".training").unlink(missing_ok=True)
        return found

    def _computed(
        self, molecule: Molecule, done: list[_Point], seeds: tuple[int, int], checkpoint: Path | None
    ) -> _Point:
        from bayesmol.wavefunctions.fitted import FittedWavefunction

        built, settings = self.ansatz.build(molecule, seed=seeds[0]), self.ansatz.training
        trial = self._warmed(built, min(done, key=lambda one: _apart(one.molecule, molecule))) if done else built
        minutes = self.budgets[bool(done)]
        trained = train(trial, molecule, settings, seed=seeds[0], minutes=minutes, checkpoint=checkpoint)
        wavefunction = FittedWavefunction(self.ansatz, trial, trained, seeds[0])
        energy = wavefunction.energy(self.draws, seed=seeds[1])
        arrays = leaves("parameters", wavefunction.parameters) | {"walkers": np.asarray(wavefunction.trained.walkers)}
        refused = energy.verdict == "refused"
        text = "; ".join(energy.reasons) if refused else str(energy)
        error = 0.0 if refused else float(energy.estimate.standard_error)
        value = float(energy.estimate.value)
        return _Point(molecule, value, error, energy.verdict, text, arrays, seeds[0], built)

    def _warmed(self, trial: Trial, nearest: _Point) -> Trial:
        neighbour = nearest.known(self.ansatz)
        with double():
            parameters = restored("parameters", neighbour.parameters, nearest.arrays)
        return warm_start(trial, neighbour, parameters, nearest.arrays["walkers"])

    def _path(self, molecule: Molecule, seeds: tuple[int, int]) -> Path | None:
        if self.folder is None:
            return None
        text = f"{molecule.charges.tolist()} {molecule.positions.tolist()} {molecule.charge} {molecule.spin} {seeds}"
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.point"

    def _purpose(self, molecule: Molecule, seeds: tuple[int, int], *, first: bool) -> dict[str, str]:
        return {
            "version": VERSION,
            "molecule": f"{molecule.charges.tolist()}, {molecule.positions.tolist()} bohr",
            "ansatz": repr(self.ansatz),
            "minutes": str(self.budgets[not first]),
            "draws": str(self.draws),
            "seeds": str(seeds),
        }


def _geometries(molecule: Molecule | Sequence[Molecule], bond_lengths: Sequence[float] | None) -> list[Molecule]:
    if isinstance(molecule, Molecule):
        if bond_lengths is None:
            raise DataError(expected("bond_lengths", "lengths in bohr for one molecule", None))
        found = [stretched(molecule, float(length)) for length in bond_lengths]
    else:
        if bond_lengths is not None:
            raise DataError(expected("bond_lengths", "None for a sequence of molecules", "lengths"))
        found = list(molecule)
    if not found:
        raise ShapeError(expected("molecule", "at least one geometry", "none"))
    kinds = {(tuple(one.charges.tolist()), one.charge, one.spin) for one in found}
    if len(kinds) > 1:
        raise DataError(expected("molecule", "geometries with the same nuclei, charge and spin", f"{len(kinds)} kinds"))
    return found


def _budgets(ansatz: Ansatz, minutes: float | None, minutes_each: float | None) -> tuple[float | None, float | None]:
    """Of the first geometry and of the others; ``None`` where only steps are counted."""
    first = ansatz.training.minutes if minutes is None else minutes
    return first, (None if first is None else first / 3) if minutes_each is None else minutes_each


def _apart(one: Molecule, other: Molecule) -> float:
    return float(np.linalg.norm(one.positions - other.positions))


def _labelled(points: list[_Point]) -> Labelled:
    fine = [one for one in points if one.verdict != "refused"]
    for place, one in enumerate(points):
        if one.verdict == "suspect":
            warnings.warn(f"geometry {place} has a suspect energy: {one.text}", stacklevel=3)
    labelled = _labels(fine) if fine else None
    if labelled is None or len(fine) < len(points):
        raise RefusedLabelsError(labelled, {k: one.text for k, one in enumerate(points) if one.verdict == "refused"})
    return labelled


def _labels(points: list[_Point]) -> Labelled:
    values: Any = convert(torch.tensor([(one.value, one.error) for one in points], dtype=torch.float64), "Ha", "eV")
    structures = Structures.from_ase([one.molecule.to_ase() for one in points])
    return Labelled(structures, values[:, 0].clone(), energy_errors=values[:, 1].clone())
