"""Batches that take variance away where it matters: greedy reduction of the variance of target structures."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.acquisition.batches import Batch
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.progress import progress

__all__ = ["variance_batch"]

_CHUNK = 2**22  # numbers of one part of the candidates in memory


def variance_batch(
    factors: Sequence[Float[Tensor, " _ rank"]],
    targets: Sequence[Float[Tensor, " _ rank"]],
    noise: float,
    size: int,
    *,
    first: Sequence[int] = (),
    costs: Float[Tensor, " candidates"] | None = None,
) -> Batch:
    r"""Greedy batch whose labels leave the least variance in the targets.

    With the factors :math:`W_s` of the covariance :math:`W_s W_t^\top` of labels, and :math:`M = \sum_t T_t^\top T_t`
    of the targets, the labels of structure s take away

    .. math:: \operatorname{tr}\bigl( H_s M H_s^\top \bigr), \quad H_s = L_s^{-1} W_s C, \quad
       L_s L_s^\top = \sigma^2 1 + W_s C W_s^\top

    of the summed variance of the targets. Each choice replaces C, which is 1 before, by :math:`C - H_s^\top H_s`. A
    structure on the edge of the pool, which a log-determinant prefers, is taken only if much lies near it.

    Parameters
    ----------
    factors, targets
        One a structure, in the unit of the labels; all of one rank.
    noise
        Standard deviation of a label, in the same unit.
    first
        Candidates that are in the batch anyway.
    costs
        Of each candidate: the reduction for a unit of cost decides.

    Returns
    -------
    batch
        Gains are reductions of the mean variance of a target label, given the structures chosen before.

    References
    ----------
    Cohn, Ghahramani, Jordan, J. Artif. Intell. Res. 4, 129 (1996), section 3; Holzmüller et al., J. Mach. Learn. Res.
    24, 164 (2023), for the same objective as BAIT.
    """
    rows, goal, labels = _padded(factors, targets, noise, size)
    weight = 1.0 if costs is None else 1 / costs.to(rows)
    indices: list[int] = []
    gains: list[float] = []
    left = rows.clone()
    with progress("choosing structures", size) as advance:
        while len(indices) < size:
            found = torch.cat([_gains(*part, goal, noise) for part in _parts(rows, left)]) / labels
            worth = found * weight
            worth[indices] = -torch.inf
            indices.append(first[len(indices)] if len(indices) < len(first) else int(worth.argmax()))
            gains.append(float(found[indices[-1]]))
            learned = _learned(rows[indices[-1]], left[indices[-1]], noise)
            for row, rest in _parts(rows, left):
                rest -= (row @ learned.mT) @ learned
            advance()
    return Batch(torch.tensor(indices, device=rows.device), rows.new_tensor(gains))


def _gains(row: Tensor, left: Tensor, goal: Tensor, noise: float) -> Float[Tensor, " candidates"]:
    taken = _learned(row, left, noise)
    return ((taken @ goal) * taken).sum((-2, -1))


def _learned(row: Tensor, left: Tensor, noise: float) -> Tensor:
    """:math:`L^{-1} W C` for the rows W and what is left of them, W C."""
    eye = torch.eye(row.shape[-2], dtype=row.dtype, device=row.device)
    lower = torch.linalg.cholesky(left @ row.mT + noise**2 * eye)
    return torch.linalg.solve_triangular(lower, left, upper=False)


def _parts(rows: Tensor, left: Tensor) -> list[tuple[Tensor, Tensor]]:
    step = max(1, _CHUNK // rows[0].numel())
    return list(zip(rows.split(step), left.split(step), strict=True))


def _padded(
    factors: Sequence[Tensor], targets: Sequence[Tensor], noise: float, size: int
) -> tuple[Float[Tensor, "candidates labels rank"], Float[Tensor, "rank rank"], int]:
    """Candidates with rows of zeros, which no label moves; :math:`M` and the number of target labels."""
    if not 1 <= size <= len(factors):
        raise DataError(expected("size", f"1 to {len(factors)} (candidates)", size, "enlarge the pool"))
    if not noise > 0:
        raise DataError(expected("noise", "a positive standard deviation of a label", noise))
    shapes = {(part.ndim, part.shape[-1]) for part in (*factors, *targets)}
    if len(shapes) != 1 or not targets:
        raise ShapeError(expected("factors, targets", "shapes (labels, rank) with one rank", sorted(shapes)))
    rows = torch.nn.utils.rnn.pad_sequence([factor.double() for factor in factors], batch_first=True)
    goal = torch.cat([target.double() for target in targets]).to(rows)
    if not bool(torch.isfinite(rows).all() and torch.isfinite(goal).all()):
        raise DataError(expected("factors, targets", "finite numbers", "NaN or infinity"))
    return rows, goal.mT @ goal, len(goal)
