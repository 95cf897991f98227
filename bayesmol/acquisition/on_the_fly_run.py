"""One run on the fly: steps, rewinding, checkpoints, and the same way again after a kill."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bayesmol.acquisition.audits import Audits
from bayesmol.acquisition.gate import Gate
from bayesmol.acquisition.history import content, with_content
from bayesmol.acquisition.learner import Learner
from bayesmol.acquisition.ledger import Ledger
from bayesmol.acquisition.on_the_fly import Learned, OnTheFly, refused
from bayesmol.acquisition.trace import COLUMNS, MISSED, Trace, TraceFile
from bayesmol.calibration.adaptive import AdaptiveState
from bayesmol.checkpoints import read_checkpoint, write_checkpoint
from bayesmol.data import Labelled, Structures
from bayesmol.errors import ConvergenceError, DataError, expected
from bayesmol.inference.random import generator, numpy_generator
from bayesmol.persistence import load, save
from bayesmol.progress import progress

if TYPE_CHECKING:
    from ase import Atoms

__all__ = ["Run"]

_STATE = "state.ckpt"
_PURPOSE = {"run": "learning on the fly"}  # of the folder, whose ledger says which
_PATIENCE = 20  # failures of the reference without getting further


class Run:
    """A run in a folder: made new, or as its checkpoint left it; then :meth:`until` some step."""

    def __init__(
        self,
        settings: OnTheFly,
        folder: Path,
        atoms: Atoms,
        ledger: Ledger,
        initial: Labelled | None,
        seed: int,
    ) -> None:
        from bayesmol.acquisition.on_the_fly_calculator import LearningCalculator

        self.settings, self.folder, self.ledger = settings, folder, ledger
        self.cursor, self.failures, self.furthest = 0, 0, 0
        self.atoms, self.template = atoms.copy(), Structures.from_ase(atoms)
        source = generator(seed)
        self.motion, coins = numpy_generator(source), numpy_generator(source)
        self._log("start", settings=_fingerprint(settings, self.template, initial, seed), seed=seed)
        labels = self._initial(initial, seed)
        self.initial = 0 if initial is not None else len(labels)
        self.learner = Learner(settings, labels, self._label, self._log, coins, seed)
        self.calculator = LearningCalculator(self.learner)
        self.atoms.calc = self.calculator
        self.history: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=4 * (settings.rewind + 1))
        width = len(COLUMNS) + 2 * self.atoms.positions.size
        if (folder / _STATE).exists():
            self.trace = TraceFile(folder / "trace.f64", width, self._restore())
        else:
            self.trace = TraceFile(folder / "trace.f64", width)
            self.learner.fit()
            self.checkpoint()
        self.integrator = settings.dynamics.start(self.atoms, self.motion)

    def until(self, steps: int, budget: int | None) -> Learned:
        """Go on until the trajectory has so many steps, or the budget of calls is spent."""
        reason = "all steps are done"
        with progress("learning on the fly", steps) as advance:
            advance(len(self.trace))
            while len(self.trace) < steps:
                if budget is not None and self.calls >= budget:
                    reason = f"the budget of {budget} calls is spent"
                    break
                before = len(self.trace)
                self.step()
                advance(len(self.trace) - before)
                if len(self.trace) == self.trace.flushed + self.settings.checkpoint:
                    self.checkpoint()
        if len(self.trace) > self.trace.flushed:
            self.checkpoint()
        return self.learned(reason)

    @property
    def calls(self) -> int:
        """Of the reference so far."""
        return self.initial + self.learner.counts["triggered"] + self.learner.counts["checked"]

    def step(self) -> None:
        """One step, or back where a check found a wrong one or the reference failed."""
        self.atoms.get_forces()  # known unless the run has just begun or gone back
        if self._failed():
            return
        self.history.append((len(self.trace), self.atoms.get_positions(), self.atoms.get_momenta()))
        self.integrator.run(1)
        if self._failed():
            return
        if (answer := self.calculator.answer) is None:  # taken up where it was left, and nothing was asked since
            raise DataError(expected("dynamics", "steps that move the atoms", "the same structure again"))
        numbers = [float(getattr(answer, name)) for name in COLUMNS if name != "temperature"]
        vectors = self.atoms.positions.ravel(), self.atoms.get_forces(apply_constraint=False).ravel()
        self.trace.append(np.concatenate([numbers, [self.atoms.get_temperature()], *vectors]))
        if len(self.trace) > self.furthest:
            self.furthest, self.failures = len(self.trace), 0
        if answer.kind == MISSED:
            self._back()

    def _failed(self) -> bool:
        """Whether the reference failed at the present structure; the run has gone back then."""
        failure = "" if self.calculator.answer is None else self.calculator.answer.failure
        if failure:
            self.failures += 1
            if self.failures >= _PATIENCE or not self.history:
                raise refused(failure)
            self._back()
        return bool(failure)

    def _back(self) -> None:
        """Back to the state before the last ``rewind`` steps, as far as they are since the last checkpoint."""
        for _ in range(min(self.settings.rewind, len(self.history) - 1)):
            self.history.pop()
        step, positions, momenta = self.history.pop()
        self.atoms.set_positions(positions, apply_constraint=False)
        self.atoms.set_momenta(momenta, apply_constraint=False)
        self._log("back", step=step, by=len(self.trace) - step)
        self.trace.take_back(len(self.trace) - step)

    def learned(self, reason: str) -> Learned:
        """What the run has come to."""
        counts, learner = self.learner.counts, self.learner
        audits = Audits(self.settings.audit, counts["accepted"], counts["checked"], counts["exceeded"])
        calls = {"initial": self.initial, "triggered": counts["triggered"], "checks": counts["checked"]}
        calls["failed"] = counts["failed"]
        atoms = self.atoms.copy()
        trace = Trace.of(self.trace.read(), self.template)
        gate = Gate(learner.factor, self.settings.tolerance, learner.widest)
        return Learned(learner.model, learner.labels, trace, audits, calls, gate, atoms, reason)

    def checkpoint(self) -> None:
        """Write all that the rest of the run depends on; the run itself goes on from what a reader would read."""
        learner = self.learner
        path = self.folder / f"model-{self.cursor}.bm"
        save(learner.model, path)
        learner.model = load(path)
        self.trace.flush()
        self.history.clear()
        done = bool(self.calculator.results)
        header = {
            "cursor": self.cursor,
            "rows": len(self.trace),
            "model": path.name,
            "counts": learner.counts,
            "fitted": learner.fitted,
            "widest": learner.widest,
            "failures": self.failures,
            "furthest": self.furthest,
            "motion": self.motion.bit_generator.state,
            "coins": learner.coins.bit_generator.state,
            "factor": [learner.factor_state.steps, learner.factor_state.missed],
            "energy": self.calculator.results["energy"] if done else None,
        }
        arrays = {
            "positions": self.atoms.get_positions(),
            "momenta": self.atoms.get_momenta(),
            "forces": self.calculator.results["forces"] if done else np.zeros(0),
            "pool": learner.factor_state.pool.numpy(),
            "control": learner.factor_state.control.numpy(),
        }
        write_checkpoint(self.folder / _STATE, _PURPOSE, header, arrays)
        for old in self.folder.glob("model-*.bm"):
            if old != path:
                old.unlink()

    def _restore(self) -> int:
        """Take the state of the checkpoint; the number of rows of the trace that count."""
        header, arrays = read_checkpoint(self.folder / _STATE, _PURPOSE)
        learner = self.learner
        learner.model = load(self.folder / header["model"])
        known = [entry for entry in self.ledger.entries[self.cursor : header["cursor"]] if entry["kind"] == "label"]
        learner.labels = Labelled.concatenate([learner.labels, *map(self._entry_label, known)])
        for name in ("counts", "fitted", "widest"):
            setattr(learner, name, header[name])
        for name in ("cursor", "failures", "furthest"):
            setattr(self, name, header[name])
        self.motion.bit_generator.state = header["motion"]
        learner.coins.bit_generator.state = header["coins"]
        pool, control = (torch.from_numpy(arrays[name]) for name in ("pool", "control"))
        learner.factor_state = AdaptiveState(learner.factor_state.specification, pool, control, *header["factor"])
        self.atoms.set_positions(arrays["positions"], apply_constraint=False)
        self.atoms.set_momenta(arrays["momenta"], apply_constraint=False)
        if header["energy"] is not None:
            self.calculator.resume(self.atoms, header["energy"], arrays["forces"])
        return header["rows"]

    def _initial(self, given: Labelled | None, seed: int) -> Labelled:
        if given is not None:
            self._log("initial", labels=len(given), failed=0)
            return given
        displaced = self.settings.displaced(self.atoms, seed + 1)
        entry = self._known("initial")
        if entry is None:
            found = self.settings.reference.label(displaced)
            if found.labelled is None:
                raise refused("; ".join(found.failures.values()))
            failures = {str(place): reason for place, reason in found.failures.items()}
            parts = [content(found.labelled[place]) for place in range(len(found.labelled))]
            entry = {"labels": parts, "failures": failures}
        self._log("initial", **{name: entry[name] for name in ("labels", "failures")})
        kept = [place for place in range(len(displaced)) if str(place) not in entry["failures"]]
        labelled = [with_content(displaced[place], one) for place, one in zip(kept, entry["labels"], strict=True)]
        return Labelled.concatenate(labelled)

    def _label(self, structures: Structures) -> Labelled | str:
        """Label of one structure: from the ledger where a killed run has got it already, else of the reference."""
        positions = structures.positions.tolist()
        for kind in ("label", "failure"):
            entry = self._known(kind)
            if entry is not None and entry["positions"] == positions:
                return entry["reason"] if kind == "failure" else with_content(structures, entry["labels"])
        return self.settings.labelled(structures)

    def _entry_label(self, entry: dict[str, Any]) -> Labelled:
        positions = torch.tensor(entry["positions"], dtype=torch.float64)
        like = self.template
        return with_content(Structures(positions, like.species, like.pointer, like.cell, like.pbc), entry["labels"])

    def _known(self, kind: str) -> dict[str, Any] | None:
        """Next entry of the ledger, where a killed run has come so far and it is of this kind."""
        ahead = self.cursor < len(self.ledger.entries)
        return self.ledger.entries[self.cursor] if ahead and self.ledger.entries[self.cursor]["kind"] == kind else None

    def _log(self, kind: str, **values: Any) -> None:
        """Write an entry, or see that it is the one that a killed run has written here."""
        if self.cursor == len(self.ledger.entries):
            self.ledger.append(kind, **values)
        else:
            written = {name: value for name, value in self.ledger.entries[self.cursor].items() if name != "sha256"}
            if written != json.loads(json.dumps({"kind": kind, **values})):
                _differs(kind, written)
        self.cursor += 1


def _differs(kind: str, written: dict[str, Any]) -> None:
    if kind == "start":
        remedy = "give the settings, atoms and seed that the run was started with, or another folder"
        raise DataError(expected("folder", "a run with these settings", "one with others", remedy))
    remedy = "the machine, the number of threads or a version has changed; start in another folder"
    raise ConvergenceError(expected("the run", f"to repeat its entry {written['kind']!r}", f"another {kind!r}", remedy))


def _fingerprint(settings: OnTheFly, template: Structures, initial: Labelled | None, seed: int) -> str:
    """SHA-256 of all that decides the run."""
    reference = getattr(settings.reference, "fingerprint", None) or repr(settings.reference)
    own = {name: repr(value) for name, value in vars(settings).items() if name != "reference"}
    positions = hashlib.sha256(template.positions.numpy().tobytes()).hexdigest()
    labels = None if initial is None else initial.fingerprint
    parts = [own, reference, template.species.tolist(), positions, labels, seed]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
