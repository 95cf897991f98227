"""Trees of JAX arrays as named arrays, and back."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from bayesmol.errors import FormatError, expected

__all__ = ["VERSION", "leaves", "restored"]

VERSION = "3"
"""Of what the arrays of a wavefunction mean: a checkpoint of another one would go on as another function."""


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
