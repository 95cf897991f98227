"""States of long computations in one file each: numbers in a header, arrays in safetensors form, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from torch import Tensor

from bayesmol.errors import DataError, FormatError, expected
from bayesmol.files import replacing

__all__ = [
    "flattened",
    "grouped",
    "moments",
    "read_checkpoint",
    "read_tensors",
    "set_moments",
    "write_checkpoint",
    "write_tensors",
]

_KEY, _DIGEST = "bayesmol_checkpoint", "sha256"
_REMEDY = "remove the file to begin anew"


def write_checkpoint(
    path: str | os.PathLike[str],
    purpose: Mapping[str, str],
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Write numbers and arrays; the file appears complete or not at all.

    Parameters
    ----------
    purpose
        What the state is of, such as data, settings and seed, each as text; the reader must name the same.
    header
        Anything that JSON can hold.
    """
    owned = {name: np.array(array, order="C") for name, array in arrays.items()}
    text = json.dumps({"purpose": dict(purpose), "header": dict(header)})
    data = safetensors.numpy.save(owned, {_KEY: text, _DIGEST: _digest(text, owned)})
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(data)


def read_checkpoint(
    path: str | os.PathLike[str], purpose: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays that :func:`write_checkpoint` wrote.

    Raises
    ------
    FormatError
        If the file is no checkpoint, or damaged.
    DataError
        If it was written for another purpose.
    """
    text, arrays = _content(Path(path))
    content = json.loads(text)
    for name, wanted in purpose.items():
        if (found := content["purpose"].get(name)) != wanted:
            remedy = f"give another file, or {_REMEDY}"
            raise DataError(expected(f"checkpoint {path}", f"a state of {name} {wanted}", found, remedy))
    return content["header"], arrays


def write_tensors(
    path: str | os.PathLike[str],
    purpose: Mapping[str, str],
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    """:func:`write_checkpoint` of tensors on any device."""
    write_checkpoint(path, purpose, header, {name: one.detach().cpu().numpy() for name, one in tensors.items()})


def read_tensors(path: str | os.PathLike[str], purpose: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """:func:`read_checkpoint` of tensors, on the CPU."""
    header, arrays = read_checkpoint(path, purpose)
    # Copies in memory of torch, because arithmetic may round by the alignment of its operands.
    return header, {name: torch.tensor(array) for name, array in arrays.items()}


def flattened(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """One dictionary from named ones; names are joined by dots, empty groups vanish."""
    return {f"{name}.{key}": value for name, group in groups.items() for key, value in group.items()}


def grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Inverse of :func:`flattened`; the name of a group has no dot."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        group, _, key = name.partition(".")
        groups.setdefault(group, {})[key] = value
    return groups


def moments(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments and step counts of all weights."""
    return flattened({str(place): entry for place, entry in optimiser.state_dict()["state"].items()})


def set_moments(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what :func:`moments` gave."""
    entries = {int(place): entry for place, entry in grouped(tensors).items()}
    optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})


def _content(path: Path) -> tuple[str, dict[str, np.ndarray]]:
    """Text and arrays of a file whose digest is right: the format itself notices a cut file, but no flipped bit."""
    try:
        with safetensors.safe_open(path, "np") as file:
            stored = file.metadata() or {}
            text, digest = stored[_KEY], stored[_DIGEST]
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise FormatError(expected(f"checkpoint {path}", "a state of a computation", repr(error), _REMEDY)) from error
    if digest != _digest(text, arrays):
        raise FormatError(expected(f"checkpoint {path}", "what was written", "something else", _REMEDY))
    return text, arrays


def _digest(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of the text, and of names, types, shapes and bytes of the arrays."""
    total = hashlib.sha256(text.encode())
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()
