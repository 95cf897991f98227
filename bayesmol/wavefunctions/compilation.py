"""Compilation once for all molecules that differ only in numbers: a curve costs little more than a point."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

__all__ = ["shared"]

_MOST = 32  # compiled functions that are kept


def shared(function: Callable[..., Any], *fixed: Any) -> Callable[..., Any]:
    """``function`` with its first arguments fixed, compiled.

    What was compiled is used again for all fixed arguments that differ only in the values of the arrays in them: of two
    geometries of a molecule, positions and orbitals are such arrays. All else, functions and settings, must be
    hashable, and another value of it compiles anew.

    Parameters
    ----------
    function
        Not a lambda or another function that is made for the call: those are never the same.
    fixed
        Trees, as JAX has them.
    """
    leaves, tree = jax.tree.flatten(fixed)
    places = tuple(k for k, leaf in enumerate(leaves) if isinstance(leaf, (np.ndarray, jax.Array)))
    others = tuple(None if k in places else leaf for k, leaf in enumerate(leaves))
    return partial(_compiled(function, tree, places, others), [leaves[k] for k in places])


@lru_cache(maxsize=_MOST)
def _compiled(
    function: Callable[..., Any], tree: Hashable, places: tuple[int, ...], others: tuple[Any, ...]
) -> Callable[..., Any]:
    def whole(arrays: list[Any], *arguments: Any) -> Any:
        leaves = list(others)
        for place, array in zip(places, arrays, strict=True):
            leaves[place] = array
        return function(*jax.tree.unflatten(tree, leaves), *arguments)

    return jax.jit(whole)
