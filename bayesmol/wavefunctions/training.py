"""Minimisation of the energy: walkers move, local energies and scores are taken, the parameters step."""

from __future__ import annotations

import math
import os
import time
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Int

from bayesmol.checkpoints import read_checkpoint, write_checkpoint
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import integer_seed
from bayesmol.progress import progress
from bayesmol.wavefunctions.history import History, note, stalled
from bayesmol.wavefunctions.local_energy import System
from bayesmol.wavefunctions.optimise import Optimiser, Spring
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training_step import Learning, compiled
from bayesmol.wavefunctions.trees import VERSION, leaves, restored
from bayesmol.wavefunctions.walkers import MALA, Sampler, State, start

if TYPE_CHECKING:
    from bayesmol.wavefunctions.ansatz import Trial

__all__ = ["Trained", "Training", "train"]

_FEW = 100  # steps that hardly train anything: the minutes went into compilation


@dataclass(frozen=True)
class Training:
    r"""How the energy is minimised.

    Neither the schedule of the rate nor anything else depends on the budget, so a training that goes on from its
    checkpoint with a larger budget is the one that had this budget from the start.

    Attributes
    ----------
    walkers
        Number of configurations.
    rate, decay
        The rate of step t is :math:`\eta / (1 + t / t_0)`.
    moves
        Moves of the walkers between two steps.
    burn_in
        Moves before the first step, and after the last one with the averaged parameters.
    minutes, steps
        Budget: wall time with compilation, and steps; whichever ends first, ``None`` for no limit. With steps alone
        the same seed gives the same result to the last bit.
    clip
        Width in :func:`~bayesmol.wavefunctions.optimise.clipped`.
    oldest
        A walker that has not moved for so many moves takes the place of another one, as one without a finite energy
        does. That is biased, and done in training only.
    average
        Longest memory, in steps, of the average of the parameters that is returned; it is a tenth of the steps before.
    snapshots
        Vectors of parameters that are kept, evenly from the second half of the steps.
    window
        Training ends early when the mean energy of so many steps is not below that of the same number before by more
        than its standard error, and the median of the variance not by more than 1 %; ``None`` to use the budget up.
    skips
        Steps in a row without a finite energy or update, at which training fails.
    """

    walkers: int = 256
    optimiser: Optimiser = field(default_factory=Spring)
    sampler: Sampler = field(default_factory=MALA)
    rate: float = 0.2
    decay: float = 300.0
    moves: int = 10
    burn_in: int = 500
    minutes: float | None = 3.0
    steps: int | None = None
    clip: float = 10.0
    oldest: int = 100
    average: int = 300
    snapshots: int = 8
    window: int | None = 1000
    skips: int = 10

    def __post_init__(self) -> None:
        counts = ("walkers", "moves", "burn_in", "oldest", "average", "snapshots", "skips")
        if wrong := [name for name in counts if getattr(self, name) < 1]:
            raise DataError(expected(", ".join(wrong), "positive counts", [getattr(self, name) for name in wrong]))
        if wrong := [name for name in ("rate", "decay", "clip") if not 0 < getattr(self, name) < math.inf]:
            raise DataError(expected(", ".join(wrong), "positive numbers", [getattr(self, name) for name in wrong]))
        if self.walkers < 2:
            raise DataError(expected("walkers", "at least 2, for a variance", self.walkers))
        if self.window is not None and self.window < 10 * max(2, self.skips):
            raise DataError(expected("window", "at least 20 and ten times the skips, or None", self.window))
        if self.minutes is None and self.steps is None:
            raise DataError(expected("minutes, steps", "a budget", "None", "give one of them"))
        if (self.minutes is not None and not self.minutes > 0) or (self.steps is not None and self.steps < 1):
            raise DataError(expected("minutes, steps", "positive", (self.minutes, self.steps)))


