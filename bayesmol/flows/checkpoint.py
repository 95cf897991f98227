"""State of a training in one file: numbers in the header, tensors in safetensors form, never pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bayesmol.errors import FormatError, expected
from bayesmol.files import replacing

__all__ = ["flattened", "grouped", "moments", "read_checkpoint", "set_moments", "write_checkpoint"]

_KEY = "bayesmol_training"


def write_checkpoint(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write numbers and tensors; the file appears complete or not at all."""
    # A copy each: safetensors refuses views that share memory.
    arrays = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(arrays, {_KEY: json.dumps(header)}))


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What :func:`write_checkpoint` wrote.

    Raises
    ------
    FormatError
        If the file is no checkpoint, or damaged.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            # Copies, because arithmetic may round by the alignment of its operands, and slices of a file have any.
            return header, {name: file.get_tensor(name).clone() for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise FormatError(expected("checkpoint", "a file of a training", repr(error), "remove the file")) from error


def flattened(groups: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """One dictionary from named ones; names are joined by dots, empty groups vanish."""
    return {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items()}


def grouped(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Inverse of :func:`flattened`; the name of a group has no dot."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, _, key = name.partition(".")
        groups.setdefault(group, {})[key] = value
    return groups


def moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of all weights."""
    return flattened({str(place): entry for place, entry in optimiser.state_dict()["state"].items()})


def set_moments(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take over what :func:`moments` gave."""
    entries = {int(place): entry for place, entry in grouped(tensors).items()}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})
