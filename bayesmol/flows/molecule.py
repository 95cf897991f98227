"""Boltzmann densities of molecules with a force field, and the molecule that ships with the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from typing import Any

from jaxtyping import Int
from torch import Tensor

from bayesmol.data.labelled import Source
from bayesmol.errors import DataError, expected
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.force_field_openmm import read_openmm

__all__ = ["alanine_dipeptide", "bundled", "bundled_source", "from_force_field", "from_openmm"]


def from_force_field(
    field: ForceField,
    temperature: float,
    *,
    states: Callable[[Tensor], Int[Tensor, " points"]] | None = None,
    name: str = "molecule",
) -> BoltzmannDensity:
    """Density of the positions of all atoms of a molecule, in eV and Å.

    It starts from the geometry of the force field, if that has one.

    Raises
    ------
    DataError
        If the temperature, in K, is not positive.
    """
    start = None
    if field.positions is not None:
        start = (field.positions - field.positions.mean(0)).reshape(1, -1)
    return BoltzmannDensity(
        field.energy,
        3 * len(field),
        temperature,
        unit="eV",
        shape=(len(field), 3),
        space=3,
        start=start,
        species=field.species,
        states=states,
        name=name,
    )


def from_openmm(system: Any, temperature: float, *, positions: Any = None, topology: Any = None) -> BoltzmannDensity:
    """Density of the molecule of an OpenMM system; see :func:`bayesmol.flows.force_field_openmm.read_openmm`.

    OpenMM is needed here and not later: the energy is computed by torch, where the configurations are.

    Parameters
    ----------
    system
        ``openmm.System``, its XML or the path of a file with that.
    temperature
        In K.
    positions
        Geometry, ``(atoms, 3)`` in Å or as an OpenMM quantity, from which chains start.
    topology
        ``openmm.app.Topology`` with the elements; without it they follow from the masses.

    Raises
    ------
    DataError
        If the system has a force, constraint, cutoff or virtual site that the force field does not know.
    """
    return from_force_field(read_openmm(system, positions=positions, topology=topology), temperature)


def alanine_dipeptide(temperature: float = 300.0, *, solvent: str | None = "obc1") -> BoltzmannDensity:
    """Alanine dipeptide by Amber's ff96 in a generalised Born solvent; without constraints, 22 atoms.

    With ``"obc1"``, the default, this is the system of the published comparisons of Boltzmann generators.

    Parameters
    ----------
    temperature
        In K.
    solvent
        ``"obc1"``, ``"obc2"``, or ``None`` for vacuum.

    Raises
    ------
    DataError
        If the solvent is another.
    """
    if solvent not in ("obc1", "obc2", None):
        raise DataError(expected("solvent", "'obc1', 'obc2' or None", repr(solvent)))
    field = bundled(f"alanine-dipeptide/{solvent or 'obc1'}")
    field = field if solvent else field.in_vacuum()
    return from_force_field(field, temperature, name=f"alanine dipeptide ({solvent or 'vacuum'})")


@cache
def bundled(name: str) -> ForceField:
    """A force field that ships with bayesmol, ``"alanine-dipeptide/obc1"`` or ``"alanine-dipeptide/obc2"``.

    Raises
    ------
    DataError
        If there is no such force field.
    """
    _entry(name)
    with as_file(_folder() / f"{name.replace('/', '_')}.npz") as path:
        return ForceField.read(path)


def bundled_source(name: str) -> Source:
    """Licence, citation and address of a force field that ships with bayesmol."""
    return Source(name=name, **_entry(name))


def _entry(name: str) -> dict[str, str]:
    known = json.loads((_folder() / "force_fields.json").read_text(encoding="utf-8"))
    if name not in known["force_fields"]:
        raise DataError(expected("name", f"one of {', '.join(known['force_fields'])}", repr(name)))
    return known["sources"][known["force_fields"][name]]


def _folder() -> Traversable:
    return files("bayesmol.data") / "files" / "force_fields"
