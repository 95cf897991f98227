"""Blocks of time so far apart that they have forgotten each other: what a score in time is calibrated on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.errors import ConvergenceError, DataError, expected

if TYPE_CHECKING:
    from bayesmol.dynamics.koopman import FittedKoopman

__all__ = ["TimeBlocks", "time_blocks"]


@dataclass(frozen=True, eq=False)
class TimeBlocks:
    """Blocks of consecutive frames, all of one length, as groups of frames or of pairs for a domain.

    Attributes
    ----------
    values
        The frames of each.
    lag
        Of a pair, in frames.
    gap
        Frames that were left out between two blocks of one trajectory.
    """

    values: Float[Tensor, "blocks length features"]
    lag: int
    gap: int

    def __len__(self) -> int:
        return len(self.values)

    @property
    def frames(self) -> tuple[Float[Tensor, "rows features"], Int[Tensor, " rows"]]:
        """All frames, and the block of each."""
        return self.values.flatten(0, 1), self._owners(self.values.shape[1])

    @property
    def pairs(self) -> tuple[Float[Tensor, "rows 2 features"], Int[Tensor, " rows"]]:
        """All pairs of frames of a block that are one lag apart, and the block of each."""
        both = torch.stack([self.values[:, : -self.lag], self.values[:, self.lag :]], 2)
        return both.flatten(0, 1), self._owners(both.shape[1])

    @property
    def guarantee(self) -> str:
        """Under which assumption the blocks are exchangeable."""
        return (
            f"blocks of {self.values.shape[1]} frames, {self.gap} apart, are exchangeable if the process is stationary "
            f"and what it did {self.gap} frames ago does not matter; those of different trajectories, if these are "
            "independent. For m blocks that is wrong by at most m times the β-mixing coefficient of the gap"
        )

    def _owners(self, rows: int) -> Int[Tensor, " rows"]:
        return torch.arange(len(self), device=self.values.device).repeat_interleave(rows)


def time_blocks(koopman: FittedKoopman, data: Any, *, length: int | None = None) -> TimeBlocks:
    r"""Blocks of trajectories on which a domain of :meth:`FittedKoopman.residual` or ``leverage`` can be calibrated.

    Frames of one trajectory are not exchangeable: a domain that is calibrated on frames gives false alarms at another
    rate than it says. Blocks with gaps of the bandwidth of the estimator, 5.6 slowest timescales where the data
    suffice, nearly are: the total variation between them and independent blocks is at most the number of blocks times
    the β-mixing coefficient of the gap, :math:`O(e^{-5.6})` for a process with this slowest timescale. Each is a
    group: ``Domain(koopman.residual).calibrate(pairs, groups=owner)`` with ``pairs, owner = blocks.pairs``, and
    ``assess`` likewise. Calibration trajectories must not be those of the fit.

    Parameters
    ----------
    data
        Trajectories as for ``fit``.
    length
        Frames of a block, the same for calibration and for new trajectories; by default as many as the gap.

    Raises
    ------
    DataError
        If the trajectories are states, or a block has no pair.
    ConvergenceError
        If no trajectory is as long as a block.

    References
    ----------
    Yu, Ann. Probab. 22, 94 (1994): blocks of mixing sequences and their independent copies.
    """
    trajectories, lag = Trajectories.of(data), koopman.spec.lag
    gap = math.ceil(koopman.weights.bandwidth)
    length = gap if length is None else length
    if trajectories.discrete or length <= lag:
        wanted = f"features, and blocks longer than the lag of {lag} frames"
        raise DataError(expected("data, length", wanted, "states" if trajectories.discrete else length))
    found = [part.unfold(0, length, length + gap) for part in trajectories if len(part) >= length]
    if not found:
        remedy = "sample longer, or give a shorter length to calibration and new trajectories"
        raise ConvergenceError(expected("trajectories", f"one of {length} frames", max(trajectories.lengths), remedy))
    return TimeBlocks(torch.cat(found).mT, lag, gap)
