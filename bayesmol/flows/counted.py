"""A target whose evaluations are counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.flows.proposal import Target
from bayesmol.inference.trajectories import differentiated

__all__ = ["Counted"]

_CHUNK = 8192


class Counted:
    r"""A target whose evaluations are counted, in bounded memory, and whose energies are kept from running away.

    .. math:: \tilde u = u \;(u \le c), \qquad \tilde u = c + \log(1 + u - c) \;(u > c)

    Parameters
    ----------
    target
        The density.
    cut
        c, in units of the thermal energy; regularised energies are for training and never for weights.

    Attributes
    ----------
    evaluations
        Rows whose energy was evaluated; one with its gradient counts once.
    """

    def __init__(self, target: Target, cut: float = math.inf) -> None:
        self.target, self.cut, self.dimension, self.evaluations = target, cut, target.dimension, 0
        if (circular := getattr(target, "circular", None)) is not None:
            self.circular = circular

    def reduced_energy(self, x: Float[Tensor, "points dimension"]) -> Float[Tensor, " points"]:
        """Reduced energy of each row as the target has it, in float64; :math:`+\\infty` where it is not a number.

        A row of a young flow may lie where no energy exists; such a row has no density.
        """
        self.evaluations += len(x)
        with torch.no_grad():
            energy = torch.cat([self.target.reduced_energy(part) for part in x.detach().split(_CHUNK)]).double()
        return torch.where(torch.isnan(energy), torch.inf, energy)

    def reduced_gradient(
        self, x: Float[Tensor, "points dimension"]
    ) -> tuple[Float[Tensor, " points"], Float[Tensor, "points dimension"]]:
        """Reduced energy of each row in float64, and the gradient of the regularised one; zero where not finite."""
        self.evaluations += len(x)
        parts = [differentiated(self.target.reduced_energy, part) for part in x.detach().split(_CHUNK)]
        energy, gradient = (torch.cat(columns) for columns in zip(*parts, strict=True))
        energy = torch.where(torch.isnan(energy), torch.inf, energy.double())
        gradient = gradient / (1 + (energy - self.cut).clamp_min(0.0)).to(gradient)[:, None]
        known = torch.isfinite(energy) & torch.isfinite(gradient).all(1)
        return energy, torch.where(known[:, None], gradient, 0.0)

    def regularised(self, energy: Float[Tensor, " points"]) -> Float[Tensor, " points"]:
        """Energies that grow as a logarithm above the cut."""
        return torch.where(energy > self.cut, self.cut + (energy - self.cut).clamp_min(0.0).log1p(), energy)

    @contextmanager
    def replaced(self, target: Target) -> Iterator[None]:
        """Count the evaluations of another target, such as this one at another temperature."""
        self.target, kept = target, self.target
        try:
            yield
        finally:
            self.target = kept
