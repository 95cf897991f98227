"""Transition-path theory: the flux of trajectories that go from one set of states to another, and its paths."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.elimination import checked_sets, stationary_distribution
from bayesmol.dynamics.passage import backward_committor, forward_committor
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected

__all__ = ["Pathway", "ReactiveFlux", "capacity", "pathways", "reactive_flux"]


@dataclass(frozen=True, eq=False)
class ReactiveFlux:
    r"""Stationary flux of the reactive trajectories from A to B, of one matrix or of every draw.

    Attributes
    ----------
    source, target
        States of A and of B.
    stationary, forward, backward
        Stationary distribution and committors.
    gross
        :math:`f_{ij} = \pi_i q^-_i P_{ij} q^+_j` for i ≠ j, a probability for each step of ``lag`` frames.
    lag
        Of one step, in frames.
    """

    source: tuple[int, ...]
    target: tuple[int, ...]
    stationary: Float[Tensor, "*draws states"]
    forward: Float[Tensor, "*draws states"]
    backward: Float[Tensor, "*draws states"]
    gross: Float[Tensor, "*draws states states"]
    lag: int

    @property
    def net(self) -> Float[Tensor, "*draws states states"]:
        r"""Net flux :math:`\max(f_{ij} - f_{ji}, 0)`, for each step."""
        return (self.gross - self.gross.mT).clamp(min=0)

    @property
    def total(self) -> Float[Tensor, "*draws"]:
        r"""Reactive trajectories that leave A (and reach B) in one step, :math:`F = \sum_{i \in A} \sum_j f_{ij}`."""
        return self.gross[..., list(self.source), :].sum((-2, -1))

    @property
    def rate(self) -> Float[Tensor, "*draws"]:
        r"""Rate :math:`k_{AB} = F / (\tau \sum_i \pi_i q^-_i)`, in one over frames."""
        return self.total / (self.lag * (self.stationary * self.backward).sum(-1))


def reactive_flux(
    P: Float[Tensor, "*draws states states"],
    source: Sequence[int] | Int[Tensor, " members"],
    target: Sequence[int] | Int[Tensor, " others"],
    *,
    lag: int = 1,
) -> ReactiveFlux:
    """Flux of the trajectories from ``source`` to ``target``; P need not be reversible.

    Raises
    ------
    DataError
        If a set is empty, the two overlap, or P is reducible.

    References
    ----------
    Metzner, Schütte, Vanden-Eijnden, Multiscale Model. Simul. 7, 1192 (2009), section 2.
    """
    if isinstance(lag, bool) or not isinstance(lag, int) or lag < 1:
        raise DataError(expected("lag", "a whole number of frames ≥ 1", lag))
    first, last = checked_sets(P.shape[-1], source=source, target=target)
    weights = stationary_distribution(P)
    forward, backward = forward_committor(P, first, last), backward_committor(P, first, last)
    gross = (weights * backward)[..., :, None] * P.double() * forward[..., None, :]
    gross.diagonal(dim1=-2, dim2=-1).zero_()
    return ReactiveFlux(tuple(first.tolist()), tuple(last.tolist()), weights, forward, backward, gross, lag)


@dataclass(frozen=True)
class Pathway:
    """States on the way from A to B, and the net flux that it carries, in the unit of the flux."""

    states: tuple[int, ...]
    flux: float


def pathways(
    net: Float[Tensor, "states states"],
    source: Sequence[int],
    target: Sequence[int],
    *,
    share: float = 0.99,
    most: int = 1000,
) -> list[Pathway]:
    r"""Strongest paths of a net flux, until they carry ``share`` of all of it.

    Each path has the largest bottleneck of all paths that remain, and on either side of the bottleneck the same holds
    again; its bottleneck's flux is then taken from the network. Give the net flux of one matrix, such as the mean of
    the draws; :func:`capacity` then says how sure a path is.

    Raises
    ------
    ShapeError, DataError
        If the flux is not a square matrix of numbers ≥ 0, the share is not in (0, 1], or a set is empty or overlaps.
    ConvergenceError
        If ``most`` paths carry less than the share.

    References
    ----------
    Metzner, Schütte, Vanden-Eijnden, Multiscale Model. Simul. 7, 1192 (2009), section 3.
    """
    left = _network(net)
    first, last = (set(s.tolist()) for s in checked_sets(len(net), source=source, target=target))
    if not 0 < share <= 1:
        raise DataError(expected("share", "a number in (0, 1]", share))
    found: list[Pathway] = []
    total = sum(flow for i in first for flow in left[i].values())
    carried, spare = 0.0, 1e-12 * total
    while carried < share * total - spare:
        states = _strongest(left, first, last, spare)
        if states is None or len(found) == most:
            got = f"{carried / total:.3f} by {len(found)}"
            raise ConvergenceError(expected("pathways", f"{share} of the flux", got, "allow more paths or less flux"))
        edges = list(pairwise(states))
        flow = min(left[i][j] for i, j in edges)
        for i, j in edges:
            left[i][j] -= flow
        found.append(Pathway(tuple(states), flow))
        carried += flow
    return found


def capacity(net: Float[Tensor, "*draws states states"], states: Sequence[int]) -> Float[Tensor, "*draws"]:
    """Largest net flux that the path through ``states`` can carry in each draw: that of its bottleneck.

    Raises
    ------
    DataError
        If the path has fewer than two states.
    """
    if len(states) < 2:
        raise DataError(expected("states", "a path of at least two states", len(states)))
    return net[..., list(states[:-1]), list(states[1:])].amin(-1)


def _network(net: Tensor) -> list[dict[int, float]]:
    if net.ndim != 2 or net.shape[0] != net.shape[1]:
        raise ShapeError(expected("net", "(states, states)", tuple(net.shape), "give one draw, or the mean"))
    if not bool((net >= 0).all() & net.isfinite().all()) or not bool((net > 0).any()):
        raise DataError(expected("net", "fluxes ≥ 0, not all zero", "others"))
    return [{j: flow for j, flow in enumerate(row) if flow > 0} for row in net.tolist()]


def _strongest(left: list[dict[int, float]], first: set[int], last: set[int], above: float) -> list[int] | None:
    """Path over edges stronger than ``above`` whose bottleneck is the widest, and so on beside the bottleneck."""
    path = _widest(left, first, last, above)
    if path is None or len(path) < 2:
        return path
    i, j = min(pairwise(path), key=lambda edge: left[edge[0]][edge[1]])
    width = left[i][j]
    before, after = _strongest(left, first, {i}, width), _strongest(left, {j}, last, width)
    # Of two bottlenecks of the same flux, the other one bars the way beside the first; then any widest path will do.
    return path if before is None or after is None else before + after


def _widest(left: list[dict[int, float]], first: set[int], last: set[int], above: float) -> list[int] | None:
    """Path with the widest bottleneck, by Dijkstra's search for the largest of the smallest edges."""
    heap = [(-float("inf"), state, -1) for state in sorted(first)]
    before: dict[int, int] = {}
    while heap:
        width, state, previous = heapq.heappop(heap)
        if state in before:
            continue
        before[state] = previous
        if state in last:
            return _traced(before, state)
        for following, flow in left[state].items():
            if flow > above and following not in before:
                heapq.heappush(heap, (max(width, -flow), following, state))
    return None


def _traced(before: dict[int, int], state: int) -> list[int]:
    path = [state]
    while before[path[-1]] >= 0:
        path.append(before[path[-1]])
    return path[::-1]
