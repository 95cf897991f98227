"""Physical guards: structures that no score of features needs to judge, because atoms overlap or bonds are broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.representation.neighbours import Neighbours, neighbours

__all__ = ["FittedGuards", "Guards"]

REACH = 5.0  # Å; a pair of elements that is never nearer in training counts as never seen together


@dataclass(frozen=True)
class Guards:
    """Limits of what is physical, from covalent radii and from training structures; they need no model.

    The score is 0, or infinite where a limit is broken: add it to the score of a model
    (``domain.assess(features, guard=guards(structures))``). A graded score could be calibrated away; this one cannot.

    Attributes
    ----------
    closest
        Two atoms are too close below this fraction of the shortest trained distance of their elements; ``None`` leaves
        that to ``covalent``, for use where structures may differ from all training structures but not be absurd.
    covalent
        The same as a fraction of the sum of their covalent radii, for pairs of elements never seen within 5 Å.
    bonded
        Two atoms are bonded below this fraction of the sum of their covalent radii.
    bonds
        Whether atoms must have as many bonds as some trained atom of their element, and structures no more fragments
        than a trained one. For molecules that shall not react; leave it out for liquids, metals and reactions.

    References
    ----------
    Covalent radii: Cordero et al., Dalton Trans. 2832 (2008), as in ASE.
    """

    closest: float | None = 0.8
    covalent: float = 0.6
    bonded: float = 1.3
    bonds: bool = True

    def __post_init__(self) -> None:
        for name in ("closest", "covalent", "bonded"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 10:
                raise DataError(expected(name, "a positive factor below 10", value))
        if self.covalent >= self.bonded:
            raise DataError(expected("covalent", f"less than bonded, {self.bonded}", self.covalent))

    def fit(self, structures: Any) -> FittedGuards:
        """Limits from structures that are physical, such as those of training."""
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        species = batch.species.unique()
        radii = _sums_of_radii(species)
        limits = self.covalent * radii
        if self.closest is not None:
            shortest = _shortest(batch, species)
            limits = torch.where(shortest.isfinite(), self.closest * shortest, limits)
        counts, fragments = _bonds(batch, species, self.bonded * radii)
        kinds = torch.searchsorted(species, batch.species)
        fewest = counts.new_full((len(species),), 10**6).scatter_reduce(0, kinds, counts, "amin")
        most = counts.new_zeros(len(species)).scatter_reduce(0, kinds, counts, "amax")
        return FittedGuards(self, species, limits, fewest, most, int(fragments.max()))


@dataclass(frozen=True, eq=False)
class FittedGuards:
    """Limits of :class:`Guards`.

    Attributes
    ----------
    species
        Trained elements, ascending.
    limits
        Least distance of each pair of them, in Å.
    fewest, most
        Least and largest number of bonds of a trained atom of each element.
    fragments
        Largest number of molecules in a trained structure.
    """

    specification: Guards
    species: Int[Tensor, " species"]
    limits: Float[Tensor, "species species"]
    fewest: Int[Tensor, " species"]
    most: Int[Tensor, " species"]
    fragments: int

    def __call__(self, structures: Any) -> Float[Tensor, " structures"]:
        """Infinite for each structure that breaks a limit or holds an element that was not trained, else 0."""
        batch = Structures.coerce(structures)
        broken = torch.stack(list(self.broken(batch).values())).any(0)
        return torch.zeros(len(batch), dtype=torch.float64, device=broken.device).masked_fill(broken, torch.inf)

    def broken(self, structures: Any) -> dict[str, Bool[Tensor, " structures"]]:
        """Which structures break each limit: ``element``, ``distance``, ``coordination`` and ``fragments``.

        Structures with an element that was not trained are not looked at further.
        """
        batch = Structures.coerce(structures).to(dtype=torch.float64)
        names = ("element", "distance", *(("coordination", "fragments") if self.specification.bonds else ()))
        found = {name: torch.zeros(len(batch), dtype=torch.bool, device=batch.positions.device) for name in names}
        found["element"][batch.structure_index[~torch.isin(batch.species, self.species)]] = True
        known = (~found["element"]).nonzero()[:, 0]
        if len(known):
            part = batch[known]
            found["distance"][known] = self._too_close(part)
            if self.specification.bonds:
                found["coordination"][known], found["fragments"][known] = self._bonds(part)
        return found

    def _too_close(self, batch: Structures) -> Tensor:
        edges = neighbours(batch, float(self.limits.max()))
        kinds = torch.searchsorted(self.species, batch.species)
        close = edges.vectors.norm(dim=1) < self.limits[kinds[edges.first], kinds[edges.second]]
        flags = torch.zeros(len(batch), dtype=torch.bool, device=close.device)
        flags[batch.structure_index[edges.first[close]]] = True
        return flags

    def _bonds(self, batch: Structures) -> tuple[Tensor, Tensor]:
        radii = self.specification.bonded * _sums_of_radii(self.species)
        counts, fragments = _bonds(batch, self.species, radii)
        kinds = torch.searchsorted(self.species, batch.species)
        odd = (counts < self.fewest[kinds]) | (counts > self.most[kinds])
        flags = torch.zeros(len(batch), dtype=torch.bool, device=odd.device)
        flags[batch.structure_index[odd]] = True
        return flags, fragments > self.fragments


def _sums_of_radii(species: Int[Tensor, " species"]) -> Float[Tensor, "species species"]:
    from ase.data import covalent_radii

    radii = torch.from_numpy(covalent_radii).to(species.device)[species]
    return radii[:, None] + radii


def _shortest(batch: Structures, species: Tensor) -> Float[Tensor, "species species"]:
    """Shortest distance of each pair of elements in Å; infinite if never within reach."""
    edges, kinds, size = neighbours(batch, REACH), torch.searchsorted(species, batch.species), len(species)
    found = torch.full((size * size,), torch.inf, dtype=torch.float64, device=species.device)
    key = kinds[edges.first] * size + kinds[edges.second]
    return found.scatter_reduce(0, key, edges.vectors.norm(dim=1), "amin").reshape(size, size)


def _bonds(batch: Structures, species: Tensor, longest: Tensor) -> tuple[Int[Tensor, " atoms"], Int[Tensor, " all"]]:
    """Number of bonds of each atom, and of fragments of each structure."""
    edges, kinds = neighbours(batch, float(longest.max())), torch.searchsorted(species, batch.species)
    bonded = edges.vectors.norm(dim=1) < longest[kinds[edges.first], kinds[edges.second]]
    counts = edges.first[bonded].bincount(minlength=len(kinds))
    fragment = torch.from_numpy(_components(edges, bonded, len(kinds))).to(kinds.device).long()
    home = torch.zeros(int(fragment.max()) + 1, dtype=torch.long, device=kinds.device)
    home[fragment] = batch.structure_index
    return counts, home.bincount(minlength=len(batch))


def _components(edges: Neighbours, bonded: Tensor, atoms: int) -> np.ndarray:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first, second = (index[bonded].cpu().numpy() for index in (edges.first, edges.second))
    graph = coo_array((np.ones(len(first), dtype=bool), (first, second)), shape=(atoms, atoms))
    return connected_components(graph, directed=False)[1]
