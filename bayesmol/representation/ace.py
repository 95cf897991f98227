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

import torch
from jaxtyping import Float
from sphericart.torch import SphericalHarmonics
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.representation.couplings import Couplings, Invariant, block
from bayesmol.representation.neighbours import Neighbours, neighbours
from bayesmol.representation.radial import RadialBasis, covalent_radii, species_index


@dataclass(frozen=True)
class Environments:
    """Everything about neighbours that does not depend on the mixing weights, edges sorted by their first atom.

    ``radial`` (edges, radial), ``radial_slope`` (edges, 3, radial) in 1/Å; ``harmonics`` (edges, lm) and
    ``harmonics_slope`` (edges, lm, 3) in 1/Å; ``buckets`` are pairs (atoms, edges of these atoms) with equal numbers of
    neighbours.
    """

    species: Tensor
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
    weights = _edge_weights(mixing, environment.radial, environment.species[environment.second])
    values = weights * environment.harmonics
    shape = (mixing.shape[1], len(environment.species), values.shape[-1])
    return values.new_zeros(shape).index_add(1, environment.first, values)


def _edge_weights(mixing: Tensor, radial: Tensor, species: Tensor) -> Tensor:
    """Radial function of each channel and degree on each edge, (channels, edges, lm)."""
    out = [_degree_weights(mixing[degree], radial, species).unsqueeze(-1) for degree in range(len(mixing))]
    return torch.cat([w.expand(*w.shape[:-1], 2 * degree + 1) for degree, w in enumerate(out)], -1)


def _degree_weights(mixing: Tensor, radial: Tensor, species: Tensor) -> Tensor:
    channels, kinds, size = mixing.shape
    spread = radial.new_zeros(len(radial), kinds, size)
    spread = spread.index_put((torch.arange(len(radial), device=radial.device), species), radial)
    return mixing.reshape(channels, -1) @ spread.flatten(1).T


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
    for members, edges in environment.buckets:
        slopes = _edge_gradients(environment, mixing, gradient[:, members], edges)
        centre = environment.species[members]
        if forces:
            key = environment.second[edges] * kinds + centre[:, None]
            rows = rows.index_add(1, key.reshape(-1), slopes.reshape(channels, -1, 3 * size), alpha=-1)
            rows = rows.index_add(1, members * kinds + centre, slopes.sum(2).reshape(channels, -1, 3 * size))
        if virials:
            work = torch.einsum("kaqxp,aqy->kaxyp", slopes, environment.vectors[edges]).reshape(channels, -1, 9 * size)
            strain = strain.index_add(1, environment.structure[members] * kinds + centre, work)
    return Invariants(
        values,
        rows.reshape(channels, atoms, kinds, 3, size) if forces else None,
        strain.reshape(channels, environment.structures, kinds, 9, size) if virials else None,
    )


def _edge_gradients(environment: Environments, mixing: Tensor, gradient: Tensor, edges: Tensor) -> Tensor:
    """Derivatives of invariants along the edges of their centre, (channels, centres, neighbours, 3, invariants)."""
    flat = edges.reshape(-1)
    species = environment.species[environment.second[flat]]
    channels, count = mixing.shape[1], edges.shape[1]
    harmonics, slope = environment.harmonics[flat], environment.harmonics_slope[flat]
    parts = []
    for degree in range(len(mixing)):
        part = block(degree)
        value = _degree_weights(mixing[degree], environment.radial[flat], species)
        radial_slope = environment.radial_slope[flat].reshape(-1, environment.radial.shape[1])
        steep = _degree_weights(mixing[degree], radial_slope, species.repeat_interleave(3)).reshape(channels, -1, 3, 1)
        parts.append(steep * harmonics[:, None, part] + value[:, :, None, None] * slope[:, part].transpose(1, 2))
    tangent = torch.cat(parts, -1).reshape(channels, len(edges), count * 3, -1)
    return (tangent @ gradient.transpose(-1, -2)).reshape(channels, len(edges), count, 3, -1)


def products(density: Float[Tensor, "... lm"], couplings: Couplings) -> tuple[Tensor, Tensor]:
    """Invariant products (..., invariants) and their gradients (..., invariants, lm)."""
    tensor = couplings.tensor.to(density)
    size, _, width = tensor.shape
    slope = (density @ (2 * tensor).transpose(1, 2).reshape(size, -1)).reshape(*density.shape[:-1], width, size)
    pair = 0.5 * (slope @ density.unsqueeze(-1)).squeeze(-1)
    widths = [where.stop - where.start for where in couplings.pairs.values()]
    single = density.split([2 * degree + 1 for degree in range(couplings.degree + 1)], -1)
    pairs = dict(zip(couplings.pairs, pair.split(widths, -1), strict=True))
    slopes = dict(zip(couplings.pairs, slope.split(widths, -2), strict=True))
    terms = [_product(item, single, pairs, slopes) for item in couplings.invariants]
    return torch.stack([value for value, _ in terms], -1), torch.stack([gradient for _, gradient in terms], -2)


def _product(item: Invariant, single: tuple[Tensor, ...], pairs: dict, slopes: dict) -> tuple[Tensor, Tensor]:
    """One invariant and its gradient from the coupled pairs and their slopes."""
    if item.order == 1:
        size = sum(part.shape[-1] for part in single)
        unit = torch.eye(1, size, dtype=single[0].dtype, device=single[0].device)[0]
        return single[0][..., 0], unit.expand(*single[0].shape[:-1], size)
    left, slope = pairs[item.left], slopes[item.left]
    if item.order == 2:
        return left[..., 0], slope[..., 0, :]
    if item.order == 3:
        degree = item.left[2]
        other = single[degree]
        before, after = degree**2, sum(part.shape[-1] for part in single[degree + 1 :])
        return (left * other).sum(-1), _contract(slope, other) + torch.nn.functional.pad(left, (before, after))
    right = pairs[item.right]
    gradient = _contract(slope, right) + _contract(slopes[item.right], left)
    return (left * right).sum(-1), gradient


def _contract(slope: Tensor, other: Tensor) -> Tensor:
    return (other.unsqueeze(-2) @ slope).squeeze(-2)
