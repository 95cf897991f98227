r"""Atomic cluster expansion: body-ordered invariants of atomic environments with analytic gradients.

Each atom's neighbours are summarised by :math:`A_{i,k,lm} = \sum_j W^l_{k z_j n} R_n(r_{ij}) Y_{lm}(\hat r_{ij})` in
``k`` channels, and the invariant products of these (:mod:`bayesmol.representation.couplings`) describe the environment.
Gradients are propagated by hand,
:math:`\partial B_{ikp} / \partial r_{ij} = G_{ikp,lm}\, \partial A_{ik,lm} / \partial r_{ij}`,
in one batched matrix product per number of neighbours, without padding.

References
----------
Drautz, Phys. Rev. B 99, 014104 (2019); Darby et al., Phys. Rev. Lett. 131, 028001 (2023) for the channel mixing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from sphericart.torch import SphericalHarmonics
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.representation.couplings import Couplings
from bayesmol.representation.neighbours import Neighbours, neighbours
from bayesmol.representation.polynomials import products
from bayesmol.representation.radial import RadialBasis, covalent_radii, species_index


@dataclass(frozen=True)
class Environments:
    """Everything about neighbours that does not depend on the mixing weights, edges sorted by their first atom.

    ``radial`` (edges, radial), ``radial_slope`` (edges, 3, radial) in 1/Å; ``harmonics`` (edges, lm) and
    ``harmonics_slope`` (edges, lm, 3) in 1/Å; ``buckets`` are pairs (atoms, edges of these atoms) with equal numbers of
    neighbours.
    """

    species: Tensor
    kinds: int
    structure: Tensor
    structures: int
    first: Tensor
    second: Tensor
    vectors: Tensor
    radial: Tensor
    radial_slope: Tensor
    harmonics: Tensor
    harmonics_slope: Tensor
    buckets: tuple[tuple[Tensor, Tensor], ...]

    def to(self, dtype: torch.dtype) -> Environments:
        """The same with another floating-point type."""
        names = ("vectors", "radial", "radial_slope", "harmonics", "harmonics_slope")
        return replace(self, **{name: getattr(self, name).to(dtype) for name in names})

    @cached_property
    def tangents(self) -> tuple[Float[Tensor, "lm primitive directions"], ...]:
        """Derivatives of the primitive densities (species × radial) along the edges of each bucket, in 1/Å."""
        return tuple(self._tangent(edges.reshape(-1)) for _, edges in self.buckets)

    def _tangent(self, edges: Tensor) -> Tensor:
        harmonics, slope = self.harmonics[edges].T, self.harmonics_slope[edges].permute(1, 0, 2)
        radial, steep = self.radial[edges].T, self.radial_slope[edges].permute(2, 0, 1)
        tangent = harmonics[:, None, :, None] * steep + radial[:, :, None] * slope[:, None]
        placed = tangent.new_zeros(len(harmonics), self.kinds, *tangent.shape[1:])
        for kind in range(self.kinds):
            own = (self.species[self.second[edges]] == kind).nonzero()[:, 0]
            placed[:, kind, :, own] = tangent[:, :, own]
        return placed.reshape(len(harmonics), -1, 3 * len(edges))


def environments(structures: Structures, basis: RadialBasis, known: tuple[int, ...], degree: int) -> Environments:
    """Neighbours within the cutoff with their radial functions and spherical harmonics.

    Raises
    ------
    DataError
        If a structure holds an element outside ``known``.
    """
    species = species_index(structures.species, known)
    edges = neighbours(structures, basis.cutoff)
    distances = edges.vectors.norm(dim=-1)
    radii = covalent_radii(structures.species).to(distances)
    radial, slope = basis(distances, radii[edges.first] + radii[edges.second])
    direction = edges.vectors / distances[:, None]
    harmonics, gradient = _harmonics(edges.vectors, degree)
    return Environments(
        species=species,
        kinds=len(known),
        structure=structures.structure_index,
        structures=len(structures),
        first=edges.first,
        second=edges.second,
        vectors=edges.vectors,
        radial=radial,
        radial_slope=slope[:, None, :] * direction[:, :, None],
        harmonics=harmonics,
        harmonics_slope=gradient,
        buckets=_buckets(edges, len(species)),
    )


def _harmonics(vectors: Tensor, degree: int) -> tuple[Tensor, Tensor]:
    """Spherical harmonics normalised to mean square 1, and gradients (edges, lm, 3)."""
    size = (degree + 1) ** 2
    if not len(vectors):
        return vectors.new_zeros(0, size), vectors.new_zeros(0, size, 3)
    values, gradient = SphericalHarmonics(degree).compute_with_gradients(vectors)
    norm = math.sqrt(4 * math.pi)
    return values * norm, gradient.transpose(1, 2) * norm


def _buckets(edges: Neighbours, atoms: int) -> tuple[tuple[Tensor, Tensor], ...]:
    """Atoms grouped by their number of neighbours, with the (atoms, neighbours) positions of their edges."""
    counts = torch.bincount(edges.first, minlength=atoms)
    starts = counts.cumsum(0) - counts
    groups = []
    for count in counts.unique().tolist():
        if count:
            members = (counts == count).nonzero()[:, 0]
            groups.append((members, starts[members, None] + torch.arange(count, device=counts.device)))
    return tuple(groups)


@dataclass(frozen=True)
class Invariants:
    """Invariants of every atom and, where asked for, their derivatives summed into rows of a design matrix.

    ``values`` (channels, atoms, invariants); ``forces`` (channels, atoms, species, 3, invariants): minus the derivative
    of the sum over all centres of one species with respect to an atom's position, in 1/Å; ``virials`` (channels,
    structures, species, 9, invariants): derivative with respect to a strain.
    """

    values: Tensor
    forces: Tensor | None = None
    virials: Tensor | None = None


def mixed(environment: Environments, mixing: Float[Tensor, "degrees channels species radial"]) -> Tensor:
    """Density projections A, (channels, atoms, lm)."""
    kinds, size = mixing.shape[2:]
    atoms, width = len(environment.species), len(mixing) ** 2
    outer = environment.harmonics[:, :width, None] * environment.radial[:, None, :]
    key = environment.first * kinds + environment.species[environment.second]
    density = outer.new_zeros(atoms * kinds, width, size).index_add(0, key, outer)
    density = density.reshape(atoms, kinds, width, size).permute(2, 1, 3, 0)
    return (_spread(mixing) @ density.flatten(1, 2)).permute(1, 2, 0)


def _spread(mixing: Tensor) -> Tensor:
    """Mixing weights of each component, (lm, channels, species × radial)."""
    repeats = 2 * torch.arange(len(mixing), device=mixing.device) + 1
    return mixing.flatten(2).repeat_interleave(repeats, 0)


def invariants(
    environment: Environments, mixing: Tensor, couplings: Couplings, *, forces: bool = True, virials: bool = False
) -> Invariants:
    """Invariants and their derivatives; differentiable with respect to ``mixing``."""
    density = mixed(environment, mixing)
    values, gradient = products(density, couplings)
    if not (forces or virials):
        return Invariants(values)
    kinds = mixing.shape[2]
    atoms, channels, size = len(environment.species), values.shape[0], values.shape[-1]
    rows = values.new_zeros(channels, atoms * kinds, 3 * size) if forces else None
    strain = values.new_zeros(channels, environment.structures * kinds, 9 * size) if virials else None
    weights = _spread(mixing)
    for (members, edges), tangent in zip(environment.buckets, environment.tangents, strict=True):
        slopes = _edge_gradients(weights @ tangent[: len(weights)], gradient[:, members], edges.shape[1])
        centre = environment.species[members]
        if rows is not None:
            key = environment.second[edges] * kinds + centre[:, None]
            rows.index_add_(1, key.reshape(-1), slopes.reshape(channels, -1, 3 * size), alpha=-1)
            rows.index_add_(1, members * kinds + centre, slopes.sum(2).reshape(channels, -1, 3 * size))
        if strain is not None:
            work = torch.einsum("kaqxp,aqy->kaxyp", slopes, environment.vectors[edges]).reshape(channels, -1, 9 * size)
            strain.index_add_(1, environment.structure[members] * kinds + centre, work)
    return Invariants(
        values,
        rows.reshape(channels, atoms, kinds, 3, size) if rows is not None else None,
        strain.reshape(channels, environment.structures, kinds, 9, size) if strain is not None else None,
    )


def _edge_gradients(tangent: Tensor, gradient: Tensor, count: int) -> Tensor:
    """Derivatives of invariants along the edges of their centre, (channels, centres, neighbours, 3, invariants)."""
    channels, centres = gradient.shape[:2]
    directions = tangent.reshape(len(tangent), channels * centres, 3 * count).permute(1, 2, 0)
    return (directions @ gradient.flatten(0, 1)).reshape(channels, centres, count, 3, -1)
