"""What the steps of a training saw, and whether further steps still help."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["History", "note", "stalled"]


@dataclass(frozen=True, eq=False)
class History:
    """What each step saw. Its energies are of changing parameters, so they are no estimates of the result.

    Attributes
    ----------
    seconds
        Wall time at the end of the step, from the start of the training.
    energy, variance
        Mean of the local energies in Ha and their variance in Ha², both without clipping.
    acceptance, clipped
        Shares of accepted moves and of clipped energies.
    redrawn
        Walkers that took the place of another one.
    taken
        False where the step was skipped because something was not finite.
    """

    seconds: Float[np.ndarray, " steps"]
    energy: Float[np.ndarray, " steps"]
    variance: Float[np.ndarray, " steps"]
    acceptance: Float[np.ndarray, " steps"]
    clipped: Float[np.ndarray, " steps"]
    redrawn: Int[np.ndarray, " steps"]
    taken: Bool[np.ndarray, " steps"]

    @classmethod
    def of(cls, rows: Sequence[np.ndarray]) -> History:
        """From one row a step, in the order of the attributes."""
        seconds, energy, variance, acceptance, clipped, redrawn, taken = np.array(rows).T
        return cls(seconds, energy, variance, acceptance, clipped, redrawn.astype(int), taken.astype(bool))


def stalled(history: History, window: int) -> bool:
    """Whether the last ``window`` steps are no better than as many before them.

    That is: the mean energy is not lower by more than the standard error of the difference (from ten blocks each), and
    the median of the variance not by more than 1 %. Of fewer than two windows nothing is said.
    """
    if len(history.energy) < 2 * window:
        return False
    finite = np.where(np.isfinite(history.energy), history.energy, np.nan)
    halves = finite[-2 * window :].reshape(2, window)
    blocks = np.array([[np.nanmean(part) for part in np.array_split(half, 10)] for half in halves])
    earlier, later = blocks.mean(1)
    error = math.sqrt(blocks.var(1, ddof=1).sum() / 10)
    before, after = np.nanmedian(history.variance[-2 * window :].reshape(2, window), 1)
    return bool(earlier - later <= error and after >= 0.99 * before)


def note(history: History, step: int) -> str:
    """The last steps in a line; the error is that of a mean of independent steps, and so too small."""
    error = history.energy.std() / math.sqrt(len(history.energy))
    shown = f"{history.energy.mean():.4f} ± {error:.4f} Ha, variance {np.median(history.variance):.2g} Ha²"
    return f"step {step}, {shown}, acceptance {100 * history.acceptance[-1]:.0f} %"
