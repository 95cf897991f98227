"""Springs between all atoms of ethanol: a reference that costs nothing, and a potential that learns it in a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

import bayesmol as bm
from bayesmol.data import Source, Structures
from bayesmol.data.labelling import Frame, Reference, Result
from bayesmol.potentials import BayesianACE
from bayesmol.potentials.ace_learning import MixingSchedule

TINY = BayesianACE(cutoffs=(5.0,), channels=(4, 4, 2), mixing=MixingSchedule(steps=0))


@dataclass(frozen=True)
class Springs(Reference):
    """Harmonic in all distances; a structure with an atom beyond ``limit`` Å of its centre fails."""

    stiffness: float = 0.5
    limit: float = 10.0
    library = "ase"

    @property
    def source(self):
        return Source("springs", "CC0-1.0", "none", "")

    def calculation(self):
        rest = bm.data.load("rmd17/ethanol")[0].structures.positions.numpy()
        lengths = np.linalg.norm(rest[:, None] - rest[None], axis=-1)

        def calculate(frame: Frame) -> Result:
            if np.abs(frame.positions - frame.positions.mean(0)).max() > self.limit:
                raise RuntimeError("the molecule has come apart")
            between = frame.positions[:, None] - frame.positions[None]
            distance = np.linalg.norm(between, axis=-1) + np.eye(len(between))
            stretch = distance - lengths - np.eye(len(between))
            forces = -2 * self.stiffness * (stretch / distance)[:, :, None] * between
            return Result(float(0.5 * self.stiffness * (stretch**2).sum()), forces.sum(1))

        return calculate


def pool(size: int, *, width: float = 0.06, seed: int = 0) -> Structures:
    """Ethanol, each atom displaced."""
    first = bm.data.load("rmd17/ethanol")[0].structures
    source = torch.Generator().manual_seed(seed)
    many = Structures.concatenate([first] * size)
    noise = width * torch.randn(many.positions.shape, generator=source, dtype=torch.float64)
    return Structures(many.positions + noise, many.species, many.pointer, many.cell, many.pbc)
