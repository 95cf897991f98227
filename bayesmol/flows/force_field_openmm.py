"""Force fields from OpenMM systems and Amber files; OpenMM is needed for reading alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.force_field import ForceField
from bayesmol.flows.force_field_openmm_solvent import custom_solvent, kj, nm, own_solvent, plain
from bayesmol.optional import optional

__all__ = ["read_amber", "read_openmm"]

_COULOMB = 138.93545764438198  # kJ nm / mol, of OpenMM 8
_SOLVENTS = {"obc1": "OBC1", "obc2": "OBC2"}
_SUPPORTED = (
    "HarmonicBondForce, HarmonicAngleForce, PeriodicTorsionForce, NonbondedForce, GBSAOBCForce, OBC by CustomGBForce"
)


def read_openmm(system: Any, *, positions: Any = None, topology: Any = None) -> ForceField:
    """Force field of one molecule without cutoff, constraints and periodic boundaries.

    Parameters
    ----------
    system
        An ``openmm.System``, its XML, or the path of a file with it. A ``CMMotionRemover`` is no energy and ignored.
    positions
        Geometry, ``(atoms, 3)`` in Å or as an OpenMM quantity.
    topology
        ``openmm.app.Topology`` with the elements; without it they follow from the masses.

    Raises
    ------
    DataError
        If the system has a force, constraint, cutoff or virtual site that the force field does not know.
    """
    system = _system(system)
    found: dict[str, Any] = {}
    _check_particles(system)
    for force in system.getForces():
        kind = type(force).__name__
        if kind == "CMMotionRemover":
            continue
        if kind not in _READERS:
            raise DataError(
                expected("system", f"only {_SUPPORTED}", kind, "remove the force; it cannot be left out silently")
            )
        new = _READERS[kind](force)
        if set(new) & set(found):
            raise DataError(expected("system", f"one {kind}", "several", "join them into one force"))
        found |= new
    masses = torch.tensor(
        [system.getParticleMass(i)._value for i in range(system.getNumParticles())], dtype=torch.float64
    )
    known = _elements(masses.tolist()) if topology is None else _named_elements(topology)
    species = torch.tensor(known)
    return ForceField(species, masses, **(_empty(len(masses)) | found), positions=_positions(positions))


def read_amber(
    topology: str | os.PathLike[str], coordinates: str | os.PathLike[str] | None = None, *, solvent: str | None = "obc1"
) -> ForceField:
    """Force field of Amber's prmtop file, with the geometry of a crd file.

    Parameters
    ----------
    solvent
        ``"obc1"`` or ``"obc2"``, with the surface term of OpenMM's reader; ``None`` for vacuum.

    Raises
    ------
    FileNotFoundError, DataError
        If there is no such file, one is damaged, the solvent is unknown, or as :func:`read_openmm`.
    """
    if solvent is not None and solvent not in _SOLVENTS:
        raise DataError(expected("solvent", f"one of {sorted(_SOLVENTS)} or None", repr(solvent)))
    app = optional("openmm.app", "reference")
    model = None if solvent is None else getattr(app, _SOLVENTS[solvent])
    try:
        file = app.AmberPrmtopFile(os.fspath(topology))
        system = file.createSystem(implicitSolvent=model, constraints=None, rigidWater=False)
        geometry = None if coordinates is None else app.AmberInpcrdFile(os.fspath(coordinates)).positions
    except FileNotFoundError:
        raise
    except Exception as error:  # OpenMM's readers raise whatever their parsers raise
        got = f"{topology}, {coordinates}: {type(error).__name__} {error}"
        raise DataError(expected("topology, coordinates", "complete files of Amber", got)) from error
    return read_openmm(system, positions=geometry, topology=file.topology)


def _system(system: Any) -> Any:
    """An OpenMM system from itself, its XML or a file."""
    program = optional("openmm", "reference")
    if isinstance(system, (str, os.PathLike)):
        text = os.fspath(system)
        try:
            text = text if text.lstrip().startswith("<") else Path(text).read_text(encoding="utf-8")
            system = program.XmlSerializer.deserialize(text)
        except (program.OpenMMException, ValueError) as error:
            raise DataError(expected("system", "the XML of an OpenMM system", error)) from error
    if not isinstance(system, program.System):
        raise DataError(expected("system", "an openmm.System, its XML or a path", type(system).__name__))
    return system


def _check_particles(system: Any) -> None:
    atoms = range(system.getNumParticles())
    for wrong, remedy in (
        (system.getNumConstraints() and "constraints", "create the system with constraints=None, rigidWater=False"),
        (any(system.isVirtualSite(i) for i in atoms) and "virtual sites", "use a model without them"),
        (system.usesPeriodicBoundaryConditions() and "periodic boundaries", "create it with NoCutoff"),
        (any(system.getParticleMass(i)._value <= 0 for i in atoms) and "massless particles", "give each atom a mass"),
    ):
        if wrong:
            raise DataError(expected("system", "free atoms in open space", wrong, remedy))


def _elements(masses: list[float]) -> list[int]:
    """Atomic numbers of the elements with the nearest masses."""
    from ase.data import atomic_masses

    return [int(abs(atomic_masses[1:] - mass).argmin()) + 1 for mass in masses]


def _named_elements(topology: Any) -> list[int]:
    found = [atom.element for atom in topology.atoms()]
    if None in found:
        raise DataError(expected("topology", "an element for each atom", f"none for atom {found.index(None)}"))
    return [element.atomic_number for element in found]


def _positions(positions: Any) -> Tensor | None:
    if positions is None:
        return None
    if hasattr(positions, "value_in_unit"):
        positions = positions.value_in_unit(optional("openmm.unit", "reference").angstrom)
    return torch.as_tensor([list(row) for row in positions], dtype=torch.float64)


def _table(rows: list[list[Any]], first: int, width: int) -> tuple[Tensor, Tensor]:
    """Columns of atoms, and the numbers after them."""
    atoms = torch.tensor([row[first : first + width] for row in rows], dtype=torch.long).reshape(-1, width)
    values = torch.tensor([row[first + width :] for row in rows], dtype=torch.float64)
    return atoms, values


def _bonds(force: Any) -> dict[str, Any]:
    atoms, values = _table(plain(force.getNumBonds(), force.getBondParameters), 0, 2)
    values = values.reshape(-1, 2)
    return {"bonds": atoms, "bond_lengths": values[:, 0] * nm(), "bond_constants": values[:, 1] * (kj() / nm() ** 2)}


def _angles(force: Any) -> dict[str, Any]:
    atoms, values = _table(plain(force.getNumAngles(), force.getAngleParameters), 0, 3)
    values = values.reshape(-1, 2)
    return {"angles": atoms, "angle_values": values[:, 0], "angle_constants": values[:, 1] * kj()}


def _torsions(force: Any) -> dict[str, Any]:
    atoms, values = _table(plain(force.getNumTorsions(), force.getTorsionParameters), 0, 4)
    values = values.reshape(-1, 3)
    found = {"torsions": atoms, "periodicities": values[:, 0].long(), "phases": values[:, 1]}
    return found | {"torsion_constants": values[:, 2] * kj()}


def _nonbonded(force: Any) -> dict[str, Any]:
    if force.getNonbondedMethod() != force.NoCutoff:
        raise DataError(expected("NonbondedForce", "NoCutoff", "a cutoff", "create the system with NoCutoff"))
    if force.getNumGlobalParameters() or force.getNumParticleParameterOffsets():
        raise DataError(expected("NonbondedForce", "fixed parameters", "offsets by a global parameter", "remove them"))
    values = torch.tensor(plain(force.getNumParticles(), force.getParticleParameters), dtype=torch.float64).reshape(
        -1, 3
    )
    pairs, own = _table(plain(force.getNumExceptions(), force.getExceptionParameters), 0, 2)
    own = own.reshape(-1, 3)
    found = {"charges": values[:, 0], "sigmas": values[:, 1] * nm(), "epsilons": values[:, 2] * kj()}
    found |= {"exceptions": pairs, "exception_charges": own[:, 0]}
    return found | {"exception_sigmas": own[:, 1] * nm(), "exception_epsilons": own[:, 2] * kj()}


def _empty(atoms: int) -> dict[str, Any]:
    """Terms that a system may lack."""
    none = torch.zeros(0, dtype=torch.float64)
    index = {
        name: torch.zeros(0, width, dtype=torch.long)
        for name, width in (("bonds", 2), ("angles", 3), ("torsions", 4), ("exceptions", 2))
    }
    found = index | {f"{kind}_{what}": none for kind in ("bond", "angle") for what in ("constants",)}
    found |= {"bond_lengths": none, "angle_values": none, "periodicities": none.long(), "phases": none}
    found |= {
        name: none for name in ("torsion_constants", "exception_charges", "exception_sigmas", "exception_epsilons")
    }
    found |= {name: torch.zeros(atoms, dtype=torch.float64) for name in ("charges", "sigmas", "epsilons")}
    return found | {"coulomb": _COULOMB * kj() * nm()}


_READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "HarmonicBondForce": _bonds,
    "HarmonicAngleForce": _angles,
    "PeriodicTorsionForce": _torsions,
    "NonbondedForce": _nonbonded,
    "GBSAOBCForce": lambda force: {"solvent": own_solvent(force, _COULOMB)},
    "CustomGBForce": lambda force: {"solvent": custom_solvent(force)},
}
