"""Networks: features of atoms in which the energy is linear, and exact derivatives of such energies.

A network sees a structure only through the radial functions and spherical harmonics of its edges
(:class:`bayesmol.representation.ace.Environments`), whose derivatives by the edge vectors are known in closed form. So
one backward pass to these two arrays gives forces and virials, and training differentiates twice only what it learns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.representation.ace import Environments, environments
from bayesmol.representation.design import Design
from bayesmol.representation.radial import RadialBasis, element_counts, species_index

_EDGE_COLUMNS = 1 << 12  # edges times columns of one backward pass: more saves no call worth its memory


class Network(torch.nn.Module, ABC):
    """Features of atoms; the energy of an atom is linear in them, with weights that are the last layer.

    Parameters
    ----------
    species
        Atomic numbers that the network knows, ascending.
    basis
        Radial functions of the edges.
    degree
        Largest degree of the spherical harmonics of the edges.
    width
        Number of features of an atom.
    """

    def __init__(self, species: tuple[int, ...], basis: RadialBasis, degree: int, width: int) -> None:
        super().__init__()
        self.species, self.basis, self.degree, self.width = species, basis, degree, width

    @abstractmethod
    def forward(self, environment: Environments) -> Float[Tensor, "atoms width"]:
        """Features of all atoms, differentiable by ``environment.radial`` and ``environment.harmonics``."""

    def standardise(self, environment: Environments) -> None:
        """Fix what the network takes from its training environments before the first step; here nothing."""

    def kinds(self, structures: Structures) -> Int[Tensor, " atoms"]:
        """Position of the element of each atom among the known ones."""
        return species_index(structures.species, self.species)

    def composition(self, structures: Structures) -> Float[Tensor, "structures species"]:
        """Number of atoms of each known element."""
        return element_counts(structures, self.species)

    def environments(self, structures: Structures) -> Environments:
        """Neighbour data of structures in the precision of the weights."""
        dtype = next(self.parameters()).dtype
        found = environments(structures.to(dtype=torch.float64), self.basis, self.species, self.degree)
        return found.to(dtype)


def design(network: Network, environment: Environments, *, forces: bool = True, virial: bool = False) -> Design:
    """Rows in which energies, forces and virials are linear: one column a feature, one backward pass a column."""
    return contracted(network, environment, None, forces=forces, virial=virial)


def contracted(
    network: Network,
    environment: Environments,
    heads: Float[Tensor, "width heads"] | None,
    *,
    forces: bool = True,
    virial: bool = False,
    graph: bool = False,
) -> Design:
    """Energies, forces and virials of several last layers at once, as the columns of a design.

    Parameters
    ----------
    heads
        Last layers in columns; ``None`` for the identity: the features themselves.
    graph
        Whether the result is to be differentiated by the weights of the network.
    """
    differentiate = forces or virial
    leaves = [part.detach().requires_grad_(differentiate) for part in (environment.radial, environment.harmonics)]
    with torch.set_grad_enabled(differentiate or graph):
        atomic = network(replace(environment, radial=leaves[0], harmonics=leaves[1]))
        atomic = atomic if heads is None else atomic @ heads
        slopes = _edge_slopes(atomic, leaves, environment, graph) if differentiate else None
    kept = atomic if graph else atomic.detach()
    energy = kept.new_zeros(environment.structures, kept.shape[1]).index_add(0, environment.structure, kept)
    if slopes is None:
        return Design(energy, None, None, kept, environment.species)
    rows = _force_rows(slopes, environment) if forces else None
    strain = _virial_rows(slopes, environment) if virial else None
    return Design(energy, rows, strain, kept, environment.species)


def _edge_slopes(
    atomic: Tensor, leaves: list[Tensor], environment: Environments, graph: bool
) -> Float[Tensor, "columns edges 3"]:
    """Derivative of the sum of each column by the edge vectors."""
    columns = atomic.shape[1]
    parts: list[Tensor | None]
    if columns == 1:
        found = torch.autograd.grad(atomic.sum(), leaves, create_graph=graph, allow_unused=True)
        parts = [None if part is None else part[None] for part in found]
    else:
        parts = _batched_slopes(atomic.sum(0), leaves, graph)
    slopes = atomic.new_zeros(columns, len(environment.first), 3)
    if parts[0] is not None:
        slopes = slopes + torch.einsum("cen,exn->cex", parts[0], environment.radial_slope)
    if parts[1] is not None:
        slopes = slopes + torch.einsum("cem,emx->cex", parts[1], environment.harmonics_slope)
    return slopes


def _batched_slopes(totals: Tensor, leaves: list[Tensor], graph: bool) -> list[Tensor | None]:
    """Derivatives of each total, several in one backward pass: as many as memory holds."""
    together = max(1, _EDGE_COLUMNS // max(1, len(leaves[0])))
    found = []
    for rows in torch.eye(len(totals), dtype=totals.dtype, device=totals.device).split(together):
        options = {"create_graph": graph, "retain_graph": True, "is_grads_batched": True, "allow_unused": True}
        found.append(torch.autograd.grad(totals, leaves, rows, **options))
    return [None if parts[0] is None else torch.cat(parts) for parts in zip(*found, strict=True)]


def _force_rows(slopes: Tensor, environment: Environments) -> Float[Tensor, "rows columns"]:
    """Minus the gradient by the positions, rows ordered atom by atom."""
    rows = slopes.new_zeros(len(slopes), len(environment.species), 3)
    rows = rows.index_add(1, environment.first, slopes).index_add(1, environment.second, slopes, alpha=-1)
    return rows.permute(1, 2, 0).flatten(0, 1)


def _virial_rows(slopes: Tensor, environment: Environments) -> Float[Tensor, "rows columns"]:
    """Derivative along a strain, rows ordered structure by structure."""
    work = slopes.unsqueeze(-1) * environment.vectors.unsqueeze(-2)
    owner = environment.structure[environment.first]
    strain = slopes.new_zeros(len(slopes), environment.structures, 3, 3).index_add(1, owner, work)
    return strain.permute(1, 2, 3, 0).flatten(0, 2)
