"""Batches that are far from each other: farthest points, and the farthest point of the largest cluster (LCMD)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.batches import Batch, checked_first, checked_pool
from bayesmol.acquisition.clusters import TIE, Clusters
from bayesmol.acquisition.determinants import roundoff
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.progress import progress
from bayesmol.typing import Features

__all__ = ["farthest", "largest_cluster"]


def largest_cluster(
    features: Features,
    size: int,
    *,
    training: Features | None = None,
    weights: Float[Tensor, " rows"] | None = None,
    first: Sequence[int] = (),
) -> Batch:
    r"""Choose rows by LCMD: each time the farthest point of the largest cluster becomes a new centre.

    Every row x belongs to the nearest centre c(x), the oldest of equally near ones. The size of a cluster is the
    sum of the squared distances of its rows from the centre, and the next row is

    .. math:: \arg\max_{x : c(x) = c^*} w_x d(x, c^*)^2,
        \qquad c^* = \arg\max_c \sum_{x : c(x) = c} w_x d(x, c)^2.

    Rows that represent many others far away are taken, in proportion to where the pool is, and outliers only as far as
    they are many. Without a centre the row with the largest :math:`w_x \lVert x \rVert^2` comes first. The rows chosen
    are those of the full search in float64, see :class:`~bayesmol.acquisition.clusters.Clusters`.

    Parameters
    ----------
    features
        One row a candidate; distances are Euclidean, so scale the columns by what a unit of each is worth.
    size
        Number of rows to choose.
    training
        Features of what is labelled already: the first centres. This is the mode TP of the reference.
    weights
        Value of each row, at least zero; one by default, as in the reference.
    first
        Rows that are in the batch anyway, in this order; they are centres before the others are chosen.

    Returns
    -------
    Batch
        Gains are :math:`w_x d^2` when chosen, squared lengths for the first without a centre.

    Raises
    ------
    DataError
        If the size does not fit the pool, a weight is negative, or a number is not finite.

    References
    ----------
    Holzmüller, Zaverkin, Kästner, Steinwart, J. Mach. Learn. Res. 24, 164 (2023), arXiv:2203.09410.
    """
    return _spread(features, size, training, weights, first, clustered=True)


def farthest(
    features: Features,
    size: int,
    *,
    training: Features | None = None,
    weights: Float[Tensor, " rows"] | None = None,
    first: Sequence[int] = (),
) -> Batch:
    r"""Choose rows by farthest-first traversal: each time :math:`\arg\max_x w_x \min_c d(x, c)^2`.

    Without weights the largest distance of a row from the batch is at most twice that of the best batch of that size
    (k-centre problem). Outliers come first. Parameters and result are those of :func:`largest_cluster`.

    References
    ----------
    Gonzalez, Theor. Comput. Sci. 38, 293 (1985).
    """
    return _spread(features, size, training, weights, first, clustered=False)


def _spread(
    features: Features,
    size: int,
    training: Features | None,
    weights: Float[Tensor, " rows"] | None,
    first: Sequence[int],
    *,
    clustered: bool,
) -> Batch:
    checked_pool(features, size, training)
    checked_first(first, size, len(features))
    weights = _checked_weights(weights, features)
    clusters = Clusters(features, weights, size, clustered, training)
    indices: list[int] = []
    gains: list[float] = []
    with progress("choosing rows", size) as advance:
        while len(indices) < size:
            if len(indices) < len(first):
                index = int(first[len(indices)])
            else:
                index = clusters.farthest() if clusters.count else _longest(features, weights)
            gains.append(
                clusters.gain(index) if clusters.count else float(_lengths(features[[index]], weights[[index]]))
            )
            clusters.add(index)
            indices.append(index)
            advance()
    device = features.device
    return Batch(torch.tensor(indices, device=device), torch.tensor(gains, dtype=torch.float64, device=device))


def _lengths(rows: Features, weights: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    return weights * rows.double().square().sum(1)


def _longest(features: Features, weights: Float[Tensor, " rows"]) -> int:
    """Row of the largest weighted length; lengths in the precision of the features leave few to be looked at."""
    rough = torch.linalg.vector_norm(features, dim=1).double().square_().mul_(weights)
    near = (rough >= float(rough.max()) * (1 - 4 * roundoff(features)) - 1e-30).nonzero().squeeze(1)
    lengths = _lengths(features[near], weights[near])
    return int(near[lengths >= lengths.max() * (1 - TIE)].min())


def _checked_weights(weights: Tensor | None, features: Features) -> Float[Tensor, " rows"]:
    if weights is None:
        return torch.ones(len(features), dtype=torch.float64, device=features.device)
    if weights.shape != (len(features),):
        raise ShapeError(expected("weights", f"shape ({len(features)},), one a row", tuple(weights.shape)))
    if not bool(torch.isfinite(weights).all()) or bool((weights < 0).any()) or not bool((weights > 0).any()):
        raise DataError(expected("weights", "finite values of at least zero, not all zero", "others"))
    return weights.to(features.device, torch.float64)
