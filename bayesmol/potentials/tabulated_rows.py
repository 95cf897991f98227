"""Sums of splines over pairs: energies, forces and virials, for any number of splines at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.potentials.tabulated_splines import spline_weights
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import species_index

__all__ = ["PairEdges", "PairTable", "portions"]

_NUMBERS = 4_000_000  # in a block of rows, 32 MB


@dataclass(frozen=True, eq=False)
class PairTable:
    r"""Splines :math:`v_{ab,k}(r)` of every pair of elements, and constants of the atoms.

    .. math:: E_k = \tfrac12 \sum_{i \ne j} v_{z_i z_j, k}(r_{ij}) + \sum_i e_{z_i, k}

    Attributes
    ----------
    species
        Atomic numbers, ascending.
    cutoff
        In Å, where the last knot is.
    splines
        Coefficients on an even grid from 0 to the cutoff; elements a ≤ b are number b (b + 1) / 2 + a.
    constants
        Of an atom of each element.
    """

    species: tuple[int, ...]
    cutoff: float
    splines: Float[Tensor, "pairs coefficients functions"]
    constants: Float[Tensor, "kinds functions"]

    @property
    def step(self) -> float:
        """Distance of the knots in Å."""
        return self.cutoff / (self.splines.shape[1] - 3)

    def edges(self, structures: Structures) -> PairEdges:
        """Pairs of the structures and the coefficients that each one feels; raises for unknown elements."""
        species = species_index(structures.species, self.species)
        found = neighbours(structures, self.cutoff)
        distances = found.vectors.norm(dim=-1)
        kinds = species[found.first], species[found.second]
        high, low = torch.maximum(*kinds), torch.minimum(*kinds)
        left, weights, slopes = spline_weights(distances.clamp_max(self.cutoff * (1 - 1e-12)), self.step)
        places = left + self.splines.shape[1] * (high * (high + 1) // 2 + low)
        return PairEdges(
            structures, self.cutoff, species, found.first, found.vectors, distances, places, weights, slopes
        )

    def energies(self, edges: PairEdges) -> Float[Tensor, "structures functions"]:
        """Every E of every structure."""
        owner = edges.structures.structure_index
        sums = self._contracted(len(edges.structures), owner[edges.first], 0.5 * edges.weights, edges.places)
        constants = self.constants[edges.species]
        return sums.index_add(0, owner, constants)

    def forces(self, edges: PairEdges) -> Float[Tensor, "rows functions"]:
        """Minus the gradients, three rows an atom, a bounded amount of memory at a time."""
        atoms, width = len(edges.species), self.splines.shape[:2].numel()
        block = max(1, _NUMBERS // (3 * width))
        parts = []
        for start in range(0, atoms, block):
            bounds = edges.first.new_tensor([start, min(start + block, atoms)])
            own = slice(*torch.searchsorted(edges.first, bounds).tolist())
            pull = edges.directions[own, :, None] * edges.slopes[own, None]
            rows = 3 * (edges.first[own] - start)[:, None] + torch.arange(3, device=bounds.device)
            places = edges.places[own, None].expand(-1, 3)
            count = 3 * int(bounds[1] - bounds[0])
            parts.append(self._contracted(count, rows.flatten(), pull.flatten(0, 1), places.flatten()))
        return torch.cat(parts)

    def virials(self, edges: PairEdges) -> Float[Tensor, "rows functions"]:
        """Derivatives along a strain, nine rows a structure."""
        strain = 0.5 * edges.directions[:, :, None] * edges.vectors[:, None]
        values = strain.flatten(1)[..., None] * edges.slopes[:, None]
        rows = 9 * edges.structures.structure_index[edges.first][:, None] + torch.arange(9, device=values.device)
        places = edges.places[:, None].expand(-1, 9)
        return self._contracted(9 * len(edges.structures), rows.flatten(), values.flatten(0, 1), places.flatten())

    def _contracted(self, count: int, rows: Tensor, values: Tensor, places: Tensor) -> Tensor:
        """Sparse rows of four numbers each, summed, times the coefficients."""
        width = self.splines.shape[:2].numel()
        flat = (rows * width + places)[:, None] + torch.arange(4, device=rows.device)
        dense = values.new_zeros(count * width).index_add_(0, flat.flatten(), values.flatten())
        return dense.view(count, width) @ self.splines.flatten(0, 1)

    def first(self, edges: PairEdges, *, virial: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Energies, forces (atoms, 3) and virials (structures, 3, 3) of the first function alone, edge by edge."""
        table = self.splines[..., 0].flatten()
        near = table[edges.places[:, None] + torch.arange(4, device=table.device)]
        owner = edges.structures.structure_index
        energies = 0.5 * (near * edges.weights).sum(1)
        energies = table.new_zeros(len(edges.structures)).index_add(0, owner[edges.first], energies)
        energies = energies.index_add(0, owner, self.constants[edges.species, 0])
        pull = (near * edges.slopes).sum(1)[:, None] * edges.directions
        forces = torch.zeros_like(edges.structures.positions).index_add(0, edges.first, pull)
        if not virial:
            return energies, forces, None
        strain = 0.5 * pull[:, :, None] * edges.vectors[:, None]
        return energies, forces, table.new_zeros(len(energies), 3, 3).index_add(0, owner[edges.first], strain)


@dataclass(frozen=True, eq=False)
class PairEdges:
    """Pairs in both directions, ordered by the first atom, with the place of each in the tables."""

    structures: Structures
    cutoff: float
    species: Int[Tensor, " atoms"]
    first: Int[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]
    distances: Float[Tensor, " edges"]
    places: Int[Tensor, " edges"]
    weights: Float[Tensor, "edges 4"]
    slopes: Float[Tensor, "edges 4"]

    @cached_property
    def directions(self) -> Float[Tensor, "edges 3"]:
        """Unit vectors from the first atom to the second."""
        return self.vectors / self.distances[:, None]


def portions(structures: Structures, *, atoms: int = 20_000) -> Iterator[Structures]:
    """Consecutive structures with about so many atoms together, one at least."""
    group = (structures.pointer[1:] - 1).div(atoms, rounding_mode="floor")
    start = 0
    for size in group.unique_consecutive(return_counts=True)[1].tolist():
        yield structures[start : start + size]
        start += size
