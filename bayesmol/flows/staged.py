"""Objectives one after the other: from samples first, from the energy then."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.flow import Flow
from bayesmol.flows.proposal import Target
from bayesmol.flows.training import Training
from bayesmol.inference.random import generator, integer_seed

__all__ = ["InTurn"]


@dataclass(frozen=True)
class InTurn:
    """Training by several objectives, each of which goes on where the one before has ended.

    Samples lead a flow near its density quickly and keep it at all modes, but no better than they are many; the energy
    then improves it without limit.

    Attributes
    ----------
    objectives
        In their order.

    Raises
    ------
    DataError
        If there are none.
    """

    objectives: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.objectives:
            raise DataError(expected("objectives", "at least one", "none"))

    def fit(
        self,
        flow: Flow,
        target: Target,
        samples: Float[Tensor, "points dimension"] | None = None,
        *,
        seed: int | torch.Generator,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Training:
        """Fit the parameters in place; each objective keeps a checkpoint of its own, named by its number."""
        source = generator(seed, next(flow.parameters()).device)
        found = []
        for i, objective in enumerate(self.objectives):
            # One number each, so that a stage that is read from its checkpoint leaves the others as they were.
            path = None if checkpoint is None else Path(f"{os.fspath(checkpoint)}.{i}")
            found.append(objective.fit(flow, target, samples, seed=integer_seed(source), checkpoint=path))
        return _together(found)


def _together(parts: list[Training]) -> Training:
    """One record: steps go on counting."""
    done, moved = 0, []
    for part in parts:
        histories = {
            name: tuple((step + done, value) for step, value in getattr(part, name))
            for name in ("loss", "reverse_ess", "forward_ess")
        }
        moved.append(replace(part, **histories))
        done += part.steps
    first, *others = moved
    for part in others:
        first = Training(
            first.steps + part.steps,
            first.energy_evaluations + part.energy_evaluations,
            part.reason,
            first.loss + part.loss,
            first.reverse_ess + part.reverse_ess,
            first.forward_ess + part.forward_ess,
            first.skipped + part.skipped,
            first.cpu_seconds + part.cpu_seconds,
            (*first.notes, *part.notes),
        )
    return first
