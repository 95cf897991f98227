"""Foundations without features: any ASE calculator, and the references of :mod:`bayesmol.data`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bayesmol.data.labelled import Labelled
from bayesmol.data.labelling import program_version
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, FormatError, expected
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.surface import Surface
from bayesmol.progress import progress

__all__ = ["AbsentFoundation", "CalculatorFoundation", "ReferenceFoundation"]

_REFERENCES = ("TBLite", "PySCF", "OpenMM")


@dataclass(frozen=True, eq=False)
class CalculatorFoundation(Foundation):
    """Any ASE calculator, asked for one structure after the other.

    A saved model remembers its class and what it said of a few structures; the calculator itself must be handed back.

    Attributes
    ----------
    calculator
        Gives energies and forces, and stresses if virials are asked for. Its results must not depend on its history.

    Raises
    ------
    DataError
        If it is not an ASE calculator.
    """

    calculator: Any

    def __post_init__(self) -> None:
        if not callable(getattr(self.calculator, "get_property", None)):
            kind = type(self.calculator).__name__
            raise DataError(expected("calculator", "an ASE calculator, or a reference of bayesmol.data", kind))

    @property
    def identity(self) -> dict[str, Any]:
        """Class and parameters of the calculator."""
        kind = type(self.calculator)
        parameters = {name: str(value) for name, value in getattr(self.calculator, "parameters", {}).items()}
        return {"kind": "calculator", "name": f"{kind.__module__}.{kind.__qualname__}", "parameters": parameters}

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """What the calculator says of structures.

        Raises
        ------
        DataError
            If it fails for one of them, or gives no finite numbers.
        """
        batch = Structures.coerce(structures)
        energies, forces, virials = [], [], []
        with progress("asking the calculator", len(batch)) as advance:
            for number, atoms in enumerate(batch.to_ase()):
                try:
                    energies.append(float(self.calculator.get_property("energy", atoms)))
                    forces.append(np.array(self.calculator.get_property("forces", atoms), dtype=np.float64))
                    virials += [self._virial(atoms)] if virial else []
                except Exception as error:  # calculators raise whatever their programs raise
                    got = f"{type(error).__name__}: {error}"
                    raise DataError(expected(f"structure {number}", "an answer of the calculator", got)) from error
                advance()
        device = batch.positions.device
        found = Surface(
            torch.tensor(energies, dtype=torch.float64, device=device),
            torch.from_numpy(np.concatenate(forces)).to(device),
            torch.from_numpy(np.stack(virials)).to(device) if virial else None,
        )
        if not bool(found.energies.isfinite().all() & found.forces.isfinite().all()):
            raise DataError(expected("calculator", "finite energies and forces", "NaN or infinity"))
        return found

    def _virial(self, atoms: Any) -> np.ndarray:
        from ase.stress import voigt_6_to_full_3x3_stress

        stress = np.array(self.calculator.get_property("stress", atoms), dtype=np.float64)
        return atoms.get_volume() * (stress if stress.shape == (3, 3) else voigt_6_to_full_3x3_stress(stress))


@dataclass(frozen=True, eq=False)
class ReferenceFoundation(Foundation):
    """A reference of :mod:`bayesmol.data`, such as ``TBLite(method="GFN2-xTB")``: settings say all of it.

    Attributes
    ----------
    reference
        Or a cached one; labels of structures that were asked for before then cost nothing.
    """

    reference: Any

    @classmethod
    def from_identity(cls, identity: dict[str, Any]) -> ReferenceFoundation:
        """The reference of a saved model, by its settings.

        Raises
        ------
        FormatError
            If the reference is unknown.
        """
        settings = dict(identity["settings"])
        if (name := settings.pop("reference")) not in _REFERENCES:
            raise FormatError(expected("reference", f"one of {', '.join(_REFERENCES)}", repr(name)))
        return cls(getattr(importlib.import_module("bayesmol.data.reference"), name)(**settings))

    @property
    def identity(self) -> dict[str, Any]:
        """Settings of the reference and version of its program."""
        plain = getattr(self.reference, "reference", self.reference)
        version = program_version(plain.library)
        return {"kind": "reference", "settings": self.reference.settings, "version": version}

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """What the reference says of structures.

        Raises
        ------
        DataError
            If one of them cannot be calculated, or virials are asked for that it does not give.
        """
        batch = Structures.coerce(structures)
        labels = self.reference.label(batch)
        if labels.failures:
            number, why = next(iter(labels.failures.items()))
            raise DataError(expected(f"structure {number}", "an answer of the reference", why))
        return _as_surface(labels.labelled.to(batch.positions.device, torch.float64), virial)


@dataclass(frozen=True, eq=False)
class AbsentFoundation(Foundation):
    """The place of a foundation that no file can hold: it says what to attach, and computes nothing."""

    remembered: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of what is missing."""
        return self.remembered

    def surface(self, structures: Any, *, virial: bool = False) -> Surface:
        """Raises :class:`~bayesmol.errors.FormatError`: there is nothing to ask."""
        raise FormatError(missing(self.remembered))

    @property
    def layer(self) -> Callable[..., Any]:
        """Raises :class:`~bayesmol.errors.FormatError`: there is nothing to ask."""
        raise FormatError(missing(self.remembered))


def missing(identity: dict[str, Any]) -> str:
    """Message that says how a foundation is handed back."""
    way = "from_torch(module, features=…)" if identity["kind"] == "torch" else "from_calculator(calculator)"
    remedy = f"hand it back: model = Foundation.{way}.attach(model)"
    return expected("foundation", f"the {identity['kind']} {identity.get('name', '')}", "none", remedy)


def _as_surface(labelled: Labelled, virial: bool) -> Surface:
    if labelled.energies is None or not bool(labelled.has_forces.all()):
        raise DataError(expected("reference", "energies and forces of each structure", "neither or one", "forces=True"))
    virials = None
    if virial:
        if labelled.stresses is None or not bool(labelled.has_stresses.all()):
            raise DataError(expected("reference", "stresses of each structure", "none"))
        virials = labelled.stresses * labelled.structures.cell.det().abs()[:, None, None]
    return Surface(labelled.energies, labelled.given("forces"), virials)
