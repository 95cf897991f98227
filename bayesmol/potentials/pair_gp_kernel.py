"""Pair functions as a Gaussian process of the distance: the kernel, its features, and rows of a linear model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.representation.design import CHUNK_BYTES, Design
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import species_index

_SOFT = 0.5  # Å: a length scale shrinks with the distance down to about here
_SPACING = 0.4  # of the length scale; the part of the kernel between inducing distances is below 1e-12 of it
_NEGLIGIBLE = 1e-13  # of the largest eigenvalue


@dataclass(frozen=True)
class PairKernel:
    r"""Covariance of a pair function at two distances, in units of its amplitude.

    .. math:: k(r, r') = f(r) f(r') \exp\Big[-\frac{(x - x')^2}{2 \ell^2}\Big], \quad x = \ln(r + r_0), \quad
        f(r) = (1 - r^2/r_c^2)^3

    It is smooth on the scale :math:`\ell (r + r_0)`: finely at bonding distances, coarsely at long ones. Called with
    distances it gives features :math:`\varphi` with :math:`\varphi(r) \cdot \varphi(r') = k(r, r')` to 1e-10, by
    inducing distances that are denser than any function of the process can tell.

    Attributes
    ----------
    cutoff
        :math:`r_c` in Å; two derivatives of a pair function are continuous there.
    length_scale
        :math:`\ell`, relative to the distance.

    Raises
    ------
    DataError
        If one is not positive, or so short that there are more than 400 inducing distances.
    """

    cutoff: float = 5.5
    length_scale: float = 0.2

    def __post_init__(self) -> None:
        if not (0 < self.cutoff < float("inf") and 0 < self.length_scale < float("inf")):
            got = f"cutoff={self.cutoff}, length_scale={self.length_scale}"
            raise DataError(expected("pair kernel", "a positive cutoff in Å and a positive length scale", got))
        if len(self._inducing) > 400:
            raise DataError(expected("length_scale", "one that the data can resolve", self.length_scale, "lengthen it"))

    def covariance(
        self, first: Float[Tensor, " first"], second: Float[Tensor, " second"]
    ) -> Float[Tensor, "first second"]:
        """Kernel of two sets of distances in Å."""
        return self._window(first)[0][:, None] * self._window(second)[0] * self._bare(_warped(first), _warped(second))

    def __call__(
        self, distances: Float[Tensor, " edges"]
    ) -> tuple[Float[Tensor, "edges features"], Float[Tensor, "edges features"]]:
        """Features at ``distances`` and their derivatives (1/Å)."""
        inducing, root = self._inducing.to(distances), self._root.to(distances)
        place = _warped(distances)
        bare = self._bare(place, inducing)
        window, slope = self._window(distances)
        away = (inducing - place[:, None]) / (self.length_scale**2 * (distances + _SOFT))[:, None]
        return (window[:, None] * bare) @ root, ((slope[:, None] + window[:, None] * away) * bare) @ root

    @property
    def size(self) -> int:
        """Number of features."""
        return self._root.shape[1]

    def _bare(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((first[:, None] - second) / self.length_scale).square())

    def _window(self, distances: Tensor) -> tuple[Tensor, Tensor]:
        inside = (1 - (distances / self.cutoff).square()).clamp_min(0.0)
        return inside**3, -6 * distances / self.cutoff**2 * inside**2

    @cached_property
    def _inducing(self) -> Float[Tensor, " inducing"]:
        ends = _warped(torch.tensor([0.0, self.cutoff], dtype=torch.float64))
        margin = 2 * self.length_scale
        count = int((ends[1] - ends[0] + 2 * margin) / (_SPACING * self.length_scale)) + 2
        return torch.linspace(float(ends[0]) - margin, float(ends[1]) + margin, count, dtype=torch.float64)

    @cached_property
    def _root(self) -> Float[Tensor, "inducing features"]:
        values, vectors = torch.linalg.eigh(self._bare(self._inducing, self._inducing))
        kept = values > _NEGLIGIBLE * values[-1]
        return vectors[:, kept] / values[kept].sqrt()


def _warped(distances: Tensor) -> Tensor:
    return torch.log(distances + _SOFT)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Directed edges within the cutoff, and the elements of the atoms by number."""

    species: Int[Tensor, " atoms"]
    structure: Int[Tensor, " atoms"]
    structures: int
    first: Int[Tensor, " edges"]
    second: Int[Tensor, " edges"]
    vectors: Float[Tensor, "edges 3"]

    def to(self, dtype: torch.dtype) -> Pairs:
        """The same with another floating-point type."""
        return replace(self, vectors=self.vectors.to(dtype))


@dataclass(frozen=True)
class PairRepresentation:
    r"""Features in which a sum over pairs, :math:`E = \tfrac12 \sum_{i \ne j} f_{z_i z_j}(r_{ij})`, is linear.

    It takes the place of :class:`~bayesmol.representation.design.Representation` in a linear model. The share of an
    atom in its pairs has columns of its own, those of :math:`f_{ab}` and :math:`f_{ba}` apart; the energy feels their
    sum alone, which is again a Gaussian process with this kernel.

    Attributes
    ----------
    species
        Atomic numbers, ascending.
    basis
        Kernel of each pair of elements.
    """

    species: tuple[int, ...]
    basis: PairKernel

    @cached_property
    def families(self) -> Int[Tensor, " columns"]:
        """Pair of elements, in either order, to which each column belongs: columns of one family share a prior."""
        count = len(self.species)
        kinds = torch.arange(count)
        low, high = torch.minimum(kinds[:, None], kinds), torch.maximum(kinds[:, None], kinds)
        return (high * (high + 1) // 2 + low).flatten().repeat_interleave(self.basis.size)

    def environments(self, structures: Structures) -> Pairs:
        """Pairs within the cutoff; raises :class:`DataError` for an unknown element."""
        species = species_index(structures.species, self.species)
        edges = neighbours(structures, self.basis.cutoff)
        owner = structures.structure_index
        return Pairs(species, owner, len(structures), edges.first, edges.second, edges.vectors)

    def composition(self, structures: Structures) -> Float[Tensor, "structures species"]:
        """Number of atoms of each known element."""
        kinds = species_index(structures.species, self.species)
        counts = structures.positions.new_zeros(len(structures), len(self.species))
        return counts.index_put((structures.structure_index, kinds), counts.new_ones(len(kinds)), accumulate=True)

    def design(self, environment: Pairs, *, forces: bool = True, virial: bool = False) -> Design:
        """Rows for energies, forces and virials; columns by element of the atom, of its neighbour, and feature."""
        kinds, atoms = len(self.species), len(environment.species)
        distances = environment.vectors.norm(dim=-1)
        values, slopes = self.basis(distances)
        near = environment.first * kinds + environment.species[environment.second]
        atomic = values.new_zeros(atoms * kinds, values.shape[1]).index_add(0, near, 0.5 * values).view(atoms, -1)
        own = environment.structure * kinds + environment.species
        energy = atomic.new_zeros(environment.structures * kinds, atomic.shape[1]).index_add(0, own, atomic)
        pull = 0.5 * slopes[:, None] * (environment.vectors / distances[:, None])[:, :, None]
        force = self._forces(environment, pull) if forces else None
        strain = self._virials(environment, pull) if virial else None
        return Design(energy.view(environment.structures, -1), force, strain, atomic, environment.species)

    def _forces(self, environment: Pairs, pull: Tensor) -> Tensor:
        """Half of a pair belongs to either atom, and both halves pull at both."""
        kinds = len(self.species)
        centre, other = environment.species[environment.first], environment.species[environment.second]
        found = pull.new_zeros(len(environment.species) * kinds**2, *pull.shape[1:])
        for column in (centre * kinds + other, other * kinds + centre):
            found.index_add_(0, environment.first * kinds**2 + column, pull)
        return found.unflatten(0, (-1, kinds**2)).permute(0, 2, 1, 3).reshape(3 * len(environment.species), -1)

    def _virials(self, environment: Pairs, pull: Tensor) -> Tensor:
        kinds = len(self.species)
        strain = pull[:, :, None] * environment.vectors[:, None, :, None]
        column = environment.species[environment.first] * kinds + environment.species[environment.second]
        key = environment.structure[environment.first] * kinds**2 + column
        found = strain.new_zeros(environment.structures * kinds**2, 9, strain.shape[-1])
        found.index_add_(0, key, strain.flatten(1, 2))
        return found.unflatten(0, (-1, kinds**2)).permute(0, 2, 1, 3).reshape(9 * environment.structures, -1)

    def chunks(self, structures: Structures) -> Iterator[slice]:
        """Consecutive structures whose rows fit into the memory of one chunk."""
        around = min(float(structures.counts.max()), 0.1 * 4.2 * self.basis.cutoff**3)
        around = 0.1 * 4.2 * self.basis.cutoff**3 if bool(structures.pbc.any()) else around
        budget = max(1.0, CHUNK_BYTES / (8 * self.basis.size * (6 * around + 4 * len(self.species) ** 2)))
        start = 0
        while start < len(structures):
            reach = structures.pointer - structures.pointer[start] <= budget
            stop = min(max(start + 1, int(reach.nonzero()[-1])), len(structures))
            yield slice(start, stop)
            start = stop


def parameters(kernel: PairKernel) -> dict[str, Any]:
    """What a file holds of a kernel."""
    return {"cutoff": kernel.cutoff, "length_scale": kernel.length_scale}
