"""Hidden states that emit symbols, each with probabilities of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, expected

__all__ = ["DiscreteEmissions", "DiscreteFamily"]


@dataclass(frozen=True, eq=False)
class DiscreteEmissions:
    """Probabilities of symbols, for each of several models.

    Attributes
    ----------
    probabilities
        Each row is a distribution.
    """

    probabilities: Float[Tensor, "models states symbols"]

    def ordered(self, order: Int[Tensor, " states"]) -> DiscreteEmissions:
        """The states in another order."""
        return DiscreteEmissions(self.probabilities[:, order])


@dataclass(frozen=True, eq=False)
class DiscreteFamily:
    r"""Emissions of symbols and their statistics: expected numbers of each symbol in each state.

    Coordinates are :math:`\ln n_{im}`.

    Attributes
    ----------
    symbols
        As they are named in the trajectories, rising.
    shares
        Of each among all frames: what the prior's frames look like.
    """

    symbols: Int[Tensor, " symbols"]
    shares: Float[Tensor, " symbols"]

    @classmethod
    def of(cls, frames: Int[Tensor, " frames"], states: int) -> DiscreteFamily:
        """The family for these frames.

        Raises
        ------
        DataError
            If all are the same.
        """
        symbols, counts = frames.unique(return_counts=True)
        if len(symbols) < 2:
            remedy = "take longer trajectories, or other states"
            raise DataError(expected("trajectories", "at least two different states", int(symbols[0]), remedy))
        return cls(symbols, counts.double() / len(frames))

    def prepared(self, frames: Int[Tensor, " frames"]) -> Int[Tensor, " frames"]:
        """Places of the symbols.

        Raises
        ------
        DataError
            If one was not among those of the fit.
        """
        places = torch.searchsorted(self.symbols, frames).clamp(max=len(self.symbols) - 1)
        if frames.ndim != 1 or not bool((self.symbols[places] == frames).all()):
            raise DataError(expected("trajectories", "states that occur in those of the fit", "others"))
        return places

    def log_density(self, emissions: DiscreteEmissions, frames: Tensor) -> Float[Tensor, "models frames states"]:
        """Logarithm of the probability of each frame."""
        return emissions.probabilities.log().mT[:, frames]

    def sums(
        self, frames: Tensor, gamma: Float[Tensor, "models frames states"]
    ) -> Float[Tensor, "models states symbols"]:
        """Expected numbers of symbols."""
        zeros = gamma.new_zeros(len(gamma), len(self.symbols), gamma.shape[2])
        return zeros.index_add_(1, frames, gamma).mT

    def block_sums(self, frames: Tensor, gamma: Float[Tensor, "frames states"], block: Tensor, blocks: int) -> Tensor:
        """The same of one model by block."""
        zeros = gamma.new_zeros(blocks * len(self.symbols), gamma.shape[1])
        return zeros.index_add_(0, block * len(self.symbols) + frames, gamma).unflatten(0, (blocks, -1)).mT

    def prior(self, count: float) -> Float[Tensor, " symbols"]:
        """Sums of so many frames that look like all."""
        return count * self.shares

    def coordinates(self, sums: Float[Tensor, "models states symbols"]) -> Float[Tensor, "models coordinates"]:
        """Logarithms of the sums."""
        return sums.log().flatten(1)

    def emissions(self, coordinates: Float[Tensor, "models coordinates"]) -> DiscreteEmissions:
        """Emissions of largest likelihood."""
        return DiscreteEmissions(coordinates.unflatten(1, (-1, len(self.symbols))).softmax(-1))

    def log_prior(self, emissions: DiscreteEmissions, count: float) -> Float[Tensor, " models"]:
        """Log likelihood of the prior's frames."""
        return torch.xlogy(self.prior(count), emissions.probabilities).sum((1, 2))

    def natural(self, emissions: DiscreteEmissions) -> DiscreteEmissions:
        """In the units of the data."""
        return emissions

    def scaled(self, emissions: DiscreteEmissions) -> DiscreteEmissions:
        """In the units of the estimation."""
        return emissions

    def check(self, sums: Tensor, count: float) -> None:
        """A state may well have a single symbol."""
