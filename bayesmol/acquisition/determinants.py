"""Rows of a feature matrix that are informative together: greedy log-determinants of pools of a million."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.acquisition.batches import Batch, checked_pool
from bayesmol.errors import DataError, expected
from bayesmol.progress import progress
from bayesmol.typing import Features

__all__ = ["determinant"]

_WORKING = 4096  # rows that are searched exactly between two passes over the pool
_CHUNK = 16384  # rows of one product, so that it stays in the cache
_TIE = 1e-11  # variances that agree to this fraction are equal: round-off decides nothing


def determinant(features: Features, size: int, *, noise: float, training: Features | None = None) -> Batch:
    r"""Choose the rows S that maximise the information of their labels about a linear model, greedily.

    .. math:: I(S) = \tfrac12 \ln \det\bigl( I + F_S A^{-1} F_S^\top / \sigma^2 \bigr),
        \qquad A = I + F_T^\top F_T / \sigma^2,

    with weights of unit prior variance and the rows T whose labels are known. This is BatchBALD for a Gaussian
    process with the kernel :math:`F F^\top`, the greedy mode of a determinantal point process and a pivoted Cholesky
    factorisation. A variance only shrinks as rows are chosen (submodularity), so a pass over the pool gives upper
    bounds, and the rows with the largest are searched exactly, in float64, until a row outside could be the best. The
    rows chosen are those of the full search in float64, the one with the lowest index of equal ones, and their
    information is at least :math:`1 - 1/e` of that of the best batch.

    Parameters
    ----------
    features
        One row a candidate. Scaled by a weight each, they trade diversity for that weight.
    size
        Number of rows to choose.
    noise
        Standard deviation :math:`\sigma` of a label, in the unit in which the weights have variance one.
    training
        Features of what is labelled already.

    Returns
    -------
    Batch
        With the gains :math:`\tfrac12 \ln(1 + v)` in nats, v the variance that is left over that of the noise.

    Raises
    ------
    DataError
        If the size does not fit the pool, the noise is not positive, or a feature is not finite.

    References
    ----------
    Minoux, Optimization Techniques, Springer (1978), 234 (lazy greedy); Chen, Zhang, Zhou, NeurIPS 2018 (greedy modes
    of determinantal point processes); Kirsch, van Amersfoort, Gal, NeurIPS 2019 (BatchBALD).
    """
    checked_pool(features, size, training)
    if not noise > 0:
        raise DataError(expected("noise", "a positive standard deviation of a label", noise))
    known = torch.eye(features.shape[1], dtype=torch.float64, device=features.device)
    if training is not None:
        known += (training.double() / noise).T @ (training.double() / noise)
    lengths = torch.linalg.vector_norm(features, dim=1) / noise
    indices: list[int] = []
    variances, working = [], _WORKING
    with progress("choosing rows", size) as advance:
        while len(indices) < size:
            root = _root(known) / noise
            rows, outside = _working_set(_bounds(features, root, lengths, noise, indices), working)
            part = features[rows].double()
            found, gained = _search(part @ root, outside, size - len(indices))
            working = working if found else 8 * working
            indices += rows[found].tolist()
            variances += gained
            known += (part[found] / noise).T @ (part[found] / noise)
            advance(len(found))
    gains = torch.tensor(variances, dtype=torch.float64, device=features.device).log1p() / 2
    return Batch(torch.tensor(indices, device=features.device), gains)


def _root(known: Float[Tensor, "features features"]) -> Float[Tensor, "features features"]:
    """Square root R of the covariance of the weights, R Rᵀ = A⁻¹."""
    eye = torch.eye(len(known), dtype=known.dtype, device=known.device)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(known), eye, upper=False).T.contiguous()


def _bounds(
    features: Features, root: Tensor, lengths: Float[Tensor, " rows"], noise: float, chosen: list[int]
) -> Float[Tensor, " rows"]:
    """Upper bounds of the variances of all rows in their own precision; the round-off of the product is added."""
    scale = root.to(features)
    bounds = torch.empty_like(lengths)
    buffer = features.new_empty(min(_CHUNK, len(features)), features.shape[1])
    for start in range(0, len(features), _CHUNK):
        part = features[start : start + _CHUNK]
        whitened = torch.mm(part, scale, out=buffer[: len(part)])
        torch.linalg.vector_norm(whitened, dim=1, out=bounds[start : start + _CHUNK])
    error = roundoff(features) * float(torch.linalg.matrix_norm(root)) * noise
    bounds.add_(lengths, alpha=error).square_()
    bounds[chosen] = -torch.inf
    return bounds


def roundoff(features: Features) -> float:
    """Relative bound of the round-off of a product of rows, with the precision to which torch is set for float32."""
    bits = {"highest": torch.finfo(features.dtype).eps, "high": 2.0**-10, "medium": 2.0**-7}
    setting = torch.get_float32_matmul_precision() if features.dtype == torch.float32 else "highest"
    return (features.shape[1] + 16) * bits[setting]


def _working_set(bounds: Float[Tensor, " rows"], working: int) -> tuple[Int[Tensor, " working"], float]:
    """Rows with the largest bounds, ascending by index, and the largest bound of the others."""
    if len(bounds) <= working:
        return torch.arange(len(bounds), device=bounds.device), -torch.inf
    top = bounds.topk(working + 1)
    return top.indices[:-1].sort().values, float(top.values[-1])


def _search(whitened: Float[Tensor, "working features"], outside: float, size: int) -> tuple[list[int], list[float]]:
    """Rows chosen one after the other while the best is above every bound ``outside``, and their variances."""
    variances = whitened.square().sum(1)
    covariance = torch.eye(whitened.shape[1], dtype=whitened.dtype, device=whitened.device)
    # Below this the differences of variances have lost digits: a new pass computes them afresh.
    floor = 1e-4 * float(variances.max())
    chosen: list[int] = []
    gained: list[float] = []
    while len(chosen) < min(size, len(whitened)):
        best = float(variances.max())
        if best * (1 - _TIE) <= outside or (chosen and best < floor):
            break
        index = int((variances >= best * (1 - _TIE)).nonzero()[0])
        variance = float(variances[index])
        direction = covariance @ whitened[index]
        overlap = whitened @ direction
        variances -= overlap.square() / (1 + variance)
        covariance -= torch.outer(direction, direction) / (1 + variance)
        variances[index] = -torch.inf
        chosen.append(index)
        gained.append(variance)
    return chosen, gained
