"""The training loop of all networks: schedule, average of the weights, early stopping, checkpoints that resume."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.training_loss import Loss, error_loss
from bayesmol.potentials.training_state import TrainingState
from bayesmol.progress import progress
from bayesmol.representation.design import Design


@dataclass(frozen=True)
class Training:
    """How a network is trained: Adam on random batches, a warm-up, then a cosine down to nothing.

    Attributes
    ----------
    epochs
        Passes through the training structures.
    batch
        Structures in a step.
    rate
        Largest learning rate.
    energy_weight
        Weight of the error of an energy, for each atom, beside that of a force; the two have one unit of length.
    clip
        Largest norm of a gradient.
    decay
        Of the moving average of the weights, which is what is validated and kept.
    checks
        Number of validations; the best average is kept.
    patience
        Validations without an improvement after which training ends.

    Raises
    ------
    DataError
        If a number is not positive, or ``decay`` not below 1.
    """

    epochs: int = 200
    batch: int = 5
    rate: float = 0.01
    energy_weight: float = 1.0
    clip: float = 10.0
    decay: float = 0.995
    checks: int = 40
    patience: int = 20

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "rate", "clip", "checks", "patience"):
            if not getattr(self, name) > 0:
                raise DataError(expected(name, "a positive number", getattr(self, name)))
        if not (0 <= self.decay < 1 and self.energy_weight >= 0):
            got = f"decay {self.decay}, energy_weight {self.energy_weight}"
            raise DataError(expected("training", "0 <= decay < 1 and energy_weight >= 0", got))

    def steps(self, structures: int) -> int:
        """Number of steps for so many training structures."""
        return self.epochs * math.ceil(structures / self.batch)

    def rate_at(self, step: int, steps: int) -> float:
        """Learning rate of a step: a twentieth of the steps up, the others down a cosine."""
        warm = max(1, steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        return 0.5 * self.rate * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def trained(
    energy: NeuralEnergy,
    data: Batch,
    validation: Batch,
    schedule: Training,
    *,
    seed: int,
    loss: Loss | None = None,
    checkpoint: str | Path | None = None,
) -> NeuralEnergy:
    """A copy of an energy, trained; its weights are the moving average that validated best.

    Parameters
    ----------
    checkpoint
        File that is written at each validation. If it is there already, training goes on from it to the same weights.

    Raises
    ------
    ConvergenceError
        If the loss is not finite.
    FormatError
        If the checkpoint is of another training.
    """
    loss = loss or error_loss(schedule.energy_weight)
    steps = schedule.steps(len(data))
    state = TrainingState.start(copy.deepcopy(energy), schedule, seed)
    if checkpoint is not None and Path(checkpoint).exists():
        state.restore(checkpoint)
    every = max(1, steps // schedule.checks)
    with progress("training", steps) as advance:
        advance(state.step)
        while state.step < steps and state.unimproved < schedule.patience:
            found = _step(state, data, loss, schedule, steps, seed)
            advance(note=f"loss {found:.4f}, validation {state.best_score:.4f}")
            if state.step % every == 0 or state.step == steps:
                state.judge(score(state.average, validation, loss))
                if checkpoint is not None:
                    state.save(checkpoint)
    return state.best


def _step(state: TrainingState, data: Batch, loss: Loss, schedule: Training, steps: int, seed: int) -> float:
    """One step down the loss of the next batch; returns that loss."""
    batch = data[_batch(state.step, len(data), schedule.batch, seed).to(data.counts.device)]
    value = loss(_outputs(state.energy, batch, graph=True), batch)
    if not bool(torch.isfinite(value)):
        remedy = "lower the rate, or look for labels that are wrong"
        raise ConvergenceError(
            expected("loss", "a finite number", f"{float(value.detach())} in step {state.step}", remedy)
        )
    state.optimiser.zero_grad()
    value.backward()
    torch.nn.utils.clip_grad_norm_(state.energy.parameters(), schedule.clip)
    for group in state.optimiser.param_groups:
        group["lr"] = schedule.rate_at(state.step, steps)
    state.optimiser.step()
    state.advance(schedule.decay)
    return float(value.detach())


def _batch(step: int, structures: int, size: int, seed: int) -> Tensor:
    """Structures of a step: each epoch has its own order, which depends on the seed alone."""
    epoch, position = divmod(step, math.ceil(structures / size))
    source = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
    return torch.randperm(structures, generator=source)[position * size : (position + 1) * size]


def _outputs(energy: NeuralEnergy, batch: Batch, *, graph: bool) -> Design:
    forces, virial = bool(batch.has_forces.any()), bool(batch.has_virials.any())
    return energy(batch.environment, forces=forces, virial=virial, graph=graph)


def score(energy: NeuralEnergy, data: Batch, loss: Loss, *, size: int = 32) -> float:
    """Mean loss of all structures."""
    parts = torch.arange(len(data), device=data.counts.device).split(size)
    total = sum(
        float(loss(_outputs(energy, data[part], graph=False), data[part]).detach()) * len(part) for part in parts
    )
    return total / len(data)
