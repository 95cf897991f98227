"""Core sets: a state is left only when the core of another one is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.elimination import checked_sets
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["CoreSets", "Milestones", "cores_of", "last_core"]


def last_core(sequence: Int[Tensor, " frames"], cores: Sequence[Sequence[int] | Tensor]) -> Int[Tensor, " frames"]:
    """Index of the core that was visited last at each frame; −1 before the first visit of any.

    Raises
    ------
    ShapeError, DataError
        If the sequence is not one of states, a core is empty, or two overlap.

    References
    ----------
    Buchete, Hummer, J. Phys. Chem. B 112, 6057 (2008); Schütte, Noé, Lu, Sarich, Vanden-Eijnden, J. Chem. Phys. 134,
    204105 (2011), section II.
    """
    if sequence.ndim != 1 or sequence.is_floating_point() or sequence.dtype == torch.bool or len(sequence) == 0:
        raise ShapeError(expected("sequence", "indices of states (frames,)", tuple(sequence.shape)))
    states = 1 + max(int(sequence.max()), *(int(torch.as_tensor(c).max()) if len(c) else 0 for c in cores), 0)
    members = checked_sets(states, **{f"cores[{k}]": core for k, core in enumerate(cores)})
    owner = torch.full((states,), -1, dtype=torch.long)
    for k, core in enumerate(members):
        owner[core] = k
    inside = owner.to(sequence.device)[sequence]
    frames = torch.arange(len(sequence), device=sequence.device)
    latest = torch.where(inside >= 0, frames, -1).cummax(0).values
    return torch.where(latest >= 0, inside[latest.clamp(min=0)], -1)


def cores_of(memberships: Float[Tensor, "states macrostates"], *, threshold: float = 0.9) -> list[list[int]]:
    """States of each core: those that belong to the macrostate by at least ``threshold``.

    Raises
    ------
    DataError
        If the threshold does not exceed one half, or a macrostate has no such state.
    """
    if not 0.5 < threshold <= 1:
        raise DataError(expected("threshold", "a membership in (0.5, 1]", threshold))
    cores = [(column >= threshold).nonzero().flatten().tolist() for column in memberships.T]
    if not all(cores):
        got = f"none in macrostate {cores.index([])}"
        raise DataError(expected("threshold", "one that every macrostate reaches", got, "lower it"))
    return cores


@dataclass(frozen=True, eq=False)
class Milestones:
    """Trajectories of the core visited last.

    Attributes
    ----------
    trajectories
        Of core indices, each from its first visit of a core on.
    dropped
        Frames before these visits, and those of trajectories without one.
    """

    trajectories: Trajectories
    dropped: int


@dataclass(frozen=True)
class CoreSets:
    """Milestoning by ``cores``, sets of states that do not overlap and need not hold every state.

    Leaving a core for a moment is no transition, so that fast recrossings of a barrier do not count.
    """

    cores: Sequence[Sequence[int]]

    def assign(self, trajectories: Any) -> Milestones:
        """The core visited last at each frame from the first visit on.

        Raises
        ------
        ShapeError, DataError
            If the trajectories are not of states, a core is empty or never visited, or two overlap.
        """
        data = Trajectories.of(trajectories)
        if not data.discrete:
            raise ShapeError(expected("trajectories", "indices of states", "features", "discretise them first"))
        labels = [last_core(part, self.cores) for part in data]
        kept = tuple(part for part in (label[label >= 0] for label in labels) if len(part))
        visited = set(torch.cat(kept).unique().tolist()) if kept else set()
        missing = sorted(set(range(len(self.cores))) - visited)
        if missing:
            raise DataError(expected("cores", "cores that are visited", f"no visit of {missing}", "leave them out"))
        return Milestones(replace(data, parts=kept), data.frames - sum(map(len, kept)))
