"""State of a training in one file: numbers in the header, arrays in safetensors form, never pickle."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from bayesmol.errors import DataError, FormatError, expected
from bayesmol.files import replacing

__all__ = ["leaves", "read_checkpoint", "restored", "write_checkpoint"]

_KEY = "bayesmol_wavefunction_training"
_VERSION = 3  # of the file and of the wavefunctions in it


def write_checkpoint(
    path: str | os.PathLike[str], purpose: dict[str, str], header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> None:
    """Write numbers and arrays; the file appears complete or not at all.

    Parameters
    ----------
    purpose
        What the training was of, such as molecule, settings and seed, each as text; the reader must name the same.
    header
        Anything that JSON can hold.
    """
    owned = {name: np.array(array, order="C") for name, array in arrays.items()}
    content = {"version": _VERSION, "purpose": purpose, "header": header, "digest": _digest(owned)}
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(safetensors.numpy.save(owned, {_KEY: json.dumps(content)}))


def read_checkpoint(
    path: str | os.PathLike[str], purpose: dict[str, str]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What :func:`write_checkpoint` wrote.

    Raises
    ------
    FormatError
        If the file is no checkpoint, of another version, or damaged.
    DataError
        If it was written for another purpose.
    """
    content, arrays = _content(path)
    if content["version"] != _VERSION:
        raise FormatError(expected("checkpoint", f"version {_VERSION}", content["version"], "remove the file"))
    for name, text in purpose.items():
        if (found := content["purpose"].get(name)) != text:
            raise DataError(expected("checkpoint", f"a training of {name} {text}", found, "give another file"))
    if content["digest"] != _digest(arrays):
        raise FormatError(expected("checkpoint", "the arrays that were written", "other ones", "remove the file"))
    return content["header"], arrays


def _content(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with safetensors.safe_open(Path(path), "np") as file:
            content = json.loads((file.metadata() or {})[_KEY])
            arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}
        return {key: content[key] for key in ("version", "purpose", "header", "digest")}, arrays
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(expected("checkpoint", "a file of a training", repr(error), "remove the file")) from error


def leaves(name: str, tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree, called ``name.0``, ``name.1``, … in its order."""
    return {f"{name}.{place}": np.asarray(leaf) for place, leaf in enumerate(jax.tree.leaves(tree))}


def restored(name: str, tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A tree of the form of ``tree`` with the arrays that :func:`leaves` named.

    Raises
    ------
    FormatError
        If an array is missing or has another shape or type.
    """
    known, structure = jax.tree.flatten(tree)
    found = [arrays.get(f"{name}.{place}") for place in range(len(known))]
    for like, array in zip(known, found, strict=True):
        if array is None or array.shape != like.shape or array.dtype != like.dtype:
            got = "none" if array is None else f"{array.shape}, {array.dtype}"
            raise FormatError(expected(f"checkpoint, {name}", f"{like.shape}, {like.dtype}", got, "remove the file"))
    return jax.tree.unflatten(structure, [jax.numpy.asarray(array) for array in found])


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and bytes: the format itself notices a cut file, but no flipped bit."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()
