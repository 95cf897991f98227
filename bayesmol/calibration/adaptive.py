"""Conformal intervals along a stream: adapted after each label, whatever the data do.

A step is one frame of a trajectory, or one row of a time series. The error after many steps is bounded for any
sequence; a single interval has no probability.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.calibration.controllers import ACI, PID, Controller, DynamicACI
from bayesmol.calibration.observed import paired
from bayesmol.calibration.weighted import Kind, interval_of, score_of
from bayesmol.data import Labelled
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Interval, Posterior
from bayesmol.posterior.interval import checked_level

__all__ = ["AdaptiveConformal", "AdaptivePath", "AdaptiveState"]

_CONTROLLERS: dict[str, Controller] = {"aci": ACI(), "dtaci": DynamicACI(), "pid": PID()}


@dataclass(frozen=True)
class AdaptiveConformal:
    """Online conformal intervals: ``AdaptiveConformal("aci").start(scores)``, then ``interval`` and ``update`` in turn.

    Attributes
    ----------
    method
        ``"aci"``, ``"dtaci"`` or ``"pid"`` at their default settings, or one of :class:`ACI`, :class:`DynamicACI`
        and :class:`PID` with others.
    level
        Share of the labels that shall be covered in the long run.
    score, floor
        As in :class:`~bayesmol.calibration.WeightedConformal`.
    simultaneous
        Whether the level is the share of the steps whose entries are all covered, or that of the entries of all steps.
    window
        Number of newest steps whose scores give the quantiles.
    """

    method: Literal["aci", "dtaci", "pid"] | Controller = "aci"
    level: float = 0.9
    score: Kind = "normalised"
    simultaneous: bool = False
    floor: float = 0.0
    window: int = 1000

    def __post_init__(self) -> None:
        checked_level(self.level)
        if isinstance(self.method, str) and self.method not in _CONTROLLERS:
            raise DataError(expected("method", [*_CONTROLLERS, "a controller"], repr(self.method)))
        if self.window < 1:
            raise DataError(expected("window", "at least 1 step", self.window))

    @property
    def controller(self) -> Controller:
        """What adapts the threshold."""
        return _CONTROLLERS[self.method] if isinstance(self.method, str) else self.method

    def scores(
        self, posterior: Posterior, truth: Tensor | Labelled, *, groups: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "steps entries"]:
        """Scores of the entries of each step; the largest alone if simultaneous.

        Parameters
        ----------
        groups
            Step of each row, ascending; by default each row is a step (of a ``Labelled``: each structure). All steps
            have equally many rows.

        Raises
        ------
        ShapeError, DataError
            If shapes differ, a label is not finite, or steps are not in order or differ in size.
        """
        posterior, observed = paired(posterior, truth, groups=groups)
        steps, rows = observed.structures, len(observed.values)
        owner = torch.arange(rows, device=observed.groups.device) * steps // rows
        if rows % steps or not torch.equal(observed.groups, owner):
            raise ShapeError(expected("groups", "steps in order, all with equally many rows", "others"))
        found = score_of(self.score, self.floor).scores(posterior, observed.values).reshape(steps, -1)
        return found.amax(1, keepdim=True) if self.simultaneous else found

    def start(self, scores: Float[Tensor, "steps entries"]) -> AdaptiveState:
        """State before the first step of the stream.

        Parameters
        ----------
        scores
            Scores of calibration steps, the oldest first, as :meth:`scores` gives them. Without any the first
            intervals are infinite.

        Raises
        ------
        DataError
            If a score is not finite, or there are too few for the method.
        """
        if scores.ndim != 2 or not bool(torch.isfinite(scores).all()):
            got = f"shape {tuple(scores.shape)}" if scores.ndim != 2 else "NaN or infinity"
            raise DataError(expected("scores", "finite numbers of shape (steps, entries)", got))
        pool = scores.double()[-self.window :]
        return AdaptiveState(self, pool, self.controller.initial(1 - self.level, pool), 0, 0.0)


@dataclass(frozen=True, eq=False)
class AdaptiveState:
    """Where the stream is: makes the interval of the next step, and after its label the next state.

    Attributes
    ----------
    pool
        Newest scores, by step and entry.
    control
        What the controller knows.
    steps, missed
        Steps so far, and the sum of their shares of missed entries.
    """

    specification: AdaptiveConformal
    pool: Float[Tensor, "window entries"]
    control: Float[Tensor, " numbers"]
    steps: int
    missed: float

    @property
    def threshold(self) -> float:
        """Bound of the scores of the next step."""
        return self.specification.controller.threshold(self.control, self.pool)

    @property
    def guarantee(self) -> str:
        """What holds after the steps so far."""
        kind = self.specification
        return kind.controller.guarantee(1 - kind.level, self.steps)

    def interval(self, posterior: Posterior) -> Interval:
        """Interval of the entries of the next step: ``mean ± threshold``, or ``· max(stddev, floor)``."""
        kind = self.specification
        radii = torch.full((len(posterior),), self.threshold, dtype=torch.float64, device=posterior.mean.device)
        return interval_of(score_of(kind.score, kind.floor), posterior, radii, kind.level, self.guarantee)

    def update(self, posterior: Posterior, truth: Float[Tensor, " rows *shape"]) -> AdaptiveState:
        """State after the labels of that step."""
        step = torch.zeros(len(posterior), dtype=torch.long, device=posterior.mean.device)
        return self._after(self.specification.scores(posterior, truth, groups=step)[0], self.threshold)

    def run(
        self, posterior: Posterior, truth: Tensor | Labelled, *, groups: Int[Tensor, " rows"] | None = None
    ) -> AdaptivePath:
        """Interval and update of each step of a stream that is already known; see :meth:`AdaptiveConformal.scores`."""
        kind, scores = self.specification, self.specification.scores(posterior, truth, groups=groups)
        state, thresholds, missed = self, [], []
        for row in scores:
            thresholds.append(state.threshold)
            after = state._after(row, thresholds[-1])
            missed.append(after.missed - state.missed)
            state = after
        bounds, misses = scores.new_tensor(thresholds), scores.new_tensor(missed)
        posterior, _ = paired(posterior, truth, groups=groups)
        radii = bounds.repeat_interleave(len(posterior) // len(scores))
        interval = interval_of(score_of(kind.score, kind.floor), posterior, radii, kind.level, state.guarantee)
        return AdaptivePath(interval, bounds, misses, state)

    def _after(self, scores: Tensor, threshold: float) -> AdaptiveState:
        kind = self.specification
        if len(self.pool) and len(scores) != self.pool.shape[1]:
            raise ShapeError(expected("posterior", f"{self.pool.shape[1]} entries a step", len(scores)))
        missed = float((scores > threshold).double().mean())
        control = kind.controller.updated(self.control, self.pool, scores, missed, 1 - kind.level)
        pool = torch.cat([self.pool.reshape(-1, len(scores)), scores[None]])[-kind.window :]
        return replace(self, pool=pool, control=control, steps=self.steps + 1, missed=self.missed + missed)


@dataclass(frozen=True, eq=False)
class AdaptivePath:
    """A stream in hindsight.

    Attributes
    ----------
    interval
        Of all rows, each made before its own label was known.
    thresholds
        Bound of the scores of each step.
    missed
        Share of the entries of each step outside of their interval.
    state
        After the last step.
    """

    interval: Interval
    thresholds: Float[Tensor, " steps"]
    missed: Float[Tensor, " steps"]
    state: AdaptiveState

    @property
    def coverage(self) -> Float[Tensor, " steps"]:
        """Share of the entries covered up to each step."""
        steps = torch.arange(1, len(self.missed) + 1, device=self.missed.device)
        return 1 - self.missed.cumsum(0) / steps
