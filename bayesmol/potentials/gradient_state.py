"""What a model file holds of a Gaussian process: its labels and hyper-parameters, not its solution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bayesmol.data import Labelled, Source, Structures
from bayesmol.errors import FormatError, expected

if TYPE_CHECKING:
    from bayesmol.potentials.gradient_posterior import GradientGPPotential

_LABELS = ("energies", "forces", "energy_errors", "force_errors", "has_forces")
_NUMBERS = ("amplitude", "noise_energy", "noise_force", "exact_rows", "preconditioner_rows")
_TENSORS = ("order", "permutations", "kinds", "length_scales")


def state(potential: GradientGPPotential) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON header and arrays that :func:`parts` reads back."""
    training = potential.training
    arrays = {name: getattr(potential, name) for name in _TENSORS}
    arrays |= {"positions": training.structures.positions, "species": training.structures.species}
    arrays |= {name: value for name in _LABELS if (value := getattr(training, name)) is not None}
    source = None if training.source is None else vars(training.source)
    return {name: getattr(potential, name) for name in _NUMBERS} | {"source": source}, arrays


def parts(header: dict[str, Any], arrays: dict[str, Tensor]) -> dict[str, Any]:
    """Fields of the potential from :func:`state`; raises :class:`FormatError` if an entry is missing."""
    wanted = {*_NUMBERS, *_TENSORS, "positions", "species", "has_forces"}
    if missing := wanted - header.keys() - arrays.keys():
        raise FormatError(expected("state", f"the entries {sorted(missing)}", "none of them"))
    atoms = arrays["order"].shape[1]
    pointer = torch.arange(0, len(arrays["species"]) + 1, atoms, device=arrays["species"].device)
    free = arrays["positions"].new_zeros(len(pointer) - 1, 3, 3)
    structures = Structures(arrays["positions"], arrays["species"], pointer, free, free[:, 0].bool())
    labels = {name: arrays[name] for name in _LABELS if name in arrays}
    source = None if header.get("source") is None else Source(**header["source"])
    found = {"training": Labelled(structures, **labels, source=source)}
    return found | {name: arrays[name] for name in _TENSORS} | {name: header[name] for name in _NUMBERS}
