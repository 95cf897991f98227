"""Nuclei, their places and the number of electrons of either spin: what a Hamiltonian needs to know."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.wavefunctions import named_molecules

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Molecule"]

_HEAVIEST = 118
_NEAREST = 0.1  # bohr; nuclei this near are an error of units or a copy


@dataclass(frozen=True, eq=False)
class Molecule:
    """Nuclei at rest and electrons, without a field; equal if all numbers are equal.

    Attributes
    ----------
    charges
        Atomic numbers.
    positions
        In bohr.
    charge
        Of the whole molecule, in elementary charges.
    spin
        Number of unpaired electrons, 2 S.

    Raises
    ------
    ShapeError
        If ``positions`` has not three coordinates for each nucleus.
    DataError
        If there is no such element, two nuclei coincide, a number is not finite, or the number of electrons does not
        go with ``spin``.
    """

    charges: Int[np.ndarray, " nuclei"]
    positions: Float[np.ndarray, "nuclei 3"]
    charge: int = 0
    spin: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "charges", _checked_charges(self.charges))
        object.__setattr__(self, "positions", _checked_positions(self.positions, len(self.charges)))
        for name in ("charge", "spin"):
            object.__setattr__(self, name, _whole(name, getattr(self, name)))
        if self.electrons < 1:
            raise DataError(expected("charge", f"less than {int(self.charges.sum())}", self.charge))
        if not 0 <= self.spin <= self.electrons or (self.electrons - self.spin) % 2:
            parity = "an odd" if self.electrons % 2 else "an even"
            wanted = f"{parity} number of unpaired electrons from 0 to {self.electrons} ({self.electrons} electrons)"
            raise DataError(expected("spin", wanted, self.spin, "spin is 2 S; change it or the charge"))

    @classmethod
    def named(cls, name: str) -> Molecule:
        """An atom or molecule of the literature in its ground state.

        H, He, Li, Be, B, C, N, O, F, Ne; H2, LiH, Li2 and N2 at 1.4, 3.015, 5.051 and 2.068 bohr; H2O at its
        experimental equilibrium (0.9572 Å, 104.52°); H4 on a circle of 3.2843 bohr, as a square (90°) or a rectangle
        (80°), in its singlet; H10, a chain with distances of 1.8 bohr.

        Raises
        ------
        DataError
            If the name is unknown.

        References
        ----------
        Pfau, Spencer, Matthews, Foulkes, Phys. Rev. Research 2, 033429 (2020) (diatomics, H4); Benedict, Gailar,
        Plyler, J. Chem. Phys. 24, 1139 (1956) (H2O); Motta et al., Phys. Rev. X 7, 031059 (2017) (H10).
        """
        if name not in named_molecules.NAMES:
            remedy = "or give charges and positions"
            raise DataError(expected("name", f"one of {', '.join(named_molecules.NAMES)}", repr(name), remedy))
        return cls(*named_molecules.nuclei(name), spin=named_molecules.unpaired(name))

    @classmethod
    def from_ase(cls, atoms: Atoms, charge: int = 0, spin: int | None = None) -> Molecule:
        """A molecule of ASE, whose positions are in Å.

        Parameters
        ----------
        spin
            Number of unpaired electrons. If omitted, the sum of the initial magnetic moments where there are any, else
            the ground state of an atom, else the least possible: 0 or 1, which is wrong for O2.

        Raises
        ------
        DataError
            If a direction is periodic.
        """
        from bayesmol.units import convert

        if atoms.pbc.any():
            remedy = "cut a cluster and set atoms.pbc = False"
            raise DataError(expected("atoms", "a molecule without periodic directions", atoms.pbc.tolist(), remedy))
        numbers = np.asarray(atoms.numbers, int)
        if spin is None:
            spin = _likely_spin(numbers, charge, atoms.get_initial_magnetic_moments())
        return cls(numbers, convert(atoms.positions, "Å", "bohr"), charge, spin)

    def to_ase(self) -> Atoms:
        """The nuclei in Å; charge and spin in ``info``."""
        from ase import Atoms

        from bayesmol.units import convert

        info = {"charge": self.charge, "spin": self.spin}
        return Atoms(numbers=self.charges, positions=convert(self.positions, "bohr", "Å"), info=info)

    @property
    def electrons(self) -> int:
        """Number of electrons."""
        return int(self.charges.sum()) - self.charge

    @property
    def up(self) -> int:
        """Number of electrons with spin up, at least that of the others."""
        return (self.electrons + self.spin) // 2

    @property
    def down(self) -> int:
        """Number of electrons with spin down."""
        return self.electrons - self.up

    @property
    def symbols(self) -> tuple[str, ...]:
        """Chemical symbols."""
        from ase.data import chemical_symbols

        return tuple(chemical_symbols[number] for number in self.charges)

    @property
    def nuclear_repulsion(self) -> float:
        r""":math:`\sum_{a<b} Z_a Z_b / R_{ab}` in Ha."""
        first, second = np.triu_indices(len(self.charges), 1)
        distance = np.linalg.norm(self.positions[first] - self.positions[second], axis=-1)
        return float(np.sum(self.charges[first] * self.charges[second] / distance))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Molecule) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __str__(self) -> str:
        counts = Counter(self.symbols)
        formula = "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in counts)
        size, sign = abs(self.charge), "+" if self.charge > 0 else "-"
        return formula + (f" ({size if size > 1 else ''}{sign})" if size else "")

    def _key(self) -> tuple[bytes, bytes, int, int]:
        return self.charges.tobytes(), self.positions.tobytes(), self.charge, self.spin


def _whole(name: str, value: Any) -> int:
    scalar: bool = np.isscalar(value)
    if isinstance(value, bool) or not scalar or not np.isreal(value) or value != np.round(value):
        raise DataError(expected(name, "a whole number", repr(value)))
    return int(value)


def _checked_charges(charges: np.ndarray) -> np.ndarray:
    numbers = np.asarray(charges)
    if numbers.ndim != 1 or not len(numbers):
        raise ShapeError(expected("charges", "(nuclei,) with at least one", numbers.shape))
    if numbers.dtype.kind not in "iuf" or not np.isfinite(numbers).all() or (numbers != np.round(numbers)).any():
        raise DataError(expected("charges", "atomic numbers", numbers.tolist()))
    if (wrong := (numbers < 1) | (numbers > _HEAVIEST)).any():
        raise DataError(expected("charges", f"atomic numbers from 1 to {_HEAVIEST}", numbers[wrong].tolist()))
    return _frozen(numbers.astype(np.int64))


def _checked_positions(positions: np.ndarray, nuclei: int) -> np.ndarray:
    places = np.array(positions, dtype=np.float64)
    if places.shape != (nuclei, 3):
        raise ShapeError(expected("positions", f"({nuclei}, 3) in bohr", places.shape))
    if not np.isfinite(places).all():
        raise DataError(expected("positions", "finite numbers", "NaN or infinity"))
    first, second = np.triu_indices(nuclei, 1)
    distance = np.linalg.norm(places[first] - places[second], axis=-1)
    if (near := distance < _NEAREST).any():
        got = f"nuclei {first[near][0]} and {second[near][0]} at {distance[near][0]:.3g} bohr"
        raise DataError(expected("positions", f"distances of {_NEAREST} bohr or more", got, "are they in bohr?"))
    return _frozen(places + 0.0)  # -0.0 becomes 0.0, so that equal molecules have equal bytes


def _frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _likely_spin(numbers: np.ndarray, charge: int, moments: np.ndarray) -> int:
    electrons = int(numbers.sum()) - charge
    if np.any(moments):
        return round(abs(float(np.sum(moments))))
    if len(numbers) == 1:
        return _atomic_spin(int(numbers[0]), electrons)
    return electrons % 2


def _atomic_spin(number: int, electrons: int) -> int:
    """Unpaired electrons of an atom or ion in its ground state; light ions are like the atom with as many electrons."""
    from ase.data import ground_state_magnetic_moments

    if electrons != number and not 0 < electrons <= 18:
        raise DataError(expected("spin", "2 S of an ion of more than 18 electrons", "none", "give it"))
    return round(float(ground_state_magnetic_moments[electrons]))
