"""Neighbour lists of a batch: who is within the cutoff of whom, periodic images included."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from bayesmol.data.structures import Structures, completed_cell
from bayesmol.errors import DataError, expected

__all__ = ["Neighbours", "neighbours"]

_SMALL = 100  # atoms; below, all pairs of an isolated molecule cost less than a cell list
_PAIRS = 2_000_000  # at a time, about 150 MB


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Directed edges, each pair in both directions, ordered by ``first``, ``second`` and the shift.

    Attributes
    ----------
    first, second
        Atoms of each edge, counted over the whole batch.
    vectors
        From ``first`` to ``second``, in Å; differentiable in the positions and the cell.
    shifts
        Lattice translations of ``second``, in cells.
    """

    first: Int[Tensor, " edges"]
    second: Int[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]
    shifts: Int[Tensor, "edges 3"]

    def __len__(self) -> int:
        return self.first.numel()


def neighbours(structures: Structures, cutoff: float) -> Neighbours:
    r"""All edges :math:`i \to j` with :math:`|r_j + nL - r_i| < r_c`, images of :math:`i` itself included.

    Small isolated molecules are compared pair by pair in one batch; all else goes through vesin.

    Parameters
    ----------
    cutoff
        Largest distance, in Å.

    Raises
    ------
    DataError
        If the cutoff is not a positive number.
    """
    if not 0 < cutoff < float("inf"):
        raise DataError(expected("cutoff", "a positive length in Å", cutoff))
    isolated = ~structures.pbc.any(1) & (structures.counts <= _SMALL)
    parts = [_isolated_edges(structures, chunk, cutoff) for chunk in _chunks(structures, isolated)]
    if not isolated.all():
        parts.append(_vesin_edges(structures, (~isolated).nonzero().squeeze(1).tolist(), cutoff))
    first, second, shifts = (torch.cat(columns) for columns in zip(*parts, strict=True))
    if 0 < int(isolated.sum()) < len(structures):
        order = first.argsort(stable=True)
        first, second, shifts = first[order], second[order], shifts[order]
    return Neighbours(first, second, _vectors(structures, first, second, shifts), shifts)


def _vectors(s: Structures, first: Tensor, second: Tensor, shifts: Tensor) -> Float[Tensor, "edges 3"]:
    vectors = s.positions[second] - s.positions[first]
    if not s.pbc.any():
        return vectors
    return vectors + torch.einsum("ek,ekx->ex", shifts.to(vectors.dtype), s.cell[s.structure_index[first]])


def _chunks(structures: Structures, isolated: Tensor) -> list[Tensor]:
    """Isolated structures in groups of about a bounded number of pairs."""
    chosen = isolated.nonzero().squeeze(1)
    if not chosen.numel():
        return []
    group = (structures.counts[chosen] ** 2).cumsum(0).div(_PAIRS, rounding_mode="floor")
    return list(chosen.split(group.unique_consecutive(return_counts=True)[1].tolist()))


def _isolated_edges(structures: Structures, chosen: Tensor, cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of the ``chosen`` structures by comparing all pairs of atoms of each, with ragged index arithmetic."""
    counts, start = structures.counts[chosen], structures.pointer[chosen]
    rows = counts.repeat_interleave(counts)  # for each atom, the size of its structure
    ends = counts.cumsum(0)
    atom = torch.arange(rows.numel(), device=rows.device) + (start - ends + counts).repeat_interleave(counts)
    first = atom.repeat_interleave(rows)
    block_end = rows.cumsum(0)
    second = torch.arange(first.numel(), device=rows.device)
    second = second + (start.repeat_interleave(counts) - block_end + rows).repeat_interleave(rows)
    positions = structures.positions.detach()
    near = (positions[second] - positions[first]).square().sum(1) < cutoff**2
    first, second = (index[near & (first != second)] for index in (first, second))
    return first, second, first.new_zeros(first.numel(), 3)


def _rank(i: NDArray[np.int64], j: NDArray[np.int64], shift: NDArray[np.int64], atoms: int) -> NDArray[np.int64]:
    """One integer for each edge, ordered as first, second and shift are."""
    rank, reach = i * atoms + j, int(np.abs(shift).max(initial=0))
    for column in shift.T:
        rank = rank * (2 * reach + 1) + column + reach
    return rank


def _vesin_edges(structures: Structures, chosen: list[int], cutoff: float) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of the ``chosen`` structures through vesin, on the CPU."""
    from vesin import NeighborList

    calculator = NeighborList(cutoff=cutoff, full_list=True)
    positions = structures.positions.detach().cpu().double().numpy()
    boxes = completed_cell(structures.cell, structures.pbc).detach().cpu().double().numpy()
    periodic, offsets = structures.pbc.cpu().numpy(), structures.pointer.tolist()
    parts = []
    for s in chosen:
        points = positions[offsets[s] : offsets[s + 1]]
        i, j, shift = calculator.compute(points, boxes[s], periodic[s], quantities="ijS")
        i, j, shift = i.astype(np.int64), j.astype(np.int64), shift.astype(np.int64).reshape(-1, 3)
        order = _rank(i, j, shift, len(points)).argsort()
        parts.append((i[order] + offsets[s], j[order] + offsets[s], shift[order]))
    device = structures.positions.device
    first, second, shifts = (torch.from_numpy(np.concatenate(part)).to(device) for part in zip(*parts, strict=True))
    return first, second, shifts
