"""Exact energies by geometry: which of the listed molecules is this one, however it is turned and ordered?"""

from __future__ import annotations

import numpy as np

from bayesmol.wavefunctions.exact_energies import EXACT_ENERGIES, ExactEnergy
from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["known_energy"]

_NEAR = 1e-3  # bohr, of all distances


def known_energy(molecule: Molecule) -> ExactEnergy | None:
    """Energies of the listed molecule with these distances (to 0.001 bohr), charge and spin; ``None`` without one."""
    for name, energy in EXACT_ENERGIES.items():
        if _alike(Molecule.named(name), molecule):
            return energy
    return None


def _alike(one: Molecule, other: Molecule) -> bool:
    if (one.charge, one.spin, sorted(one.charges)) != (other.charge, other.spin, sorted(other.charges)):
        return False
    kinds, others = _distances(one), _distances(other)
    same = [pair[:2] for pair in kinds] == [pair[:2] for pair in others]
    return same and all(abs(a[2] - b[2]) < _NEAR for a, b in zip(kinds, others, strict=True))


def _distances(molecule: Molecule) -> list[tuple[int, int, float]]:
    """Elements and distance of each pair of nuclei, sorted: the same for all rotations and reflections."""
    first, second = np.triu_indices(len(molecule.charges), 1)
    apart = np.linalg.norm(molecule.positions[first] - molecule.positions[second], axis=-1)
    pairs = np.sort(np.stack([molecule.charges[first], molecule.charges[second]], -1), -1)
    return sorted((int(a), int(b), float(d)) for (a, b), d in zip(pairs, apart, strict=True))
