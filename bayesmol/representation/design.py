"""Design matrices of the atomic cluster expansion: one row a label, one column a basis function of the energy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.representation.ace import Environments, environments, invariants
from bayesmol.representation.couplings import Couplings, couplings
from bayesmol.representation.radial import RadialBasis, element_counts

CHUNK_BYTES = 128 * 2**20
GROUPS = ((1, 2), (3,), (4,))  # correlation orders that share channels


@dataclass(frozen=True)
class Design:
    """Rows for the energies, forces (minus the gradient) and virials (derivative along a strain) of some structures.

    ``energy`` (structures, columns); ``forces`` (3 atoms, columns) in 1/Å, or ``None``; ``virial`` (9 structures,
    columns), or ``None``; ``atomic`` (atoms, columns of one element) and ``species`` (atoms,) give the atomic energies.
    """

    energy: Float[Tensor, "structures columns"]
    forces: Float[Tensor, "force_rows columns"] | None
    virial: Float[Tensor, "virial_rows columns"] | None
    atomic: Float[Tensor, "atoms own"]
    species: Tensor

    def given(self, rows: Literal["forces", "virial"]) -> Tensor:
        """Rows that are needed.

        Raises
        ------
        DataError
            If they are not there.
        """
        if (found := getattr(self, rows)) is None:
            raise DataError(expected("design", f"rows of {rows}", "none", f"{rows}=True"))
        return found


@dataclass(frozen=True)
class Representation:
    r"""Species-resolved invariants :math:`B_{z,k,p}` in three groups of channels: 2- and 3-body, 4-body, 5-body.

    Attributes
    ----------
    species
        Atomic numbers that the representation knows, ascending.
    basis
        Radial functions.
    mixing
        Channel weights W of each group, (degrees, channels, species, radial); may require gradients.
    """

    species: tuple[int, ...]
    basis: RadialBasis
    mixing: tuple[Float[Tensor, "_ _ species radial"], ...]

    @classmethod
    def random(
        cls,
        species: tuple[int, ...],
        basis: RadialBasis,
        channels: tuple[int, ...],
        degrees: tuple[int, ...],
        *,
        seed: int | torch.Generator,
    ) -> Representation:
        """Random mixing with weights that fall off with the radial index and the degree (a smoothness prior)."""
        source = generator(seed)
        decay = (1 + torch.arange(basis.size, dtype=torch.float64)) ** -0.5
        mixing = []
        for count, degree in zip(channels, degrees, strict=True):
            damping = 1 / (1 + 0.5 * torch.arange(degree + 1, dtype=torch.float64))
            shape = (degree + 1, count, len(species), basis.size)
            draw = torch.randn(shape, generator=source, dtype=torch.float64)
            mixing.append(draw * damping[:, None, None, None] * decay / decay.norm())
        return cls(species, basis, tuple(mixing))

    @property
    def degrees(self) -> tuple[int, ...]:
        """Largest degree of the spherical harmonics in each group."""
        return tuple(len(mixing) - 1 for mixing in self.mixing)

    @property
    def couplings(self) -> tuple[Couplings, ...]:
        """Invariants of each group of channels."""
        return grouped(self.degrees)

    @cached_property
    def orders(self) -> Tensor:
        """Correlation order of each column, (columns,)."""
        return self._columns(lambda group, coupling: coupling.orders)

    @cached_property
    def families(self) -> Tensor:
        """Which (element, invariant) each column belongs to, (columns,): columns of one family share a prior scale."""
        sizes = [len(coupling.invariants) for coupling in self.couplings]
        starts = [sum(sizes[:group]) for group in range(len(sizes))]
        flat = self._columns(lambda group, coupling: starts[group] + torch.arange(sizes[group]))
        element = torch.arange(len(self.species)).repeat_interleave(len(flat) // len(self.species))
        return element * sum(sizes) + flat

    def _columns(self, label: Callable[[int, Couplings], Tensor]) -> Tensor:
        """Labels of the invariants repeated over the channels and elements, in the order of the columns."""
        groups = [
            label(group, coupling).repeat(self.mixing[group].shape[1]) for group, coupling in enumerate(self.couplings)
        ]
        return torch.cat(groups).repeat(len(self.species))

    def with_mixing(self, mixing: tuple[Tensor, ...]) -> Representation:
        """The same with other channel weights."""
        return Representation(self.species, self.basis, tuple(mixing))

    def environments(self, structures: Structures) -> Environments:
        """Neighbour data of structures; independent of the mixing."""
        return environments(structures, self.basis, self.species, max(self.degrees))

    def composition(self, structures: Structures) -> Float[Tensor, "structures species"]:
        """Number of atoms of each known element."""
        return element_counts(structures, self.species)

    def design(self, environment: Environments, *, forces: bool = True, virial: bool = False) -> Design:
        """Design matrix of prepared environments, differentiable with respect to the mixing."""
        kinds = len(self.species)
        energy, atomic = [], []
        force: list[Tensor] = []
        strain: list[Tensor] = []
        for mixing, coupling in zip(self.mixing, self.couplings, strict=True):
            found = invariants(environment, mixing.to(environment.radial), coupling, forces=forces, virials=virial)
            key = environment.structure * kinds + environment.species
            shape = (mixing.shape[1], environment.structures * kinds, found.values.shape[-1])
            summed = found.values.new_zeros(shape).index_add(1, key, found.values)
            energy.append(_rows(summed.unflatten(1, (environment.structures, kinds))))
            atomic.append(found.values.permute(1, 0, 2).flatten(1))
            for label, parts in ((found.forces, force), (found.virials, strain)):
                if label is not None:
                    parts.append(_rows(label.permute(0, 1, 3, 2, 4).flatten(1, 2)))
        return Design(
            torch.cat(energy, -1).flatten(1),
            torch.cat(force, -1).flatten(1) if force else None,
            torch.cat(strain, -1).flatten(1) if strain else None,
            torch.cat(atomic, -1),
            environment.species,
        )

    def chunks(self, structures: Structures) -> Iterator[slice]:
        """Consecutive structures whose gradients fit into the memory of one chunk."""
        columns = len(self.families) // len(self.species)
        neighbours = 4.2 * self.basis.cutoff**3 * self._density(structures)
        budget = max(1.0, CHUNK_BYTES / (8 * columns * (3 * neighbours + 40)))
        start = 0
        while start < len(structures):
            reach = structures.pointer - structures.pointer[start] <= budget
            stop = max(start + 1, int(reach.nonzero()[-1]))
            yield slice(start, min(stop, len(structures)))
            start = min(stop, len(structures))

    def _density(self, structures: Structures) -> float:
        """Bound on atoms per Å³: condensed matter has at most about 0.1, a small molecule at most its atoms."""
        inside = 4.2 * self.basis.cutoff**3
        return min(0.1, float(structures.counts.max()) / inside) if not bool(structures.pbc.any()) else 0.1


def _rows(blocks: Tensor) -> Tensor:
    """(channels, rows, species, invariants) to (rows, species, channels × invariants)."""
    return blocks.permute(1, 2, 0, 3).flatten(2)


def grouped(degrees: tuple[int, ...]) -> tuple[Couplings, ...]:
    """Invariants of each group: 2- and 3-body, 4-body, 5-body."""
    return tuple(couplings(degree, 4).only(*orders) for degree, orders in zip(degrees, GROUPS, strict=True))


def channel_counts(
    rows: int, species: int, degrees: tuple[int, ...], *, most: int = 48, fewest: int = 16
) -> tuple[int, int, int]:
    """Channels of each group so that there are about 3.3 times as many weights as label rows, within bounds.

    Raises
    ------
    DataError
        If there are no label rows.
    """
    if rows < 1:
        raise DataError(expected("rows", "at least one label", rows))
    sizes = [len(coupling.invariants) for coupling in grouped(degrees)]
    per_channel = species * (2 * sizes[0] + 2 * sizes[1] + sizes[2])
    count = min(most, max(fewest, 8 * round(3.3 * rows / per_channel / 8)))
    return 2 * count, 2 * count, count
