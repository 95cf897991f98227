"""Trajectories: frames of features in the order of time, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Trajectories"]


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Independent trajectories of one system.

    Attributes
    ----------
    parts
        One tensor a trajectory: features (frames, features) in 64 bits, or indices of states (frames,) as integers.
    time_step
        Between two frames, in ``unit``.
    unit
        Of time; ``"frames"`` if the step is not known.

    Raises
    ------
    ShapeError, DataError
        If there is no trajectory, the features of two differ, a number is not finite, or an index is negative.
    """

    parts: tuple[Tensor, ...]
    time_step: float = 1.0
    unit: str = "frames"

    def __post_init__(self) -> None:
        if not self.parts:
            raise DataError(expected("trajectories", "at least one", 0))
        if not 0 < self.time_step < math.inf:
            raise DataError(expected("time_step", f"a positive number of {self.unit}", self.time_step))
        for k, part in enumerate(self.parts):
            _check(k, part, self.parts[0])

    @classmethod
    def of(cls, data: Any, *, time_step: float = 1.0, unit: str = "frames") -> Trajectories:
        """Trajectories of one array, of several in a list, or as they are.

        A row of numbers is one feature; integers are states.
        """
        if isinstance(data, cls):
            return data
        several = isinstance(data, Sequence) and len(data) > 0 and not _number(data[0])
        return cls(tuple(_part(one) for one in (data if several else [data])), time_step, unit)

    @property
    def discrete(self) -> bool:
        """Whether the frames are indices of states."""
        return self.parts[0].ndim == 1

    @property
    def frames(self) -> int:
        """Number of frames of all trajectories."""
        return sum(len(part) for part in self.parts)

    @property
    def lengths(self) -> list[int]:
        """Number of frames of each."""
        return [len(part) for part in self.parts]

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)

    def mapped(self, function: Any) -> Trajectories:
        """The trajectories of ``function`` of the frames, such as the states they are in."""
        return replace(self, parts=tuple(function(part) for part in self.parts))

    def time(self, frames: float) -> float:
        """So many frames, in ``unit``."""
        return frames * self.time_step


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) or getattr(value, "ndim", None) == 0


def _part(values: Any) -> Tensor:
    part = torch.as_tensor(values)
    if part.is_complex() or part.dtype == torch.bool:
        raise DataError(expected("trajectories", "real numbers, or indices of states", part.dtype))
    if part.is_floating_point():
        return (part[:, None] if part.ndim == 1 else part).double()
    return part.long() if part.ndim == 1 else part.double()


def _check(k: int, part: Tensor, first: Tensor) -> None:
    if part.ndim not in (1, 2) or 0 in part.shape:
        raise ShapeError(expected(f"trajectory {k}", "(frames, features), none empty", tuple(part.shape)))
    if part.shape[1:] != first.shape[1:] or part.dtype != first.dtype:
        wanted = f"frames of shape {tuple(first.shape[1:])} as in the first"
        raise ShapeError(expected(f"trajectory {k}", wanted, tuple(part.shape)))
    if part.ndim == 1 and (part.is_floating_point() or int(part.min()) < 0):
        raise DataError(expected(f"trajectory {k}", "indices of states from 0 on", "others"))
    if part.ndim == 2 and not bool(torch.isfinite(part).all()):
        bad = int((~torch.isfinite(part)).any(1).nonzero()[0])
        raise DataError(expected(f"trajectory {k}", "finite numbers", f"NaN or infinity in frame {bad}"))
