"""State of a training run: weights, optimiser, moving average, best weights; in one file that holds no code."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from bayesmol.errors import FormatError, expected
from bayesmol.files import replacing
from bayesmol.potentials.neural_energy import NeuralEnergy

if TYPE_CHECKING:
    from bayesmol.potentials.training import Training

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class TrainingState:
    """All that a step of training changes."""

    def __init__(self, energy: NeuralEnergy, key: str) -> None:
        self.energy, self.key = energy, key
        self.average, self.best = copy.deepcopy(energy), copy.deepcopy(energy)
        self.optimiser = torch.optim.Adam(energy.parameters(), fused=True)
        self.step, self.unimproved, self.best_score = 0, 0, math.inf

    @classmethod
    def start(cls, energy: NeuralEnergy, schedule: Training, seed: int) -> TrainingState:
        """Before the first step; the key says which training it is."""
        weights = hashlib.sha256(b"".join(v.detach().cpu().numpy().tobytes() for v in energy.state_dict().values()))
        key = json.dumps({"schedule": asdict(schedule), "seed": seed, "weights": weights.hexdigest()}, sort_keys=True)
        return cls(energy, key)

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
        """Write everything under a temporary name, then rename."""
        header = {"key": self.key, "step": self.step, "unimproved": self.unimproved, "best_score": self.best_score}
        arrays = {f"{name}.{k}": v for name, part in self._parts().items() for k, v in part.items()}
        arrays = {name: value.detach().cpu().contiguous().clone() for name, value in arrays.items()}
        data = safetensors.torch.save(arrays, {"training": json.dumps(header)})
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(data)

    def restore(self, path: str | Path) -> None:
        """Go on from a file.

        Raises
        ------
        FormatError
            If the file is damaged or belongs to another training.
        """
        remedy = "give another file, or remove this one to begin anew"
        try:
            with safetensors.safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})["training"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}
        except (safetensors.SafetensorError, KeyError, ValueError, OSError) as error:
            raise FormatError(expected("checkpoint", "a checkpoint of a training", error, remedy)) from error
        if header["key"] != self.key:
            raise FormatError(expected("checkpoint", "the same data, seed and schedule", "another training", remedy))
        for name in ("energy", "average", "best"):
            own = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}
            getattr(self, name).load_state_dict(own)
        self.optimiser.load_state_dict(self._optimiser_state(arrays))
        self.step, self.unimproved, self.best_score = (header[k] for k in ("step", "unimproved", "best_score"))

    def _parts(self) -> dict[str, dict[str, Tensor]]:
        parts: dict[str, dict[str, Tensor]] = {n: getattr(self, n).state_dict() for n in ("energy", "average", "best")}
        moments = self.optimiser.state_dict()["state"]
        parts["optimiser"] = {f"{index}.{name}": own[name] for index, own in moments.items() for name in _MOMENTS}
        return parts

    def _optimiser_state(self, arrays: dict[str, Tensor]) -> dict[str, Any]:
        found = self.optimiser.state_dict()
        for name, value in arrays.items():
            if name.startswith("optimiser."):
                _, index, moment = name.split(".")
                found["state"].setdefault(int(index), {})[moment] = value
        return found
