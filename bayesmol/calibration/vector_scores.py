"""Statistics of vectors, such as forces on atoms, that no rotation of the frame changes."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.calibration.claim import Scores
from bayesmol.calibration.statistics import Influenced, Kind
from bayesmol.posterior import Gaussian

__all__ = ["VECTOR_STATISTICS", "energy_scores", "mahalanobis", "variogram_scores"]


def energy_scores(
    members: Float[Tensor, "members rows components"], truth: Float[Tensor, "rows components"]
) -> Float[Tensor, " rows"]:
    r"""Energy score of each vector, :math:`\mathrm E|X - y| - \tfrac12 \mathrm E|X - X'|`, unbiased.

    The second expectation is over consecutive members, which is linear in their number.

    References
    ----------
    Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359 (2007), equation 22.
    """
    return (members - truth).norm(dim=-1).mean(0) - half_spread(members)


def variogram_scores(
    members: Float[Tensor, "members rows components"], truth: Float[Tensor, "rows components"]
) -> Float[Tensor, " rows"]:
    r"""Variogram score of order 1/2, :math:`\sum_{i<j} (|y_i - y_j|^{1/2} - \mathrm E|X_i - X_j|^{1/2})^2`.

    It depends on the frame, as it compares components; it sees their correlation, which scores of components do not.

    References
    ----------
    Scheuerer and Hamill, Mon. Weather Rev. 143, 1321 (2015), equation 8.
    """
    return (_root_gaps(truth) - root_gaps(members)).square().sum(-1)


def mahalanobis(scores: Scores) -> Float[Tensor, " rows"]:
    r"""Squared length of each error over what is claimed of it, divided by the number of components.

    :math:`e^T \Sigma^{-1} e / 3` with the covariance of the row where the posterior has one, else
    :math:`|e|^2 / \operatorname{tr} \Sigma`; both have expectation 1, and do not change under rotation.
    """
    error = scores.error.view(scores.values.shape)
    blocks = _row_blocks(scores)
    if blocks is None:
        return error.square().sum(1) / scores.claim.stddev.view(error.shape).square().sum(1)
    return (error * torch.linalg.solve(blocks, error)).sum(1) / error.shape[1]


def _row_blocks(scores: Scores) -> Float[Tensor, "rows components components"] | None:
    """Covariance of the components of each row; ``None`` if the posterior has none."""
    posterior, width = scores.claim.posterior, scores.values.shape[1]
    covariance = posterior.covariance if isinstance(posterior, Gaussian) else None
    if covariance is None:
        return None
    blocks = covariance if isinstance(covariance, tuple) else (covariance,)
    tiles = [block.unflatten(0, (-1, width)).unflatten(2, (-1, width)) for block in blocks]
    return torch.cat([tile.diagonal(dim1=0, dim2=2).permute(2, 0, 1) for tile in tiles]).double()


def _rowwise(scores: Scores, values: Float[Tensor, " rows"]) -> Influenced:
    """Mean over rows; the first component of a row stands for all."""
    mean = values.mean()

    def influence() -> Tensor:
        found = values.new_zeros(scores.values.shape)
        found[:, 0] = found.shape[1] * (values - mean)
        return found.flatten()

    return Influenced(float(mean), influence, "scale")


def _energy(scores: Scores) -> Influenced:
    distance = (scores.claim.members - scores.values.double()).norm(dim=-1).mean(0)
    return _rowwise(scores, distance - scores.claim.derived(half_spread))


def _variogram(scores: Scores) -> Influenced:
    gaps = _root_gaps(scores.values.double()) - scores.claim.derived(root_gaps)
    return _rowwise(scores, gaps.square().sum(-1))


def half_spread(members: Float[Tensor, "members rows components"]) -> Float[Tensor, " rows"]:
    """Half the mean distance of consecutive members."""
    return (members - members.roll(1, 0)).norm(dim=-1).mean(0) / 2


def root_gaps(members: Float[Tensor, "members rows components"]) -> Float[Tensor, "rows pairs"]:
    """Mean root of the difference of each pair of components."""
    return torch.stack([_root_gaps(member) for member in members]).mean(0)


def _root_gaps(vectors: Float[Tensor, "rows components"]) -> Float[Tensor, "rows pairs"]:
    first, second = torch.triu_indices(vectors.shape[1], vectors.shape[1], 1, device=vectors.device)
    return (vectors[:, first] - vectors[:, second]).abs().sqrt()


VECTOR_STATISTICS = {
    "vector_z_square": Kind(lambda s: _rowwise(s, mahalanobis(s)), "|error|² of a vector over that claimed"),
    "energy_score": Kind(_energy, "CRPS of whole vectors", True),
    "variogram_score": Kind(_variogram, "of order 1/2; sees correlations", True),
}
