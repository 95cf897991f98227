"""How long a Markov chain takes from one set of states to another, and which of two sets it sees first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.elimination import absorbed, checked_matrix, checked_sets, stationary_distribution
from bayesmol.errors import DataError, expected

__all__ = [
    "backward_committor",
    "commute_time",
    "first_passage_times",
    "forward_committor",
    "mean_first_passage_time",
    "mean_first_passage_times",
    "time_reversed",
]


def first_passage_times(
    P: Float[Tensor, "*draws states states"], target: Sequence[int] | Int[Tensor, " members"], *, lag: int = 1
) -> Float[Tensor, "*draws states"]:
    r"""Mean time from each state to the ``target``, in frames; zero inside it.

    .. math:: m_i = \tau + \sum_{j \notin B} P_{ij} m_j, \quad i \notin B

    The clock looks every τ frames only: a visit between two looks is not seen, so the time grows with the lag.

    Parameters
    ----------
    P
        Transition matrix of one step of ``lag`` frames.

    Raises
    ------
    DataError
        If the target is empty, or cannot be reached from some state.
    """
    matrix = checked_matrix(P)
    (members,) = checked_sets(matrix.shape[-1], target=target)
    return _times(matrix, members.to(matrix.device), lag)


def mean_first_passage_time(
    P: Float[Tensor, "*draws states states"],
    start: Sequence[int] | Int[Tensor, " members"],
    target: Sequence[int] | Int[Tensor, " others"],
    *,
    lag: int = 1,
) -> Float[Tensor, "*draws"]:
    r"""Mean time from ``start`` to ``target``, in frames, for a start by the stationary distribution within the set.

    .. math:: m_{AB} = \sum_{i \in A} \pi_i m_i \Big/ \sum_{i \in A} \pi_i

    This is not :math:`1 / k_{AB}` of the reactive flux unless A is one state: that one counts from the last visit of A
    on the way back from B.

    Raises
    ------
    DataError
        If a set is empty, the two overlap, or P is reducible.
    """
    matrix = checked_matrix(P)
    first, last = (s.to(matrix.device) for s in checked_sets(matrix.shape[-1], start=start, target=target))
    return _within(_times(matrix, last, lag), stationary_distribution(matrix), first)


def mean_first_passage_times(
    P: Float[Tensor, "*draws states states"], sets: Sequence[Sequence[int] | Tensor], *, lag: int = 1
) -> Float[Tensor, "*draws sets sets"]:
    """Mean time from each of the ``sets`` to each other, in frames, row to column; the diagonal is zero.

    Raises
    ------
    DataError
        If a set is empty, two overlap, or P is reducible.
    """
    matrix = checked_matrix(P)
    members = checked_sets(matrix.shape[-1], **{f"sets[{k}]": one for k, one in enumerate(sets)})
    members, weights = [s.to(matrix.device) for s in members], stationary_distribution(matrix)
    times = matrix.new_zeros(*matrix.shape[:-2], len(members), len(members))
    for b, target in enumerate(members):
        to_target = _times(matrix, target, lag)
        for a, start in enumerate(members):
            if a != b:
                times[..., a, b] = _within(to_target, weights, start)
    return times


def commute_time(
    P: Float[Tensor, "*draws states states"],
    first: Sequence[int] | Int[Tensor, " members"],
    second: Sequence[int] | Int[Tensor, " others"],
    *,
    lag: int = 1,
) -> Float[Tensor, "*draws"]:
    """Mean first passage time there and back, in frames, symmetric in the two sets.

    Raises
    ------
    DataError
        If a set is empty, the two overlap, or P is reducible.
    """
    there = mean_first_passage_time(P, first, second, lag=lag)
    return there + mean_first_passage_time(P, second, first, lag=lag)


def forward_committor(
    P: Float[Tensor, "*draws states states"],
    source: Sequence[int] | Int[Tensor, " members"],
    target: Sequence[int] | Int[Tensor, " others"],
) -> Float[Tensor, "*draws states"]:
    r"""Probability to see ``target`` before ``source`` from each state: 0 in the source, 1 in the target.

    .. math:: q^+_i = \sum_{j \in B} P_{ij} + \sum_{j \notin A \cup B} P_{ij} q^+_j

    Raises
    ------
    DataError
        If a set is empty, the two overlap, or neither can be reached from some state.

    References
    ----------
    Metzner, Schütte, Vanden-Eijnden, Multiscale Model. Simul. 7, 1192 (2009), equation 2.6.
    """
    matrix = checked_matrix(P)
    first, last = (s.to(matrix.device) for s in checked_sets(matrix.shape[-1], source=source, target=target))
    rest, ends = _others(matrix, torch.cat([first, last])), torch.cat([first, last])
    committor = matrix.new_zeros(matrix.shape[:-1])
    committor[..., last] = 1.0
    if len(rest):
        rows = matrix[..., rest, :]
        committor[..., rest] = absorbed(matrix, rest, rows[..., ends].sum(-1), rows[..., last].sum(-1))
    return committor


def backward_committor(
    P: Float[Tensor, "*draws states states"],
    source: Sequence[int] | Int[Tensor, " members"],
    target: Sequence[int] | Int[Tensor, " others"],
) -> Float[Tensor, "*draws states"]:
    r"""Probability that the set visited last was ``source`` and not ``target``: the committor of the reversed chain.

    Of a reversible chain, :math:`q^- = 1 - q^+`.

    Raises
    ------
    DataError
        If a set is empty, the two overlap, or P is reducible.
    """
    return forward_committor(time_reversed(P), target, source)


def time_reversed(P: Float[Tensor, "*draws states states"]) -> Float[Tensor, "*draws states states"]:
    r"""The stationary chain seen backwards, :math:`\tilde P_{ij} = \pi_j P_{ji} / \pi_i`.

    Raises
    ------
    DataError
        If P is reducible.
    """
    weights = stationary_distribution(P)
    return P.double().mT * weights[..., None, :] / weights[..., :, None]


def _times(matrix: Tensor, target: Tensor, lag: int) -> Tensor:
    if isinstance(lag, bool) or not isinstance(lag, int) or lag < 1:
        raise DataError(expected("lag", "a whole number of frames ≥ 1", lag))
    rest, times = _others(matrix, target), matrix.new_zeros(matrix.shape[:-1])
    if len(rest):
        leaving = matrix[..., rest, :][..., target].sum(-1)
        times[..., rest] = lag * absorbed(matrix, rest, leaving, torch.ones_like(leaving))
    return times


def _within(values: Tensor, weights: Tensor, members: Tensor) -> Tensor:
    """Mean of the values over the members by their weights."""
    inside = weights[..., members]
    return (inside * values[..., members]).sum(-1) / inside.sum(-1)


def _others(matrix: Tensor, members: Tensor) -> Tensor:
    left = torch.ones(matrix.shape[-1], dtype=torch.bool, device=matrix.device)
    left[members] = False
    return left.nonzero().squeeze(1)
