"""Active spaces, and determinants over numbered orbitals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from bayesmol.errors import DataError, expected
from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["Expansion", "check_active_space", "completed", "valence_space"]

_LARGEST = 8  # electrons or orbitals of an active space that is chosen here
_WINDOW = 6


class Expansion(NamedTuple):
    """Determinants over molecular orbitals: the energy in Ha, columns of coefficients over a basis, and occupations."""

    energy: float
    orbitals: Float[np.ndarray, "functions orbitals"]
    up: Int[np.ndarray, "determinants up"]
    down: Int[np.ndarray, "determinants down"]
    coefficients: Float[np.ndarray, " determinants"]
    method: str


def valence_space(molecule: Molecule) -> tuple[int, int]:
    """Electrons and orbitals of the valence shells; the six about the gap where that is too large."""
    heavy = molecule.charges > 2
    core = int(np.sum(np.where(molecule.charges > 10, 5, heavy)))
    electrons, orbitals = molecule.electrons - 2 * core, int(np.sum(np.where(heavy, 4, 1)))
    if max(electrons, orbitals) > _LARGEST:
        electrons = max(_WINDOW - electrons % 2, molecule.spin)
        orbitals = min(orbitals, max(_WINDOW, molecule.spin))
    return electrons, orbitals


def completed(expansion: Expansion, count: int, empty: np.ndarray) -> Expansion:
    """The first ``count`` determinants, or all and excitations from the first to the orbitals ``empty``.

    A pair is lifted from the highest orbital that is doubly occupied, a lone electron where there is no pair.

    Raises
    ------
    DataError
        If there are not enough empty orbitals.
    """
    up, down, coefficients = (part[:count] for part in (expansion.up, expansion.down, expansion.coefficients))
    if (missing := count - len(up)) > 0:
        if missing > len(empty):
            most = len(up) + len(empty)
            raise DataError(expected("determinants", f"at most {most} in this basis", count, "ask for fewer"))
        pairs = np.intersect1d(up[0], down[0])
        # Unpaired electrons keep their orbitals, so that the spin stays what it is; a lone one has no choice.
        lifted = int(pairs[-1] if len(pairs) else up[0].max())
        up, down = (np.concatenate([part, *_excited(part[0], lifted, empty[:missing])]) for part in (up, down))
        coefficients = np.concatenate([coefficients, np.zeros(missing)])
    return expansion._replace(up=up, down=down, coefficients=coefficients)


def _excited(occupied: np.ndarray, lifted: int, empty: np.ndarray) -> list[np.ndarray]:
    """Rows with one orbital replaced by each empty one in turn; unchanged where it is not occupied."""
    return [np.sort(np.where(occupied == lifted, orbital, occupied))[None] for orbital in empty]


def check_active_space(molecule: Molecule, electrons: int, orbitals: int) -> None:
    """Raise DataError if the molecule cannot have such an active space."""
    inactive = molecule.electrons - electrons
    if (
        inactive < 0
        or inactive % 2
        or electrons < molecule.spin
        or not 0 < (electrons + molecule.spin) // 2 <= orbitals
    ):
        wanted = f"an active space for spin {molecule.spin} within {molecule.electrons} electrons"
        remedy = "leave an even number out, and enough orbitals for the electrons with spin up"
        raise DataError(expected("electrons, orbitals", wanted, f"{electrons}, {orbitals}", remedy))