@dataclass(frozen=True, eq=False)
class Trained:
    """A minimised wavefunction.

    Attributes
    ----------
    parameters
        Average of the last parameters, a tree like the first ones.
    state
        Walkers after the burn-in with these parameters, their step adapted.
    snapshots, snapshot_steps
        Flat vectors of parameters (as ``ravel_pytree`` makes them), and the steps after which they were taken.
    reason
        Why training ended.
    seconds
        Wall time of all parts of the training, with compilation.
    """

    parameters: Any
    state: State
    history: History
    snapshots: Float[np.ndarray, "snapshots parameters"]
    snapshot_steps: Int[np.ndarray, " snapshots"]
    reason: str
    seconds: float

    @property
    def walkers(self) -> Float[np.ndarray, "walkers electrons 3"]:
        """Configurations of the walkers in bohr."""
        return np.asarray(self.state.r)


def train(
    trial: Trial,
    molecule: System,
    settings: Training,
    *,
    seed: int | torch.Generator,
    minutes: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: float = 60.0,
) -> Trained:
    """Minimise the energy of ``trial`` from its parameters.

    Parameters
    ----------
    minutes
        In place of those of the settings.
    checkpoint
        File in which the state is kept, every ``every`` seconds and at the end; where it exists, training goes on
        from it, bit by bit as if it had not been interrupted.

    Raises
    ------
    ConvergenceError
        If too many steps in a row are not finite.
    DataError, FormatError
        If the parameters are not finite numbers, or the checkpoint is of another training, damaged, or has no folder.

    Warns
    -----
    UserWarning
        If the minutes ended after less than a hundred steps.
    """
    clock = time.monotonic()
    settings = settings if minutes is None else replace(settings, minutes=minutes)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise DataError(expected("checkpoint", "a file in a folder that exists", str(path), "make the folder"))
    with double():
        loop = _Loop(trial, molecule, settings, integer_seed(seed), clock)
        if path is not None and path.exists():
            loop.resume(path)
        else:
            loop.begin()
        return loop.run(path, every)


