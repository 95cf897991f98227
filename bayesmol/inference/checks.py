"""What a verdict rests on: checks, each a number with a limit, a level and a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Check", "worst"]

Level = TypeVar("Level", bound=str)


@dataclass(frozen=True)
class Check(Generic[Level]):
    """Outcome of one check.

    Attributes
    ----------
    name
        What was checked.
    value, limit
        The number, and the limit beyond which it is not well.
    level
        What follows.
    sentence
        Why, in words.
    """

    name: str
    value: float
    limit: float
    level: Level
    sentence: str

    def content(self) -> dict[str, Any]:
        """As plain values; numbers that are not finite as ``None``."""
        numbers = {"value": self.value, "limit": self.limit}
        finite = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        return {"name": self.name, **finite, "level": self.level, "sentence": self.sentence}


def worst(checks: Iterable[Check[Level]], order: Sequence[Level]) -> Level:
    """The worst level, in an order from the best to the worst; the best of no checks."""
    return max((check.level for check in checks), key=order.index, default=order[0])
