"""State of a training run: weights, optimiser, moving average, best weights; in one file that holds no code."""

from __future__ import annotations

import copy
import hashlib
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bayesmol.checkpoints import flattened, grouped, moments, read_tensors, set_moments, write_tensors
from bayesmol.potentials.neural_energy import NeuralEnergy

if TYPE_CHECKING:
    from bayesmol.potentials.training import Training

_WEIGHTS = ("energy", "average", "best")


class TrainingState:
    """All that a step of training changes."""

    def __init__(self, energy: NeuralEnergy, purpose: dict[str, str]) -> None:
        self.energy, self.purpose = energy, purpose
        self.average, self.best = copy.deepcopy(energy), copy.deepcopy(energy)
        self.optimiser = torch.optim.Adam(energy.parameters(), fused=True)
        self.step, self.unimproved, self.best_score = 0, 0, math.inf

    @classmethod
    def start(cls, energy: NeuralEnergy, schedule: Training, seed: int) -> TrainingState:
        """Before the first step; the purpose says which training it is."""
        weights = hashlib.sha256(b"".join(v.detach().cpu().numpy().tobytes() for v in energy.state_dict().values()))
        return cls(energy, {"schedule": repr(schedule), "seed": str(seed), "first weights": weights.hexdigest()})

    def advance(self, decay: float) -> None:
        """Count a step and move the average; it forgets the start as fast as it can."""
        self.step += 1
        weight = max(1 - decay, 1 / self.step)
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.energy.parameters(), strict=True)
            averages, current = map(list, zip(*pairs, strict=True))
            torch._foreach_lerp_(averages, current, weight)

    def judge(self, score: float) -> None:
        """Keep the average if it is the best so far."""
        if score < self.best_score:
            self.best.load_state_dict(self.average.state_dict())
            self.best_score, self.unimproved = score, 0
        else:
            self.unimproved += 1

    def save(self, path: str | Path) -> None:
        """Write everything; the file appears complete or not at all."""
        header = {"step": self.step, "unimproved": self.unimproved, "best_score": self.best_score}
        groups = {name: getattr(self, name).state_dict() for name in _WEIGHTS} | {"adam": moments(self.optimiser)}
        write_tensors(path, self.purpose, header, flattened(groups))

    def restore(self, path: str | Path) -> None:
        """Go on from a file.

        Raises
        ------
        FormatError, DataError
            If the file is damaged, or belongs to another training.
        """
        header, tensors = read_tensors(path, self.purpose)
        groups = grouped(tensors)
        for name in _WEIGHTS:
            getattr(self, name).load_state_dict(groups[name])
        set_moments(self.optimiser, groups.get("adam", {}))
        self.step, self.unimproved, self.best_score = (header[k] for k in ("step", "unimproved", "best_score"))