class _Loop:
    """The state of a training and its moves."""

    def __init__(self, trial: Trial, molecule: System, settings: Training, seed: int, clock: float) -> None:
        self.first = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), trial.parameters)
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(self.first)):
            raise DataError(expected("parameters", "finite numbers", "others"))
        self.log_psi, self.molecule, self.settings, self.seed = trial.log_psi, molecule, settings, seed
        self.walk, self.learn = compiled(
            trial.log_psi, molecule, settings.sampler, settings.optimiser, settings.clip, settings.oldest
        )
        self.key, self.clock, self.before = jax.random.key(seed), clock, 0.0
        self.rows: list[np.ndarray] = []
        self.kept: dict[int, np.ndarray] = {}
        self.stride = 1
        r = start(molecule, settings.walkers, seed=seed)
        walkers = settings.sampler.initial(r)
        vector = ravel_pytree(self.first)[0]
        self.now = Learning(self.first, self.first, settings.optimiser.initial(vector), walkers)

    def begin(self) -> None:
        self._settle(self.first, 0)

    def run(self, path: Path | None, every: float) -> Trained:
        total = self.settings.steps or math.ceil(60 * (self.settings.minutes or 0))
        saved = time.monotonic()
        with progress("training", total) as advance:
            shown = 0
            while not (reason := self._ended()):
                self._step()
                position = len(self.rows) if self.settings.steps else min(total, int(self._seconds()))
                advance(position - shown, note=note(History.of(self.rows[-50:]), len(self.rows)))
                shown = position
                if path is not None and time.monotonic() - saved > every:
                    self.save(path)
                    saved = time.monotonic()
        if path is not None:
            self.save(path)
        return self._finish(reason)

    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.clock

    def _ended(self) -> str:
        done, settings, window = len(self.rows), self.settings, self.settings.window
        if settings.steps is not None and done >= settings.steps:
            return f"all {done} steps were taken"
        if settings.minutes is not None and self._seconds() >= 60 * settings.minutes and done:
            if done < _FEW:
                brief = f"only {done} steps of training within {settings.minutes:g} minutes, compilation included"
                warnings.warn(f"{brief}: the wavefunction is hardly trained; give more minutes", stacklevel=5)
            return f"the {settings.minutes:g} minutes were used up"
        if window and done and done % window == 0 and stalled(History.of(self.rows[-2 * window :]), window):
            return f"neither energy nor variance fell in the last {settings.window} steps"
        return ""

    def _settle(self, parameters: Any, place: int) -> None:
        """Burn-in at fixed parameters, the step of the walkers adapted."""
        key = jax.random.fold_in(jax.random.fold_in(self.key, 1), place)
        walkers = self.walk(parameters, self.now.walkers, key, self.settings.burn_in, True)
        self.now = self.now._replace(walkers=walkers)

    def _step(self) -> None:
        done, settings = len(self.rows), self.settings
        walk, draw = jax.random.split(jax.random.fold_in(jax.random.fold_in(self.key, 0), done))
        walkers = self.walk(self.now.parameters, self.now.walkers, walk, settings.moves, True)
        rate, memory = settings.rate / (1 + done / settings.decay), min(float(settings.average), done / 10)
        self.now, seen = self.learn(self.now._replace(walkers=walkers), draw, rate, memory)
        self.rows.append(np.array([self._seconds(), *np.asarray(seen)]))
        last = self.rows[-settings.skips :]
        if len(last) == settings.skips and not any(row[-1] for row in last):
            got = f"{settings.skips} in a row that are not, at step {done + 1}"
            raise ConvergenceError(expected("steps", "finite energies and updates", got, "lower the rate"))
        self._keep()

    def _keep(self) -> None:
        """Add a snapshot where one is due; when there are too many, every second one goes."""
        done = len(self.rows)
        if done % self.stride == 0:
            self.kept[done] = np.asarray(ravel_pytree(self.now.parameters)[0])
        if len(self.kept) > 4 * self.settings.snapshots:
            self.stride *= 2
            self.kept = {step: vector for step, vector in self.kept.items() if step % self.stride == 0}

    def _finish(self, reason: str) -> Trained:
        self._settle(self.now.average, len(self.rows))
        late = [step for step in self.kept if 2 * step >= len(self.rows)]
        chosen = np.unique(np.linspace(0, len(late) - 1, self.settings.snapshots).round().astype(int))
        steps = np.array(late)[chosen]
        vectors = np.array([self.kept[int(step)] for step in steps])
        history = History.of(self.rows)
        return Trained(self.now.average, self.now.walkers, history, vectors, steps, reason, self._seconds())

    def _purpose(self) -> dict[str, str]:
        budget_free = replace(self.settings, minutes=1.0, steps=None)
        content = {"molecule": repr(self.molecule), "settings": repr(budget_free), "seed": str(self.seed)}
        return {"version": VERSION, **content}

    def save(self, path: Path) -> None:
        """Write the state, from which :meth:`resume` goes on."""
        arrays = leaves("now", self.now) | leaves("first", self.first) | {"history": np.array(self.rows)}
        arrays |= {"kept": np.array(list(self.kept.values()))}
        header = {"stride": self.stride, "kept": list(self.kept), "seconds": self._seconds()}
        write_checkpoint(path, self._purpose(), header, arrays)

    def resume(self, path: Path) -> None:
        header, arrays = read_checkpoint(path, self._purpose())
        first = restored("first", self.first, arrays)
        # Orbitals of the same molecule differ in the last digits between machines.
        if not np.allclose(ravel_pytree(first)[0], ravel_pytree(self.first)[0], rtol=1e-5, atol=1e-8):
            raise DataError(expected("checkpoint", "a training from these parameters", "others", "give another file"))
        self.now = restored("now", self.now, arrays)
        self.rows, self.stride, self.before = list(arrays["history"]), header["stride"], header["seconds"]
        self.kept = dict(zip(header["kept"], arrays["kept"], strict=True))
