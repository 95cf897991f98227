"""Fitted scores as a name and arrays, for files; what comes back from a file is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from bayesmol.applicability.scores import FITTED, Score, identity
from bayesmol.errors import BayesmolError, FormatError, expected

__all__ = ["checked_array", "checked_number", "score_from_state", "score_state"]


def score_state(score: Score) -> tuple[str, dict[str, Tensor]]:
    """Name and arrays of a score; any function but the known ones is left out, as ``"function"``."""
    if score is identity:
        return "identity", {}
    name = next((known for known, kind in FITTED.items() if type(score) is kind), "function")
    return name, dict(vars(score)) if name in FITTED else {}


def score_from_state(name: object, arrays: Mapping[str, Tensor], score: Score | None = None) -> Score:
    """Score of a name from its arrays; ``score`` stands for a function, which no file holds.

    Raises
    ------
    FormatError
        If the name is unknown, an array is missing, or one is no finite array.
    """
    if name == "identity":
        return identity
    if name == "function":
        if score is None:
            raise FormatError(expected("score", "the function that scored the rows", name, "give it as score="))
        return score
    if not isinstance(name, str) or name not in FITTED:
        raise FormatError(expected("score", ["identity", "function", *FITTED], name))
    wanted = {field.name for field in fields(FITTED[name])}
    if set(arrays) != wanted:
        raise FormatError(expected(f"arrays of score {name!r}", sorted(wanted), sorted(arrays)))
    parts = {key: checked_array(arrays, key, None) for key in wanted}
    try:
        return FITTED[name](**parts)
    except (BayesmolError, RuntimeError, ValueError, TypeError) as error:
        raise FormatError(expected(f"arrays of score {name!r}", "arrays that fit together", error)) from error


def checked_array(arrays: Mapping[str, Tensor], key: str, dimensions: int | None = 1) -> Tensor:
    """The finite array of that name with that many axes.

    Raises
    ------
    FormatError
        If there is none, or another.
    """
    array = arrays.get(key)
    if not isinstance(array, Tensor):
        raise FormatError(expected("state", f"an array {key!r}", sorted(arrays)))
    if dimensions is not None and array.ndim != dimensions:
        raise FormatError(expected(key, f"{dimensions} axes", tuple(array.shape)))
    if not bool(torch.isfinite(array).all()):
        raise FormatError(expected(key, "finite numbers", "NaN or infinity"))
    return array


def checked_number(header: Mapping[str, Any], key: str, lower: float, upper: float) -> float:
    """The number of that name strictly between the bounds; raises :class:`FormatError` if there is none."""
    value = header.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lower < value < upper:
        raise FormatError(expected(key, f"a number between {lower:g} and {upper:g}", value))
    return value
