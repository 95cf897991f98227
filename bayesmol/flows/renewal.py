"""Forward divergence on samples that Markov chains, and the flow itself, renew while it learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, expected
from bayesmol.flows.counted import Counted
from bayesmol.flows.flow import Flow
from bayesmol.flows.objectives import ForwardKL
from bayesmol.flows.own_draws import BEGIN, balanced_loss, check_own, mixed, own_draws, remembered
from bayesmol.inference.metropolis import HamiltonianMonteCarlo

__all__ = ["RenewedKL"]


@dataclass(frozen=True)
class RenewedKL(ForwardKL):
    r"""Maximum likelihood on a population of samples, some of which take a Monte-Carlo trajectory in every round.

    A flow learns a small sample by heart, and then draws of it are narrower than the density. Trajectories leave the
    density as it is and forget bonds and angles at once, so the population stays a sample of the density; but how much
    is in each basin changes only as fast as chains cross between them. So a share of each batch is, after the first
    rounds, draws of the flow itself with their weights, new in every round, and the energy says of samples and draws
    how much density is right there (:func:`~bayesmol.flows.own_draws.balanced_loss`). The samples hold the flow at
    basins of which it has no draws.

    Attributes
    ----------
    rounds
        Number of rounds, which share the budget equally.
    moved, leapfrogs
        Samples that move in a round, and steps of a trajectory.
    own, drawn
        Share of a batch that are draws of the flow itself, and how many are drawn for a round.
    """

    rounds: int = 60  # type: ignore[misc]  # a setting here, fixed in the base
    moved: int = 1024
    leapfrogs: int = 10
    own: float = 0.5
    drawn: int = 8192

    def __post_init__(self) -> None:
        super().__post_init__()
        check_own(self.own)
        if min(self.rounds, self.moved, self.leapfrogs, self.drawn) < 1:
            raise DataError(expected("rounds, moved, leapfrogs, drawn", "positive counts", self))

    def refresh(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], turn: int, source: torch.Generator
    ) -> dict[str, Tensor]:
        """Samples of the round; the step of the trajectories is found in the first one."""
        x = data["x"]
        energy = data["energy"] if "energy" in data else target.reduced_energy(x)
        rows = torch.randperm(len(x), generator=source, device=x.device)[: self.moved]
        first = "step" not in data
        sampler = HamiltonianMonteCarlo(
            step=0.2 if first else float(data["step"]), leapfrogs=self.leapfrogs, warmup=20 if first else 0, draws=1
        )
        walk = sampler.fit(target, x[rows].double(), seed=source)
        moved = {
            "x": x.index_copy(0, rows, walk.rows.to(x)),
            "energy": energy.index_copy(0, rows, walk.energies[:, -1]),
        }
        found = {**data, **moved, "step": torch.tensor(walk.step, dtype=torch.float64)}
        if not self.own or turn < BEGIN * self.rounds:
            return found
        return remembered(found, own_draws(flow, target, self.drawn, source))

    def loss(
        self, flow: Flow, target: Counted, data: dict[str, Tensor], source: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None]:
        """Forward divergence on one batch of samples and own draws."""
        samples = {"x": data["x"], "weights": data["weights"], "log_pi": -data["energy"]}
        count, (x, weights, log_pi) = mixed(samples, data, self.own, self.optimisation.batch, source)
        return balanced_loss(flow.log_prob(x), weights, log_pi, count), None
