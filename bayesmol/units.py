"""Units of energy, length, time, mass, and what is composed of them; the only place with conversion factors.

Internal units are eV, Å, fs, dalton and K. The numbers come from :mod:`ase.units` (CODATA 2014).
"""

import unicodedata
from functools import cache
from typing import Any, TypeVar

from bayesmol.errors import UnitError, expected

__all__ = ["convert", "squared", "thermal_energy"]

Number = TypeVar("Number")
_ALIASES = {"hartree": "Ha", "Hartree": "Ha", "Bohr": "bohr", "Angstrom": "Å", "angstrom": "Å", "^3": "³", "^2": "²"}


@cache
def _table() -> dict[str, tuple[str, float]]:
    """Name of a unit → (dimension, its size in eV, Å, fs, dalton, K)."""
    import ase.units as a

    energies = {"eV": 1.0, "meV": 1e-3, "kcal/mol": a.kcal / a.mol, "kJ/mol": a.kJ / a.mol, "Ha": a.Hartree}
    energies |= {"mHa": 1e-3 * a.Hartree, "Ry": a.Rydberg, "J": a.J}
    lengths = {"Å": 1.0, "nm": a.nm, "pm": a.nm * 1e-3, "bohr": a.Bohr, "m": a.m}
    pressures = {"Pa": a.Pascal, "GPa": a.GPa, "bar": a.bar, "kbar": 1e3 * a.bar}
    times = {"fs": 1.0, "ps": 1e3, "ns": 1e6, "s": 1e15}
    table = {"": ("number", 1.0), "K": ("temperature", 1.0), "Da": ("mass", 1.0), "e": ("charge", 1.0)}
    table |= {name: ("energy", size) for name, size in energies.items()}
    table |= {name: ("length", size) for name, size in lengths.items()}
    table |= {name: ("pressure", size) for name, size in pressures.items()}
    table |= {name: ("time", size) for name, size in times.items()}
    for energy, size in energies.items():
        for length, extent in lengths.items():
            table[f"{energy}/{length}"] = ("force", size / extent)
            table[f"{energy}/{length}³"] = ("pressure", size / extent**3)
    return table


def _parse(unit: str) -> tuple[str, float, int]:
    """Dimension, size in internal units and power of ``unit``, which may be ``"(…)²"``."""
    name = unicodedata.normalize("NFC", unit).replace(" ", "")
    for alias, replacement in _ALIASES.items():
        name = name.replace(alias, replacement)
    power = 2 if name.endswith("²") else 1
    base = name[:-1].removeprefix("(").removesuffix(")") if power == 2 else name
    if base not in _table():
        raise UnitError(expected("unit", f"one of {sorted(_table())} or its square", repr(unit)))
    dimension, size = _table()[base]
    return dimension, size, power


def convert(value: Number, from_unit: str, to_unit: str, power: int = 1) -> Number:
    r"""``value`` in another unit, :math:`v\,(u_\mathrm{from} / u_\mathrm{to})^{p}`.

    Parameters
    ----------
    value
        A number or an array in ``from_unit`` to the power ``power``.
    power
        2 for a variance whose unit is given by that of its mean; or name the squared units themselves, ``"eV²"``.

    Raises
    ------
    UnitError
        If a unit is unknown or the two measure different things.
    """
    (dimension, size, exponent), (other, target, other_exponent) = _parse(from_unit), _parse(to_unit)
    if (dimension, exponent) != (other, other_exponent):
        raise UnitError(expected("to_unit", f"a unit of {dimension} like {from_unit!r}", f"{to_unit!r} ({other})"))
    factor: Any = (size / target) ** (exponent * power)
    return value * factor


def squared(unit: str) -> str:
    """Unit of a variance: ``"eV"`` → ``"eV²"``, ``"eV/Å"`` → ``"(eV/Å)²"``."""
    if not unit:
        return unit
    return f"({unit})²" if not unit.isalpha() else f"{unit}²"


def thermal_energy(temperature: float) -> float:
    """:math:`k_B T` in eV of a temperature in K."""
    import ase.units

    return ase.units.kB * temperature
