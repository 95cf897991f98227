"""Hidden states that emit features, each with a Gaussian of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected

__all__ = ["GaussianEmissions", "GaussianFamily"]


@dataclass(frozen=True, eq=False)
class GaussianEmissions:
    """Gaussians of the features, for each of several models.

    Attributes
    ----------
    means, covariances
        In the units of the features, and their squares.
    """

    means: Float[Tensor, "models states features"]
    covariances: Float[Tensor, "models states features features"]

    def ordered(self, order: Int[Tensor, " states"]) -> GaussianEmissions:
        """The states in another order."""
        return GaussianEmissions(self.means[:, order], self.covariances[:, order])


@dataclass(frozen=True, eq=False)
class GaussianFamily:
    r"""Gaussian emissions and their statistics :math:`n_i, \sum x, \sum x x^\top`, of features with mean 0, variance 1.

    Coordinates are the mean and the Cholesky factor of the covariance, its diagonal by the logarithm: every vector of
    numbers is a Gaussian.

    Attributes
    ----------
    shift, scale
        Mean and standard deviation of each feature over all frames.
    moments
        Of all scaled frames: what the prior's frames look like.
    """

    shift: Float[Tensor, " features"]
    scale: Float[Tensor, " features"]
    moments: Float[Tensor, " sums"]

    @classmethod
    def of(cls, frames: Float[Tensor, "frames features"], states: int) -> GaussianFamily:
        """The family for these frames.

        Raises
        ------
        DataError
            If a feature is constant or a combination of others, or there are fewer different frames than states.
        """
        shift, scale = frames.mean(0), frames.std(0, correction=0)
        if not bool((scale > 1e-12 * frames.abs().amax(0)).all()):
            constant = int((scale <= 1e-12 * frames.abs().amax(0)).nonzero()[0])
            raise DataError(expected("trajectories", "features that vary", f"feature {constant} that does not"))
        if len(frames[:10_000].unique(dim=0)) < states and len(frames.unique(dim=0)) < states:
            got = f"{len(frames.unique(dim=0))}"
            raise DataError(expected("trajectories", f"at least {states} different frames", got, "take fewer states"))
        moments = _powers((frames - shift) / scale).mean(0)
        rank = int(torch.linalg.matrix_rank(_square(moments[1 + len(shift) :]), rtol=1e-10, hermitian=True))
        if rank < len(shift):
            remedy = "leave some out, or take combinations such as those of TICA"
            raise DataError(expected("trajectories", f"{len(shift)} independent features", rank, remedy))
        return cls(shift, scale, moments)

    def prepared(self, frames: Float[Tensor, "frames features"]) -> Float[Tensor, "frames features"]:
        """Scaled features.

        Raises
        ------
        ShapeError
            If they are not as many as in the fit.
        """
        if frames.shape[1:] != self.shift.shape:
            raise ShapeError(expected("trajectories", f"{len(self.shift)} features", tuple(frames.shape[1:])))
        return (frames - self.shift) / self.scale

    def log_density(self, emissions: GaussianEmissions, frames: Tensor) -> Float[Tensor, "models frames states"]:
        """Logarithm of the density of each frame, in the units of the data."""
        factor = torch.linalg.cholesky(emissions.covariances)
        off = (frames[:, None] - emissions.means[:, None]).transpose(1, 2).mT
        white = torch.linalg.solve_triangular(factor, off, upper=False)
        volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1) + self.scale.log().sum()
        constant = volume + len(self.shift) / 2 * math.log(2 * math.pi)
        return (-white.square().sum(2) / 2 - constant[..., None]).mT

    def sums(self, frames: Tensor, gamma: Float[Tensor, "models frames states"]) -> Float[Tensor, "models states sums"]:
        """Expected numbers of frames and their first two powers."""
        return gamma.mT @ _powers(frames)

    def block_sums(self, frames: Tensor, gamma: Float[Tensor, "frames states"], block: Tensor, blocks: int) -> Tensor:
        """The same of one model by block."""
        powers = _powers(frames)
        columns = [powers.new_zeros(blocks, powers.shape[1]).index_add_(0, block, g[:, None] * powers) for g in gamma.T]
        return torch.stack(columns, 1)

    def prior(self, count: float) -> Float[Tensor, " sums"]:
        """Sums of so many frames that look like all."""
        return count * self.moments

    def coordinates(self, sums: Float[Tensor, "models states sums"]) -> Float[Tensor, "models coordinates"]:
        """Means and logarithmic Cholesky factors."""
        means, covariances = _gaussian(sums, len(self.shift))
        factor = torch.linalg.cholesky(covariances)
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        factor = factor - diagonal.diag_embed() + diagonal.log().diag_embed()
        rows, columns = torch.tril_indices(len(self.shift), len(self.shift))
        return torch.cat([means, factor[..., rows, columns]], -1).flatten(1)

    def emissions(self, coordinates: Float[Tensor, "models coordinates"]) -> GaussianEmissions:
        """Emissions of largest likelihood, of scaled features."""
        size = len(self.shift)
        parts = coordinates.unflatten(1, (-1, size + size * (size + 1) // 2))
        rows, columns = torch.tril_indices(size, size)
        factor = parts.new_zeros(*parts.shape[:2], size, size)
        factor[..., rows, columns] = parts[..., size:]
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        factor = factor - diagonal.diag_embed() + diagonal.exp().diag_embed()
        return GaussianEmissions(parts[..., :size], factor @ factor.mT)

    def log_prior(self, emissions: GaussianEmissions, count: float) -> Float[Tensor, " models"]:
        """Log likelihood of the prior's frames, up to a constant."""
        size = len(self.shift)
        second = _square(self.moments[1 + size :]) + emissions.means[..., :, None] * emissions.means[..., None, :]
        trace = torch.linalg.solve(emissions.covariances, second).diagonal(dim1=-2, dim2=-1).sum(-1)
        return -count / 2 * (trace + torch.logdet(emissions.covariances)).sum(1)

    def natural(self, emissions: GaussianEmissions) -> GaussianEmissions:
        """In the units of the data."""
        outer = self.scale[:, None] * self.scale
        return GaussianEmissions(self.shift + self.scale * emissions.means, outer * emissions.covariances)

    def scaled(self, emissions: GaussianEmissions) -> GaussianEmissions:
        """In the units of the estimation."""
        outer = self.scale[:, None] * self.scale
        return GaussianEmissions((emissions.means - self.shift) / self.scale, emissions.covariances / outer)

    def check(self, sums: Float[Tensor, "states sums"], count: float) -> None:
        """Refuse a state whose width is that of the prior, as its frames have a single value in some direction.

        Raises
        ------
        ConvergenceError
            If there is one.
        """
        covariances = _gaussian(sums[None], len(self.shift))[1][0]
        scatter = sums[:, 0] * torch.linalg.eigvalsh(covariances)[:, 0]
        if float(scatter.min()) < count:
            got = f"state {int(scatter.argmin())} with a single value in some direction"
            remedy = "take fewer states, a smaller pseudocount, or discrete emissions"
            raise ConvergenceError(expected("trajectories", "features that vary in each hidden state", got, remedy))


def _powers(frames: Float[Tensor, "frames features"]) -> Float[Tensor, "frames sums"]:
    squares = (frames[:, :, None] * frames[:, None]).flatten(1)
    return torch.cat([frames.new_ones(len(frames), 1), frames, squares], 1)


def _square(values: Float[Tensor, "*batch squares"]) -> Float[Tensor, "*batch features features"]:
    return values.unflatten(-1, (math.isqrt(values.shape[-1]), -1))


def _gaussian(sums: Float[Tensor, "models states sums"], size: int) -> tuple[Tensor, Tensor]:
    """Means and covariances of weighted frames."""
    mean = sums[..., 1 : 1 + size] / sums[..., :1]
    second = _square(sums[..., 1 + size :] / sums[..., :1])
    return mean, second - mean[..., :, None] * mean[..., None, :]
