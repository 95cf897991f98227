"""Transition counts that an estimator can use: finite, and between states that reach each other."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["check_connected", "checked_counts", "checked_populations", "largest_connected_set"]


def checked_counts(counts: Float[Tensor, "*draws states states"]) -> Float[Tensor, "*draws states states"]:
    """The counts in double precision.

    Raises
    ------
    ShapeError, DataError
        If they are not square with two states or more, not finite, or negative.
    """
    if counts.ndim < 2 or counts.shape[-1] != counts.shape[-2] or counts.shape[-1] < 2:
        raise ShapeError(expected("counts", "(…, states, states) with at least two states", tuple(counts.shape)))
    if not bool((torch.isfinite(counts) & (counts >= 0)).all()):
        raise DataError(expected("counts", "finite numbers ≥ 0", "a negative number, NaN or infinity"))
    return counts.double()


def largest_connected_set(counts: Float[Tensor, "states states"]) -> Int[Tensor, " connected"]:
    """States of the largest strongly connected set, rising; of equally large ones that with the most counts.

    References
    ----------
    Tarjan, SIAM J. Comput. 1, 146 (1972), as in SciPy.
    """
    labels = _components(checked_counts(counts))
    sizes = torch.bincount(labels)
    inside = torch.where(labels[:, None] == labels, counts.double().cpu(), 0.0).sum(1)
    weights = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, labels, inside)
    largest = torch.where(sizes == sizes.max(), weights, -1.0).argmax()
    return (labels == largest).nonzero().squeeze(1).to(counts.device)


def _components(counts: Tensor) -> Tensor:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    _, labels = connected_components(csr_array((counts > 0).cpu().numpy()), connection="strong")
    return torch.as_tensor(labels, dtype=torch.int64)


def check_connected(counts: Float[Tensor, "rows states states"]) -> None:
    """Refuse counts between states that do not reach each other.

    Raises
    ------
    DataError
        If the states of a matrix are not one strongly connected set.
    """
    patterns = counts > 0
    distinct = patterns[:1] if bool((patterns == patterns[:1]).all()) else patterns.flatten(1).unique(dim=0)
    for pattern in distinct.reshape(-1, *counts.shape[1:]):
        sets = int(_components(pattern).max()) + 1
        if sets > 1:
            remedy = "keep the states of largest_connected_set(counts)"
            raise DataError(expected("counts", "one strongly connected set of states", f"{sets} sets", remedy))


def checked_populations(
    stationary: Float[Tensor, "*draws states"], counts: Float[Tensor, "*rows states states"]
) -> Float[Tensor, "*draws states"]:
    """Populations that sum to one, for the states of ``counts``.

    Raises
    ------
    ShapeError, DataError
        If the states differ in number or a population is not positive.
    """
    if stationary.shape not in (counts.shape[-1:], counts.shape[:-1]):
        raise ShapeError(expected("stationary", f"{counts.shape[-1]} populations", tuple(stationary.shape)))
    if not bool((torch.isfinite(stationary) & (stationary > 0)).all()):
        raise DataError(expected("stationary", "positive populations", "zero, a negative number, NaN or infinity"))
    return (stationary / stationary.sum(-1, keepdim=True)).to(counts)
