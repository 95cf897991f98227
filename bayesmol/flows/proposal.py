"""What every sampler of the package offers: draws with their normalised log-density."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Proposal", "Target"]


@runtime_checkable
class Target(Protocol):
    """An unnormalised density of rows: a Boltzmann density, or one seen in other coordinates."""

    @property
    def dimension(self) -> int: ...

    def reduced_energy(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Minus the log-density of each row, up to a constant; may be infinite."""
        ...


@runtime_checkable
class Proposal(Protocol):
    """A normalised density that can be sampled: a flow, a mixture of flows, a symmetrised flow."""

    @property
    def dimension(self) -> int: ...

    def log_prob(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Normalised log-density of each row, in nats."""
        ...

    def sample(
        self, size: int, *, seed: int | torch.Generator
    ) -> tuple[Float[Tensor, "size dimension"], Float[Tensor, " size"]]:
        """Independent draws and their log-density."""
        ...
