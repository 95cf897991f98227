"""Elimination of the states of a Markov chain without one subtraction: exact to rounding in every entry."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["absorbed", "checked_matrix", "checked_sets", "stationary_distribution"]

_PANEL = 32  # states that are eliminated one by one before one matrix product passes them on to the others
_ENTRIES = {"cpu": 2**21, "cuda": 2**28}  # of the matrices worked on at a time: what the cache, or the device, holds


def checked_matrix(P: Float[Tensor, "*draws states states"]) -> Float[Tensor, "*draws states states"]:
    """The matrix in 64 bits if it is stochastic.

    Raises
    ------
    ShapeError, DataError
        If it is not square, or a row is not a distribution.
    """
    if P.ndim < 2 or P.shape[-1] != P.shape[-2] or 0 in P.shape:
        raise ShapeError(expected("P", "(*draws, states, states), none empty", tuple(P.shape)))
    matrix = P.double()
    wrong = float((matrix.sum(-1) - 1).abs().max())
    if not (wrong <= 1e-6 and bool((matrix >= 0).all())):
        got = f"rows whose sum is off by {wrong:.1e}, or an entry that is negative or NaN"
        raise DataError(expected("P", "rows that are distributions", got))
    return matrix


def checked_sets(states: int, **sets: Sequence[int] | Tensor) -> list[Int[Tensor, " members"]]:
    """The sets as indices, if no state is in two of them and none is empty.

    Raises
    ------
    DataError
        If a set is empty, names a state twice or one that is not there, or shares one with another set.
    """
    owner: dict[int, str] = {}
    for name, members in sets.items():
        for state in _indices(name, members):
            if not 0 <= state < states:
                raise DataError(expected(name, f"indices of states from 0 to {states - 1}", state))
            if state in owner:
                raise DataError(expected(name, "states that are in no set yet", f"{state}, also in {owner[state]}"))
            owner[state] = name
    return [torch.tensor(_indices(name, members)) for name, members in sets.items()]


def _indices(name: str, members: Sequence[int] | Tensor) -> list[int]:
    found = torch.as_tensor(members)
    if found.numel() == 0:
        raise DataError(expected(name, "a set with at least one state", "an empty one"))
    if found.is_floating_point() or found.dtype == torch.bool:
        raise DataError(expected(name, "indices of states", found.dtype, "of a mask, give mask.nonzero()"))
    return [int(state) for state in found.flatten()]


def stationary_distribution(P: Float[Tensor, "*draws states states"]) -> Float[Tensor, "*draws states"]:
    r"""Stationary distribution :math:`\pi^\top P = \pi^\top` with small relative error in every entry.

    The states leave one after the other, and what is left is watched only while it is in the remaining ones:

    .. math:: P_{ij} \leftarrow P_{ij} + P_{ik} P_{kj} / d_k, \quad d_k = \sum_{j<k} P_{kj}, \quad
        \pi_k = \sum_{j<k} \pi_j P_{jk} / d_k

    No number is subtracted, so that rare states and nearly separated sets lose no digit.

    Raises
    ------
    ShapeError, DataError
        If P is not stochastic, or a state cannot be reached from every other.

    References
    ----------
    Grassmann, Taksar, Heyman, Oper. Res. 33, 1107 (1985); the error: O'Cinneide, Numer. Math. 65, 109 (1993).
    """
    matrix = checked_matrix(P)
    return _by_chunks(_stationary, matrix).reshape(matrix.shape[:-1])


def _stationary(P: Tensor) -> Tensor:
    work, pivots = _eliminated(P.clone(), 0)
    weights = torch.zeros_like(P[:, 0])
    weights[:, 0] = 1
    for k in range(1, P.shape[1]):
        weights[:, k] = (weights[:, :k] * work[:, :k, k]).sum(1)
    if not bool((pivots[:, 1:] > 0).all() & (weights > 0).all() & weights.isfinite().all()):
        got = "one in which some states cannot be left or not be reached"
        raise DataError(expected("P", "an irreducible matrix", got, "keep the largest connected set of states"))
    return weights / weights.sum(1, keepdim=True)


def absorbed(
    P: Float[Tensor, "*draws states states"],
    inside: Int[Tensor, " members"],
    leaving: Float[Tensor, "*draws members"],
    reward: Float[Tensor, "*draws members"],
) -> Float[Tensor, "*draws members"]:
    r"""Expected sum of ``reward`` ≥ 0 over the steps until the chain leaves the states ``inside``.

    .. math:: x = (1 - P_{NN})^{-1} r, \quad s_i = 1 - \sum_{j \in N} P_{ij} \text{ given as a sum, not as a difference}

    Parameters
    ----------
    leaving
        Probability s to leave in one step.

    Raises
    ------
    DataError
        If some states inside are never left.

    References
    ----------
    Alfa, Xue, Ye, Math. Comput. 71, 217 (2002) (small relative error in every entry).
    """
    within = P[..., inside[:, None], inside]
    work = torch.cat([reward[..., None], leaving[..., None], within], -1)
    return _by_chunks(_solved, work).reshape(reward.shape)


def _solved(work: Tensor) -> Tensor:
    work, pivots = _eliminated(work.clone(), 2)
    if not bool((pivots > 0).all()):
        got = "one with states from which it cannot be"
        raise DataError(expected("P", "a matrix in which the sets can be reached", got, "keep the connected states"))
    solution = work[:, :, 0]
    for k in range(solution.shape[1]):
        past = (work[:, k, 2 : 2 + k] * solution[:, :k]).sum(1)
        solution[:, k] = (solution[:, k] + past) / pivots[:, k]
    return solution


def _eliminated(work: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """Eliminate the last states first, in place: rows keep what is left of a state, columns the shares that reach it.

    The first ``extra`` columns are carried along; the last of them is the probability to leave and counts as a state.
    """
    draws, states = work.shape[:2]
    pivots, counted = work.new_zeros(draws, states), max(extra - 1, 0)
    for stop in range(states, 0, -_PANEL):
        start = max(stop - _PANEL, 0)
        head = extra + start
        for k in range(stop - 1, start - 1, -1):
            row, end = work[:, k, : extra + k], extra + k
            pivots[:, k] = row[:, counted:].sum(1)
            share = work[:, :k, end] / pivots[:, k, None]
            work[:, start:k, :end] += share[:, start:, None] * row[:, None]
            work[:, :start, head:end] += share[:, :start, None] * row[:, None, head:]
            work[:, :k, end] = share
        work[:, :start, :head] += work[:, :start, head : extra + stop] @ work[:, start:stop, :head]
    return work, pivots


def _by_chunks(function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    size = max(1, _ENTRIES.get(flat.device.type, 2**21) // max(flat[0].numel(), 1))
    return torch.cat([function(part) for part in flat.split(size)])
