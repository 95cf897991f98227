"""Energies of the literature to compare with: exact ones (nuclei at rest, no relativity) and Hartree–Fock limits.

They belong to names, and to geometries however these are turned and ordered.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayesmol.errors import DataError, expected
from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["EXACT_ENERGIES", "ExactEnergy", "exact_energy", "known_energy"]

_NEAR = 1e-3  # bohr, of all distances

_ATOMS = "Chakravorty et al., Phys. Rev. A 47, 3649 (1993)"
_HE = "Aznabaev, Bekbaev, Korobov, arXiv:1810.11288"
_LI = "Puchalski, Pachucki, Phys. Rev. A 73, 022503 (2006)"
_H2 = "Pachucki, Phys. Rev. A 82, 032509 (2010)"
_FERMINET = "Pfau et al., Phys. Rev. Research 2, 033429 (2020)"
_LIH = f"Cencek, Rychlewski, in {_FERMINET}"
_N2 = f"Filippi, Umrigar, in {_FERMINET}"
_H10 = "Motta et al., Phys. Rev. X 7, 031059 (2017), MRCI+Q+F12 at the basis limit"
_WATER = "Luechow, Anderson, Feller, J. Chem. Phys. 106, 7706 (1997)"
_RECTANGLE = (
    f"that of the square in {_FERMINET}, less 7.9(1) mHa: FCI/cc-pVTZ with NEVPT2 on CASSCF(4, 4) from triple and "
    "quadruple zeta to the basis limit, by PySCF, which for the square alone lies 1.6 mHa above the published energy"
)
_NUMERICAL = "Bunge, Barrientos, Bunge, Cogordan, Phys. Rev. A 46, 3691 (1992), numerical, restricted"
_EXTRAPOLATED = "RHF by PySCF in cc-pVQZ and cc-pV5Z, extrapolated as exp(-1.63 X)"


class ExactEnergy(NamedTuple):
    """Energies of one of the named molecules.

    Attributes
    ----------
    energy
        In Ha.
    uncertainty
        In Ha: that of the source, or one of the last digit given.
    source
        Where it comes from.
    hartree_fock
        Limit of a complete basis in Ha, restricted (ROHF) for open shells; published percentages of the correlation
        energy of B to F often refer to an unrestricted limit that is 4 to 10 mHa lower. None where no source is sure.
    hartree_fock_source
        Where that comes from.
    """

    energy: float
    uncertainty: float
    source: str
    hartree_fock: float | None = None
    hartree_fock_source: str = ""

    def error_mha(self, energy: float) -> float:
        """Distance of ``energy`` (Ha) from the exact one in mHa, positive above it."""
        return 1e3 * (energy - self.energy)

    def correlation_fraction(self, energy: float) -> float:
        r""":math:`(E_\mathrm{HF} - E) / (E_\mathrm{HF} - E_0)`; NaN without correlation or Hartree–Fock limit."""
        if self.hartree_fock is None or self.hartree_fock <= self.energy:
            return float("nan")
        return (self.hartree_fock - energy) / (self.hartree_fock - self.energy)


EXACT_ENERGIES = {
    "H": ExactEnergy(-0.5, 0.0, "closed form", -0.5, "closed form"),
    "He": ExactEnergy(-2.903724377, 1e-9, _HE, -2.861680, _NUMERICAL),
    "Li": ExactEnergy(-7.478060, 1e-6, _LI, -7.432727, _NUMERICAL),
    "Be": ExactEnergy(-14.66736, 1e-5, _ATOMS, -14.573023, _NUMERICAL),
    "B": ExactEnergy(-24.65391, 1e-5, _ATOMS, -24.529061, _NUMERICAL),
    "C": ExactEnergy(-37.8450, 1e-4, _ATOMS, -37.688619, _NUMERICAL),
    "N": ExactEnergy(-54.5892, 1e-4, _ATOMS, -54.400934, _NUMERICAL),
    "O": ExactEnergy(-75.0673, 1e-4, _ATOMS, -74.809398, _NUMERICAL),
    "F": ExactEnergy(-99.7339, 1e-4, _ATOMS, -99.409349, _NUMERICAL),
    "Ne": ExactEnergy(-128.9376, 1e-4, _ATOMS, -128.547098, _NUMERICAL),
    "H2": ExactEnergy(-1.174475714, 1e-9, _H2, -1.13362, "https://doi.org/10.1063/1.4798707, at 1.40108 bohr"),
    "LiH": ExactEnergy(-8.070548, 1e-6, _LIH, -7.98737, _FERMINET),
    "Li2": ExactEnergy(-14.9954, 1e-4, _FERMINET, -14.87155, _FERMINET),
    "N2": ExactEnergy(-109.5423, 1e-4, _N2, -108.9940, _FERMINET),
    "H4-square": ExactEnergy(-2.0155, 1e-4, _FERMINET),
    "H4-rectangle": ExactEnergy(-2.0234, 1.6e-3, _RECTANGLE),
    "H2O": ExactEnergy(-76.438, 3e-3, _WATER, -76.0676, _EXTRAPOLATED),
    "H10": ExactEnergy(-5.6655, 1e-4, _H10),
}


def exact_energy(name: str) -> ExactEnergy:
    """Energies of one of the molecules of :meth:`Molecule.named <bayesmol.wavefunctions.molecule.Molecule.named>`.

    Raises
    ------
    DataError
        If none is known.
    """
    if name not in EXACT_ENERGIES:
        raise DataError(expected("name", f"one of {', '.join(EXACT_ENERGIES)}", repr(name)))
    return EXACT_ENERGIES[name]


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
