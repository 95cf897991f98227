"""What every label factory does: structures in, labels out, failures recorded, each label with its name."""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, pairwise
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.labelled import Labelled, Source
from bayesmol.data.structures import Structures
from bayesmol.errors import DependencyError
from bayesmol.parallel import parallel

__all__ = ["Frame", "Labels", "Reference", "Result", "assembled", "label_hashes", "program_version"]

_ABSURD = 1000.0  # eV/Å; no structure with such a force teaches a potential anything
_FAILURES = (RuntimeError, ValueError, LookupError, ArithmeticError, AssertionError)  # what the programs raise


class Frame(NamedTuple):
    """One structure as plain arrays: atomic numbers, positions and cell in Å, periodic directions."""

    numbers: Int[np.ndarray, " atoms"]
    positions: Float[np.ndarray, "atoms 3"]
    cell: Float[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, " 3"]


@dataclass(frozen=True, eq=False)
class Result:
    """Of one structure: energy (eV), forces (eV/Å), stress (eV/Å³), their standard errors; or why there is none."""

    energy: float = math.nan
    forces: Float[np.ndarray, "atoms 3"] | None = None
    stress: Float[np.ndarray, "3 3"] | None = None
    energy_error: float | None = None
    force_errors: Float[np.ndarray, "atoms 3"] | None = None
    failure: str = ""


@dataclass(frozen=True, eq=False)
class Labels:
    """What a reference says about some structures.

    Attributes
    ----------
    labelled
        The structures that could be labelled, in order; ``None`` if there are none.
    succeeded
        Which of the structures these are.
    failures
        Position of each of the others, and why it has no label.
    hashes
        SHA-256 of each structure and the reference together: the name of the label.
    """

    labelled: Labelled | None
    succeeded: Bool[Tensor, " structures"]
    failures: dict[int, str]
    hashes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.hashes)


