"""Monitor: an alarm that watches the scores of a running simulation, and may be watched for ever."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.applicability.alarm_bounds import PowerStarts, Tail
from bayesmol.applicability.domain import CalibratedDomain
from bayesmol.calibration.drift import ConformalMartingale, MartingaleState
from bayesmol.errors import ApplicabilityError, DataError, ShapeError, expected
from bayesmol.posterior.estimate import effective_sample_size
from bayesmol.representation.atomic import AtomicFeatures

if TYPE_CHECKING:
    from ase import Atoms
    from ase.md.md import MolecularDynamics

__all__ = ["Alarm", "Monitor"]

LEAST = 50  # independent calibration scores


@dataclass(frozen=True)
class Alarm:
    """Why the simulation should stop.

    Attributes
    ----------
    frame
        Number of frames watched when it was raised, from 1.
    reason
        ``"far"``: one frame is stranger than any in the domain should ever be; ``"drift"``: frames have become
        stranger than those of the domain.
    score, bound
        Score of the frame, or running mean, and its bound if it is far; logarithm of the martingale and its bound if it
        is drift.
    """

    frame: int
    reason: Literal["far", "drift"]
    score: float
    bound: float

    def __str__(self) -> str:
        what = "score" if self.reason == "far" else "logarithm of the martingale"
        got = f"{self.score:.4g} at frame {self.frame} ({self.reason})"
        remedy = "stop, label this structure and refit, or accept that the error bars do not hold here"
        return expected(what, f"at most {self.bound:.4g} as in the domain", got, remedy)


class Monitor:
    r"""Watches the frames of a simulation and raises an alarm when they leave the domain, at any time.

    Half of the probability of a false alarm is for each of two watches:

    - **drift**: every ``spacing``-th frame enters a conformal martingale (Ville's inequality). Valid for ever if these
      frames are exchangeable with the calibration scores, nearly so where the spacing is longer than their memory.
    - **far**: each score, and the running mean over one autocorrelation time, is compared with a bound that all of
      the next ``horizon`` frames together exceed with that probability; after each horizon the bound is
      raised, the probability of the j-th being :math:`6/(\pi j)^2` of the whole. The union bound needs no
      independence, but a bound that rare lies beyond all scores that were seen: it assumes that their tail is no
      heavier than :class:`~bayesmol.applicability.alarm_bounds.Tail`. An infinite score is always far.

    Parameters
    ----------
    domain
        Its score is watched. Its calibration scores are those of independent frames, unless there is a trajectory.
    false_alarm
        Probability of ever raising an alarm in the domain.
    trajectory
        Scores of frames in their order in time, of simulations in the domain (chains, frames), at the interval at
        which frames will be watched. By default the spacing is two autocorrelation times of theirs, and they take the
        place of the calibration scores.
    spacing
        In frames.
    horizon
        Number of frames for which the first bound is made.

    Raises
    ------
    ApplicabilityError
        If the scores are worth fewer than 50 independent ones.
    DataError
        If an argument has no such value.

    References
    ----------
    Ville, Étude critique de la notion de collectif, Gauthier-Villars (1939); Vovk, Nouretdinov, Gammerman, ICML 2003.
    """

    def __init__(
        self,
        domain: CalibratedDomain,
        false_alarm: float = 0.01,
        *,
        trajectory: Float[Tensor, "chains frames"] | None = None,
        spacing: int | None = None,
        horizon: int = 100_000,
    ) -> None:
        if not 0 < false_alarm < 1:
            raise DataError(expected("false_alarm", "a probability strictly between 0 and 1", false_alarm))
        if (spacing is not None and spacing < 1) or horizon < 1:
            raise DataError(expected("spacing, horizon", "at least 1 frame", (spacing, horizon)))
        self.domain, self.false_alarm, self.horizon = domain, false_alarm, horizon
        scores, worth, memory = _reference(domain, trajectory)
        self.spacing = spacing or math.ceil(2 * memory)
        pool = scores if trajectory is None else scores[:, :: self.spacing].flatten()
        if min(worth, len(pool)) < LEAST:
            aim = f"scores worth {LEAST} independent ones"
            raise ApplicabilityError(expected("trajectory", aim, f"{min(worth, len(pool)):.0f}", "simulate longer"))
        self.windows = (1,) if trajectory is None or memory <= 1 else (1, math.ceil(memory))
        self.tails = tuple(_tail(scores, worth, window, memory) for window in self.windows)
        betting = PowerStarts(patience=max(1.0, horizon / self.spacing))
        self._start = ConformalMartingale(betting, false_alarm / 2).start(pool)
        self.restart()

    def restart(self) -> None:
        """Forget all frames watched so far, as after a change of the model or of the simulation."""
        self.frames = 0
        self.alarm: Alarm | None = None
        self._state: MartingaleState = self._start
        self._recent: deque[float] = deque(maxlen=self.windows[-1])
        self._bounds = self._far_bounds()

    @property
    def log_martingale(self) -> float:
        """Logarithm of the martingale of the drift."""
        return self._state.log_martingale

    @property
    def guarantee(self) -> str:
        """The sentence that holds."""
        return (
            f"raises a false alarm with probability ≤ {self.false_alarm:g}, however long it watches, if frames "
            f"{self.spacing} apart are exchangeable with the {len(self._start.pool)} calibration scores and the tail "
            f"of the scores beyond {self.tails[0].quantile(self.tails[0].fraction):.4g} is no heavier than fitted"
        )

    def update(self, frames: float | Tensor | AtomicFeatures) -> Alarm | None:
        """Watch one more frame by its score (a number), or some by their features; the alarm, once there is one.

        Raises
        ------
        DataError
            If a score is NaN.
        """
        if isinstance(frames, (int, float)) or (isinstance(frames, Tensor) and frames.ndim == 0):
            scores = [float(frames)]
        else:
            scores = self.domain.assess(frames).score.tolist()
        for score in scores:
            if math.isnan(score):
                raise DataError(expected("score", "a number", "NaN"))
            if self.alarm is None:
                self._watch(score)
        return self.alarm

    def attach(
        self,
        dynamics: MolecularDynamics,
        score: Callable[[Atoms], float | Tensor | AtomicFeatures],
        *,
        interval: int = 1,
        on_alarm: Callable[[Alarm], Any] | None = None,
    ) -> None:
        """Watch every ``interval``-th step of ASE dynamics, by the score or the features of its atoms.

        Parameters
        ----------
        on_alarm
            Called once with the alarm; by default an :class:`~bayesmol.errors.ApplicabilityError` ends the run.
        """

        def watch() -> None:
            if self.alarm is not None:
                return
            alarm = self.update(score(dynamics.atoms))
            if alarm is None:
                return
            if on_alarm is None:
                raise ApplicabilityError(str(alarm))
            on_alarm(alarm)

        dynamics.attach(watch, interval=interval)

    def _watch(self, score: float) -> None:
        self.frames += 1
        self._recent.append(score)
        if self.frames % self.horizon == 0:
            self._bounds = self._far_bounds()
        for window, bound in zip(self.windows, self._bounds, strict=True):
            if len(self._recent) >= window:
                mean = sum(islice(self._recent, len(self._recent) - window, None)) / window
                if mean > bound:
                    self.alarm = Alarm(self.frames, "far", mean, bound)
                    return
        if (self.frames - 1) % self.spacing == 0:
            self._state = self._state.update(score)
            if self._state.alarm is not None:
                bound = -math.log(self._state.specification.false_alarms)
                self.alarm = Alarm(self.frames, "drift", self.log_martingale, bound)

    def _far_bounds(self) -> list[float]:
        """Of a score and of a running mean, for the present horizon."""
        epoch = 1 + self.frames // self.horizon
        whole = self.false_alarm / 2 * 6 / (math.pi * epoch) ** 2 / self.horizon
        return [tail.quantile(min(whole / len(self.tails), tail.fraction)) for tail in self.tails]


def _tail(scores: Tensor, worth: float, window: int, memory: float) -> Tail:
    """Tail of the means of so many consecutive scores of each chain."""
    if window == 1:
        return Tail.of(scores, worth)
    return Tail.of(scores.unfold(-1, window, 1).mean(-1), worth * min(1.0, memory / window))


def _reference(domain: CalibratedDomain, trajectory: Tensor | None) -> tuple[Tensor, float, float]:
    """Calibration scores, the number of independent ones that they are worth, and their memory in frames."""
    if trajectory is None:
        return domain.scores.cpu(), float(len(domain.scores)), 0.5
    if trajectory.ndim != 2 or trajectory.shape[1] < 4:
        raise ShapeError(expected("trajectory", "shape (chains, frames) with at least 4 frames", trajectory.shape))
    scores = trajectory.detach().double().cpu()
    if not bool(torch.isfinite(scores).all()):
        raise DataError(expected("trajectory", "finite scores", "NaN or infinity", "simulate within the domain"))
    worth = min(float(effective_sample_size(scores)), float(scores.numel()))
    return scores, worth, scores.numel() / worth
