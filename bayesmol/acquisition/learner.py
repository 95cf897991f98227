"""Learner: a potential that decides at each structure whether to trust itself, and learns where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.gate import Gate
from bayesmol.acquisition.history import content
from bayesmol.acquisition.trace import ACCEPTED, AUDITED, MISSED, REFERENCE
from bayesmol.calibration import AdaptiveConformal
from bayesmol.calibration.adaptive import AdaptiveState
from bayesmol.data import Labelled, Structures
from bayesmol.errors import ApplicabilityError, expected
from bayesmol.posterior import Gaussian, Prediction

__all__ = ["Answer", "Learner", "largest_force_error"]


@dataclass(frozen=True, eq=False)
class Answer:
    """Energy (eV) and forces (eV/Å) of one structure, and what stands behind them.

    ``kind`` as in :class:`~bayesmol.acquisition.trace.Trace`; ``failure`` says why there is no label where one was
    needed, and the forces are not to be used then.
    """

    kind: int
    energy: float
    forces: Float[Tensor, "atoms 3"]
    bound: float
    deviation: float
    strangeness: float
    error: float = math.nan
    failure: str = ""


class Learner:
    """State of a run on the fly but for the atoms: model, labels, calibration, and how often the reference was asked.

    A structure is accepted if the adapted conformal factor times its largest predicted deviation is at most the
    tolerance and it is no stranger than any that was labelled; the reference answers else. What is learned at random
    checks adapts the factor; labels asked for because of the bound do so only while the factor is infinite.

    Parameters
    ----------
    settings
        An :class:`~bayesmol.acquisition.on_the_fly.OnTheFly`.
    label
        Gives the label of one structure, or why there is none.
    log
        Writes one event.
    coins
        Decides on checks.
    """

    def __init__(
        self,
        settings: Any,
        initial: Labelled,
        label: Callable[[Structures], Labelled | str],
        log: Callable[..., None],
        coins: np.random.Generator,
        seed: int,
    ) -> None:
        self.settings, self.labels, self.coins, self.seed = settings, initial, coins, seed
        self._label, self._log = label, log
        conformal = AdaptiveConformal("aci", level=settings.level, window=settings.window)
        self.factor_state: AdaptiveState = conformal.start(torch.zeros(0, 1, dtype=torch.float64))
        self.counts = dict.fromkeys(("accepted", "checked", "exceeded", "triggered", "failed"), 0)
        self.fitted, self.widest = 0, -math.inf
        self.model: Any = None

    def fit(self) -> None:
        """Fit the model anew, hyper-parameters included, to all labels."""
        self.model = self.settings.model.fit(self.labels, seed=self.seed)
        self.fitted = len(self.labels)
        left_out = getattr(self.model, "left_out_strangeness", None)
        scores = self.model.strangeness(self.labels.structures) if left_out is None else left_out()
        finite = scores[scores.isfinite()]
        self.widest = float(finite.max()) if len(finite) else -math.inf
        self._log("fit", labels=self.fitted)

    @property
    def factor(self) -> float:
        """Multiple of the largest predicted deviation that bounds the largest error; infinite while unknown."""
        return self.factor_state.threshold

    def answer(self, structures: Structures) -> Answer:
        """Forces of one structure: of the model where it may be trusted, else of the reference."""
        prediction = self.model.predict(structures)
        seen = Gate(self.factor, self.settings.tolerance, self.widest).look(self.model, structures, prediction)
        trusted, bound, deviation, strangeness = (part.item() for part in seen)
        self.counts["accepted"] += bool(trusted)
        kind = ACCEPTED if trusted else REFERENCE
        if trusted and self.coins.random() < self.settings.audit:
            kind = AUDITED
            self.counts["checked"] += 1
        forces, energy = prediction.forces.mean.double(), float(prediction.energy.mean)
        if self.settings.bias and kind != REFERENCE:
            energy, forces = self._biased(structures, energy, forces)
        found = Answer(kind, energy, forces, bound, deviation, strangeness)
        return found if kind == ACCEPTED else self._asked(structures, prediction, found)

    def _biased(self, structures: Structures, energy: float, forces: Tensor) -> tuple[float, Tensor]:
        deviation, slope = self.model.deviation_gradient(structures)
        return energy - self.settings.bias * float(deviation), forces + self.settings.bias * slope

    def _asked(self, structures: Structures, prediction: Prediction, before: Answer) -> Answer:
        """The answer after the reference was asked; the model has learned from it."""
        truth = self._label(structures)
        self.counts["triggered"] += before.kind == REFERENCE
        if isinstance(truth, str):
            self.counts["failed"] += 1
            self.counts["exceeded"] += before.kind == AUDITED  # an error that nobody can know is not within anything
            self._log("failure", purpose=before.kind, reason=truth, positions=structures.positions.tolist())
            return replace(before, failure=truth)
        error = largest_force_error(prediction, truth)
        kind = MISSED if before.kind == AUDITED and error > self.settings.tolerance else before.kind
        self.counts["exceeded"] += kind == MISSED
        shown = {name: value for name, value in vars(before).items() if isinstance(value, float)}
        finite = {name: value if math.isfinite(value) else None for name, value in (shown | {"error": error}).items()}
        numbers = {"positions": structures.positions.tolist(), "labels": content(truth)}
        self._log("label", **{**finite, "purpose": kind}, **numbers)
        self._calibrate(before, error)
        self._learn(truth, before.strangeness)
        if kind == AUDITED:
            return replace(before, kind=kind, error=error)
        energy, forces = float(truth.given("energies")), truth.given("forces").double()
        return replace(before, energy=energy, forces=forces, kind=kind, error=error)

    def _calibrate(self, before: Answer, error: float) -> None:
        if before.kind == REFERENCE and math.isfinite(self.factor):
            return
        zero = torch.zeros(1, dtype=torch.float64)
        predicted = Gaussian(zero, zero + before.deviation**2, unit="eV/Å")
        self.factor_state = self.factor_state.update(predicted, zero + error)

    def _learn(self, truth: Labelled, strangeness: float) -> None:
        self.labels = Labelled.concatenate([self.labels, truth])
        if len(self.labels) >= self.settings.refit * self.fitted or not hasattr(self.model, "update"):
            self.fit()
            return
        self.model = self.model.update(truth)
        if math.isfinite(strangeness):
            self.widest = max(self.widest, strangeness)


def largest_force_error(prediction: Prediction, truth: Labelled) -> float:
    """Largest norm of the error of the force on an atom, in eV/Å.

    Raises
    ------
    ApplicabilityError
        If there are no forces.
    """
    if truth.forces is None:
        raise ApplicabilityError(expected("reference", "forces", "none", "use a reference that calculates them"))
    return float((prediction.forces.mean - truth.forces).norm(dim=1).max())