class Reference(ABC):
    """A way to label structures, given by its settings: a frozen dataclass that says how one structure is calculated.

    The same settings and version give the same labels, so :attr:`fingerprint` and a structure name a label. Many
    structures are labelled wherever joblib is told to (:func:`bayesmol.parallel.parallel`).
    """

    library: ClassVar[str]
    together: ClassVar[int] = 1  # structures in one task

    @property
    @abstractmethod
    def source(self) -> Source:
        """What to cite for the labels."""

    @abstractmethod
    def calculation(self) -> Callable[[Frame], Result]:
        """A function that labels one structure, and keeps what structures can share; it raises if it fails."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that decides the labels but the version of the program, ready for JSON."""
        return {"reference": type(self).__name__, **asdict(cast(Any, self))}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the settings and of the version of the program, in hexadecimal."""
        content = self.settings | {"version": program_version(self.library)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def label(self, structures: Any) -> Labels:
        """Labels of structures; one that cannot be calculated is recorded and left out, never guessed.

        A failure is: no convergence, a number of electrons that does not fit, an element without parameters, an energy
        or force that is not finite, or a force above 1000 eV/Å.

        Raises
        ------
        DependencyError
            If the program is not installed.
        """
        batch = Structures.coerce(structures)
        return assembled(batch, self.results(batch), self)

    def results(self, structures: Structures, received: Callable[[int, Result], None] | None = None) -> list[Result]:
        """One for each structure; ``received`` is called with position and result of each as soon as it is there."""
        program_version(self.library)
        starts = range(0, len(structures), self.together)
        chunks = [structures[start : start + self.together] for start in starts] if len(starts) > 1 else [structures]

        def hand_on(chunk: int, found: list[Result]) -> None:
            assert received is not None, "else this is not called"
            for offset, result in enumerate(found):
                received(starts[chunk] + offset, result)

        work, keep = partial(_calculated, self), hand_on if received else None
        return list(chain(*parallel(work, chunks, description="labelling", received=keep)))


def label_hashes(structures: Structures, fingerprint: str) -> tuple[str, ...]:
    """SHA-256 of each structure (species, positions, periodic lattice vectors) together with a reference."""
    return tuple(_hash(frame, fingerprint) for frame in _frames(structures))


def assembled(structures: Structures, results: Sequence[Result], reference: Any) -> Labels:
    """Labels of structures from what a reference found for each."""
    good = [position for position, result in enumerate(results) if not result.failure]
    failures = {position: result.failure for position, result in enumerate(results) if result.failure}
    succeeded = torch.ones(len(structures), dtype=torch.bool)
    succeeded[list(failures)] = False
    kept = structures if len(good) == len(structures) else structures[good] if good else None
    labelled = None if kept is None else _labelled(kept, [results[k] for k in good], reference.source)
    return Labels(labelled, succeeded, failures, label_hashes(structures, reference.fingerprint))


@cache
def program_version(library: str) -> str:
    """Version of an installed library; a :class:`~bayesmol.errors.DependencyError` names the extra if there is none."""
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise DependencyError.extra(library, "reference") from error


def _calculated(reference: Reference, structures: Structures) -> list[Result]:
    """One task: a few structures one after the other."""
    calculate = reference.calculation()
    return [_attempt(calculate, frame) for frame in _frames(structures)]


def _attempt(calculate: Callable[[Frame], Result], frame: Frame) -> Result:
    try:
        result = calculate(frame)
    except _FAILURES as error:
        return Result(failure=f"{type(error).__name__}: {error}")
    arrays = [array for array in (result.energy, result.forces, result.stress) if array is not None]
    if not all(np.isfinite(array).all() for array in arrays):
        return Result(failure="energy or forces are not finite")
    if result.forces is not None and (largest := np.abs(result.forces).max()) > _ABSURD:
        return Result(failure=f"absurd: a force of {largest:.3g} eV/Å, above {_ABSURD:g}")
    return result


def _frames(structures: Structures) -> list[Frame]:
    arrays = (structures.species, structures.positions, structures.cell, structures.pbc)
    species, positions, cell, pbc = (array.detach().cpu().numpy() for array in arrays)
    positions, cell = positions.astype(np.float64), cell.astype(np.float64)
    bounds = enumerate(pairwise(structures.pointer.tolist()))
    return [Frame(species[a:b], positions[a:b], cell[s], pbc[s]) for s, (a, b) in bounds]


def _hash(frame: Frame, fingerprint: str) -> str:
    digest = hashlib.sha256(fingerprint.encode())
    lattice = frame.cell * frame.pbc[:, None]
    for array, kind in ((frame.numbers, "<i8"), (frame.positions, "<f8"), (lattice, "<f8"), (frame.pbc, "|b1")):
        plain = np.ascontiguousarray(array, dtype=kind) + np.zeros((), kind)  # -0.0 is 0.0
        digest.update(f"{plain.shape};".encode() + plain.tobytes())
    return digest.hexdigest()


def _labelled(structures: Structures, results: list[Result], source: Source) -> Labelled:
    counts = structures.counts.tolist()
    joined: dict[str, Tensor | None] = {
        "energies": torch.tensor([result.energy for result in results], dtype=torch.float64),
        "energy_errors": _joined([result.energy_error for result in results], [(1,)] * len(results)),
        "forces": _joined([result.forces for result in results], [(n, 3) for n in counts]),
        "force_errors": _joined([result.force_errors for result in results], [(n, 3) for n in counts]),
        "stresses": _joined([result.stress for result in results], [(1, 3, 3)] * len(results)),
        "has_forces": torch.tensor([result.forces is not None for result in results]),
        "has_stresses": torch.tensor([result.stress is not None for result in results]),
    }
    device = structures.positions.device
    present = {name: array.to(device) for name, array in joined.items() if array is not None}
    return Labelled(structures, **present, source=source)


def _joined(values: list[Any], shapes: list[tuple[int, ...]]) -> Tensor | None:
    """One array of all, zero where a structure has none; nothing where none has."""
    if all(value is None for value in values):
        return None
    pairs = zip(values, shapes, strict=True)
    rows = [np.zeros(shape) if value is None else np.reshape(value, shape) for value, shape in pairs]
    return torch.from_numpy(np.concatenate(rows).astype(np.float64))
