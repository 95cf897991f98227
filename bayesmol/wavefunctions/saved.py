"""Fitted wavefunctions as plain numbers and arrays: molecule, orbitals, parameters, walkers, history."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import Tensor

from bayesmol.errors import FormatError, expected
from bayesmol.wavefunctions.ansatz import Ansatz, Trial
from bayesmol.wavefunctions.fermi_net import FermiNet
from bayesmol.wavefunctions.history import History
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pair_features import BETWEEN_ELECTRONS, NEAR_NUCLEI, WIDE
from bayesmol.wavefunctions.pauli_net import PauliNet
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.reference import Reference
from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals
from bayesmol.wavefunctions.training import Trained
from bayesmol.wavefunctions.walkers import State

__all__ = ["ansatz_of", "arrays_of", "header_of", "trained_of", "trial_of"]

_ANSAETZE: dict[str, type[Ansatz]] = {"PauliNet": PauliNet, "FermiNet": FermiNet}
_ORBITALS = ("centres", "exponents", "coefficients")
_DETERMINANTS = ("up", "down", "coefficients", "rms")
_LENGTHS = [list(NEAR_NUCLEI), list(BETWEEN_ELECTRONS), WIDE]  # with others the same weights are another wavefunction


def header_of(ansatz: Ansatz, trial: Trial, trained: Trained, seed: int) -> dict[str, Any]:
    """All that is no array; how it was trained is left out."""
    settings = {
        field.name: getattr(ansatz, field.name) for field in fields(cast(Any, ansatz)) if field.name != "training"
    }
    molecule, found = trial.molecule, trial.reference
    header = {
        "ansatz": {"kind": type(ansatz).__name__, **settings},
        "molecule": {"charge": molecule.charge, "spin": molecule.spin},
        "lengths": _LENGTHS,
        "seed": seed,
        "reason": trained.reason,
        "seconds": trained.seconds,
    }
    if found is not None:
        numbers = {name: getattr(found, name) for name in ("energy", "hartree_fock", "method")}
        header["reference"] = {**numbers, "angular": found.orbitals.angular}
    return header


def arrays_of(trial: Trial, trained: Trained) -> dict[str, Tensor]:
    """All arrays."""
    found = trial.reference
    arrays: dict[str, Any] = {
        "charges": trial.molecule.charges,
        "positions": trial.molecule.positions,
        "snapshots": trained.snapshots,
        "snapshot_steps": trained.snapshot_steps,
    }
    arrays |= {f"parameters.{k}": leaf for k, leaf in enumerate(jax.tree.leaves(trained.parameters))}
    arrays |= {f"state.{name}": part for name, part in trained.state._asdict().items()}
    arrays |= {f"history.{name}": part for name, part in asdict(trained.history).items()}
    if found is not None:
        arrays |= {f"orbitals.{name}": getattr(found.orbitals, name) for name in _ORBITALS}
        arrays |= {f"reference.{name}": getattr(found, name) for name in _DETERMINANTS}
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def ansatz_of(header: dict[str, Any]) -> Ansatz:
    """The specification, with default settings of training.

    Raises
    ------
    FormatError
        If it is of no known kind, or its features of distances are those of another version.
    """
    if header.get("lengths") != _LENGTHS:
        remedy = "another version of bayesmol saved it: train it again, or load it there"
        raise FormatError(expected("lengths", f"features of {_LENGTHS} bohr", header.get("lengths"), remedy))
    settings = dict(header["ansatz"])
    kind = settings.pop("kind")
    if kind not in _ANSAETZE:
        raise FormatError(expected("ansatz", f"one of {sorted(_ANSAETZE)}", repr(kind), "upgrade bayesmol"))
    return _ANSAETZE[kind](**settings)


def trial_of(ansatz: Ansatz, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Trial:
    """The wavefunction before training; it needs no quantum chemistry again."""
    molecule = Molecule(arrays["charges"], arrays["positions"], **header["molecule"])
    found = None
    if "reference" in header:
        numbers: dict[str, Any] = dict(header["reference"])
        angular = tuple(tuple(powers) for powers in numbers.pop("angular"))
        functions: dict[str, Any] = {name: arrays[f"orbitals.{name}"] for name in _ORBITALS}
        orbitals = SlaterOrbitals(angular=angular, **functions)
        parts: dict[str, Any] = {name: arrays[f"reference.{name}"] for name in _DETERMINANTS}
        found = Reference(molecule=molecule, orbitals=orbitals, **parts, **numbers)
    return ansatz.assembled(molecule, found, seed=header["seed"])


def trained_of(trial: Trial, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> Trained:
    """Parameters, walkers and history.

    Raises
    ------
    FormatError
        If the parameters have other shapes than the wavefunction.
    """
    leaves, tree = jax.tree.flatten(trial.parameters)
    found = [arrays[f"parameters.{k}"] for k in range(len(leaves))]
    if [one.shape for one in found] != [np.shape(leaf) for leaf in leaves]:
        raise FormatError(expected("parameters", "the shapes of the ansatz", "others", "copy or save the model again"))
    with double():
        parameters = jax.tree.unflatten(tree, [jnp.asarray(one) for one in found])
        state = State(*(jnp.asarray(arrays[f"state.{name}"]) for name in State._fields))
    history = History(*(arrays[f"history.{field.name}"] for field in fields(History)))
    kept = arrays["snapshots"], arrays["snapshot_steps"]
    return Trained(parameters, state, history, *kept, header["reason"], header["seconds"])
