"""Forward divergence on samples that Markov chains renew while the flow learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.objectives import ForwardKL
from bayesmol.inference.metropolis import HamiltonianMonteCarlo

__all__ = ["RenewedKL"]


@dataclass(frozen=True)
class RenewedKL(ForwardKL):
    r"""Maximum likelihood on a population of samples, some of which take a Monte-Carlo trajectory in every round.

    A flow learns a small sample by heart, and then draws of it are narrower than the density. Trajectories leave the
    density as it is and forget bonds and angles at once, so the population stays a sample of the density, and no
    configuration is seen often. How much is in each basin changes only as fast as chains cross between them.

    Attributes
    ----------
    rounds
        Number of rounds, which share the budget equally.
    moved, leapfrogs
        Samples that move in a round, and steps of a trajectory.
    """

    rounds: int = 60  # type: ignore[misc]  # a setting here, fixed in the base
    moved: int = 1024
    leapfrogs: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.rounds, self.moved, self.leapfrogs) < 1:
            raise DataError(expected("rounds, moved, leapfrogs", "positive counts", self))

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Samples of the round; the step of the trajectories is found in the first one."""
        x = data["x"]
        rows = torch.randperm(len(x), generator=source, device=x.device)[: self.moved]
        first = "step" not in data
        sampler = HamiltonianMonteCarlo(
            step=0.2 if first else float(data["step"]), leapfrogs=self.leapfrogs, warmup=20 if first else 0, draws=1
        )
        walk = sampler.fit(target, x[rows].double(), seed=source)
        renewed = x.index_copy(0, rows, walk.rows.to(x))
        return {**data, "x": renewed, "step": torch.tensor(walk.step, dtype=torch.float64)}
