"""Interval: where a quantity lies with a stated probability, and the sentence that guarantees it."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Interval", "checked_level"]


def checked_level(level: float) -> float:
    """``level`` itself; raises :class:`DataError` unless it lies strictly between 0 and 1."""
    if not 0.0 < float(level) < 1.0:
        raise DataError(expected("level", "a probability strictly between 0 and 1", level))
    return float(level)


@dataclass(frozen=True)
class Interval:
    """Elementwise interval ``[lower, upper]`` that holds the truth with probability ``level``.

    Attributes
    ----------
    lower, upper
        Ends, in ``unit``; infinite where the data cannot give the level.
    level
        Probability, strictly between 0 and 1.
    guarantee
        The sentence that holds: under which assumption, for which average, the level is true.

    Raises
    ------
    ShapeError, DataError
        If the ends differ in shape, an end is NaN, or a lower end exceeds its upper end.
    """

    lower: Float[Tensor, "*shape"]
    upper: Float[Tensor, "*shape"]
    level: float
    unit: str
    guarantee: str

    def __post_init__(self) -> None:
        checked_level(self.level)
        if self.lower.shape != self.upper.shape:
            raise ShapeError(expected("upper", f"shape {tuple(self.lower.shape)}", tuple(self.upper.shape)))
        if not bool((self.lower <= self.upper).all()):
            raise DataError(expected("upper", "upper ≥ lower everywhere and no NaN", "a crossed or undefined interval"))

    @property
    def width(self) -> Float[Tensor, "*shape"]:
        """Length of the interval, in ``unit``."""
        return self.upper - self.lower

    def contains(self, value: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Whether each entry of ``value``, in ``unit``, lies inside; the ends belong to the interval."""
        if value.shape != self.lower.shape:
            raise ShapeError(expected("value", f"shape {tuple(self.lower.shape)}", tuple(value.shape)))
        if bool(torch.isnan(value).any()):
            raise DataError(expected("value", "numbers", "NaN", "remove the entries without a label first"))
        return (self.lower <= value) & (value <= self.upper)

    def covered(self, value: Float[Tensor, "*shape"]) -> float:
        """Fraction of the entries of ``value`` that lie inside."""
        return float(self.contains(value).double().mean())

    def __str__(self) -> str:
        return f"{100 * self.level:g} % interval of shape {tuple(self.lower.shape)} in {self.unit} ({self.guarantee})"
