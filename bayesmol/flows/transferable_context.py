"""What a kernel that is shared by molecules sees of one of them: its bond graph, and the order of its coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.molecular_coordinates import Internal
from bayesmol.representation.internal import wrapped
from bayesmol.representation.zmatrix import ZMatrix, bonds, zmatrix
from bayesmol.typing import Species

__all__ = ["Contexts", "Molecule", "stacked"]

_STRAIGHT = 3.1  # the logit of an angle of 172°: atoms on a line vibrate that far off it
_HOPS, _DEGREES = 4, 6
_TRIES, _BENT = 20, 0.05  # of Å, by which atoms on a line are moved to name torsions


class Contexts(NamedTuple):
    """Graphs and coordinates of some molecules, filled up to one number of places and of groups of coordinates.

    A *group* holds the bond, angle and torsion of one atom. Of rotors of three equal atoms the groups hold the sum and
    the two harmonics that no relabelling changes (:func:`bayesmol.flows.rotors.unlabelled`).

    Attributes
    ----------
    elements, degrees
        Atomic number and number of neighbours at each place; 0 where there is no atom.
    bonded
        1 for places that share a bond.
    ends
        Places of the atom of each group, and of the atoms that its bond, angle and torsion are counted from; the number
        of places itself if there is none.
    flags
        Role of a group, one of four (see :attr:`Molecule.roles`); whether it has a handedness, a torsion that is
        counted from a neighbour on the same atom, and a rotation about a bond.
    relations
        What a pair of groups has in common.
    known, circular
        Coordinates that exist, and groups whose torsion is an angle on a circle.
    turning
        Groups whose torsion is compared with a direction of space, not with a neighbour on the same atom.
    centre
        The logarithm of the bond, the logit of the angle and the torsion in the equilibrium geometry; 0 for torsions
        that are turning.
    """

    elements: Int[Tensor, "molecules places"]
    degrees: Int[Tensor, "molecules places"]
    bonded: Float[Tensor, "molecules places places"]
    ends: Int[Tensor, "molecules groups 4"]
    flags: Float[Tensor, "molecules groups flags"]
    relations: Float[Tensor, "molecules groups groups relations"]
    known: Bool[Tensor, "molecules groups 3"]
    circular: Bool[Tensor, "molecules groups"]
    turning: Bool[Tensor, "molecules groups"]
    centre: Float[Tensor, "molecules groups 3"]


FLAGS, RELATIONS = 7, 5 + _HOPS


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule: its elements, bonds and internal coordinates, and how these fall into groups.

    Attributes
    ----------
    species
        Atomic numbers.
    equilibrium
        A geometry of least energy, in Å.
    edges
        Bonds.
    matrix
        Order in which the atoms are placed.
    """

    species: Species
    equilibrium: Float[Tensor, " coordinates"]
    edges: Int[Tensor, "bonds 2"]
    matrix: ZMatrix

    @classmethod
    def of(cls, species: Species, equilibrium: Float[Tensor, " coordinates"]) -> Molecule:
        """From a geometry of least energy, in Å; of atoms on a line the Z-matrix is from one that is slightly bent.

        Raises
        ------
        ShapeError, DataError
            If the geometry does not fit or is not finite; if there are fewer than three atoms, or fragments.
        """
        if equilibrium.shape != (3 * len(species),) or not bool(torch.isfinite(equilibrium).all()):
            raise ShapeError(expected("equilibrium", f"{3 * len(species)} finite numbers", equilibrium))
        if len(species) < 3:
            raise DataError(expected("species", "three atoms or more", len(species)))
        least = equilibrium.detach().cpu().double()
        places, source = least.unflatten(0, (-1, 3)), torch.Generator().manual_seed(0)
        edges = bonds(species.cpu(), places)
        for _ in range(_TRIES):
            try:
                return cls(species.cpu(), least, edges, zmatrix(species.cpu(), places, edges))
            except DataError as error:
                last = error
            places = least.unflatten(0, (-1, 3)) + _BENT * torch.randn(places.shape, generator=source).double()
        raise last

    @cached_property
    def internal(self) -> Internal:
        """Internal coordinates without the labels of rotors."""
        return Internal(self.matrix)

    @property
    def environments(self) -> list[tuple[int, tuple[int, ...]]]:
        """Element of each atom with the sorted elements of its neighbours."""
        near: list[list[int]] = [[] for _ in self.species]
        for a, b in self.edges.tolist():
            near[a].append(int(self.species[b]))
            near[b].append(int(self.species[a]))
        return [(int(z), tuple(sorted(n))) for z, n in zip(self.species, near, strict=True)]

    def groups(
        self, y: Float[Tensor, "points columns"]
    ) -> tuple[Float[Tensor, "points groups 3"], Float[Tensor, " points"]]:
        r"""Coordinates of each group, and the logarithm of the volume of these for each unit of y.

        Angles that belong to no rotor are :math:`\log \theta / (\pi - \theta)`, so that all numbers are allowed, and
        torsions of centres with a handedness have its sign, so that mirror images are alike.
        """
        values = torch.cat([y, torch.zeros_like(y[:, :1])], 1)[:, self._columns]
        bends = values[:, self._bends, 1]
        values = values.masked_scatter(self._mask(values), torch.log(bends / (math.pi - bends)))
        volume = math.log(math.pi) - (bends * (math.pi - bends)).log()
        return self._reflected(values), volume.sum(1)

    def columns(
        self, values: Float[Tensor, "points groups 3"]
    ) -> tuple[Float[Tensor, "points columns"], Float[Tensor, " points"]]:
        """Inverse of :meth:`groups`."""
        values = self._reflected(values)
        logits = values[:, self._bends, 1]
        bends = (math.pi * torch.sigmoid(logits)).clamp(1e-9, math.pi - 1e-9)
        values = values.masked_scatter(self._mask(values), bends)
        flat, known = self._columns.flatten(), self.known.flatten()
        y = values.flatten(1)[:, known][:, flat[known].argsort()]
        return y, ((bends * (math.pi - bends)).log() - math.log(math.pi)).sum(1)

    @cached_property
    def known(self) -> Bool[Tensor, "groups 3"]:
        """Coordinates that exist."""
        group = torch.arange(len(self.species) - 1)[:, None]
        return group >= torch.arange(3)

    @cached_property
    def roles(self) -> Int[Tensor, " groups"]:
        """0 for an atom of its own, 1 for the mean of a rotor, 2 and 3 for its harmonics."""
        roles = torch.zeros(len(self.known), dtype=torch.long)
        rows = self.matrix.rotors + 2
        roles[rows] = torch.arange(1, 4).expand_as(rows)
        return roles

    @cached_property
    def improper(self) -> Bool[Tensor, " groups"]:
        """Torsions that are counted from a neighbour on the same atom."""
        rows = (self.matrix.siblings >= 0) | (self.matrix.parents == 1)
        return torch.cat([torch.zeros(2, dtype=torch.bool), rows])

    @cached_property
    def _columns(self) -> Int[Tensor, "groups 3"]:
        atoms = len(self.species)
        offsets = torch.tensor([0, atoms - 2, 2 * atoms - 5])
        columns = torch.arange(atoms - 1)[:, None] + offsets
        return torch.where(self.known, columns, 3 * atoms - 6)

    @cached_property
    def _bends(self) -> Bool[Tensor, " groups"]:
        return self.known[:, 1] & (self.roles == 0)

    def _mask(self, values: Tensor) -> Tensor:
        return (self._bends[:, None] & torch.tensor([False, True, False])).expand_as(values)

    @cached_property
    def _signs(self) -> Float[Tensor, " groups"]:
        signs = torch.cat([torch.zeros(2, dtype=torch.long), self.matrix.handedness])
        return torch.where((signs == 0) | (self.roles > 0), 1, signs).double()

    def _reflected(self, values: Tensor) -> Tensor:
        torsions = torch.where(self.circular, wrapped(values[..., 2] * self._signs.to(values)), values[..., 2])
        return torch.cat([values[..., :2], torsions[..., None]], 2)

    @cached_property
    def circular(self) -> Bool[Tensor, " groups"]:
        """Groups whose torsion is an angle on a circle."""
        return self.known[:, 2] & (self.roles < 2)

    def context(self, places: int) -> Contexts:
        """Without a first axis, filled up to so many places."""
        atoms, groups = len(self.species), places - 1
        degrees, bonded = torch.zeros(places, dtype=torch.long), torch.zeros(places, places)
        ranks = self.matrix.atoms.argsort()
        a, b = ranks[self.edges].unbind(1)
        bonded[a, b] = bonded[b, a] = 1.0
        degrees[:atoms] = bonded.sum(0)[:atoms].long().clamp(max=_DEGREES - 1)
        elements = torch.zeros(places, dtype=torch.long)
        elements[:atoms] = self.species[self.matrix.atoms]
        ends = self._ends(places)
        known = _filled(self.known, groups, False)
        return Contexts(
            elements,
            degrees,
            bonded,
            _filled(ends, groups, places),
            _filled(self._flags(), groups, 0.0),
            _relations(bonded, _filled(ends, groups, places), places),
            known,
            _filled(self.circular, groups, False),
            _filled(self.circular & ~self.improper & (self.roles == 0) | (self.roles == 1), groups, False),
            _filled(self._centres.float(), groups, 0.0),
        )

    def _ends(self, none: int) -> Int[Tensor, "groups 4"]:
        start = torch.tensor([[0, 1, none, none], [2, 1, 0, none]])
        references, siblings = self.matrix.references.clone(), self.matrix.siblings
        references[:, 2] = torch.where(siblings >= 0, siblings + 3, references[:, 2])
        rows = torch.arange(3, len(self.species))[:, None]
        return torch.cat([start, torch.cat([rows, references], 1)])

    def _flags(self) -> Float[Tensor, "groups flags"]:
        handed = torch.cat([torch.zeros(2, dtype=torch.long), self.matrix.handedness]) != 0
        rotating = torch.cat([torch.zeros(2, dtype=torch.bool), self.matrix.rotating])
        roles = torch.nn.functional.one_hot(self.roles, 4)
        return torch.cat([roles, torch.stack([handed, self.improper, rotating], 1)], 1).float()

    @cached_property
    def _centres(self) -> Float[Tensor, "groups 3"]:
        values = self.groups(self.internal(self.equilibrium[None])[0])[0][0]
        for first in (self.roles == 1).nonzero()[:, 0].tolist():  # all three of a rotor have those of their mean
            angle = values[first, 1] / math.sqrt(3)
            values[first : first + 3, 0] = values[first, 0] / math.sqrt(3)
            values[first : first + 3, 1] = torch.log(angle / (math.pi - angle))
        torsions = torch.where(self.circular & self.improper & (self.roles == 0), values[:, 2], 0.0)
        bends = values[:, 1].clamp(-_STRAIGHT, _STRAIGHT)
        return torch.where(self.known, torch.stack([values[:, 0], bends, torsions], 1), 0.0)


def stacked(molecules: Sequence[Molecule]) -> Contexts:
    """Contexts of molecules, filled up to the largest."""
    places = max(len(m.species) for m in molecules)
    parts = [m.context(places) for m in molecules]
    return Contexts(*(torch.stack(field) for field in zip(*parts, strict=True)))


def _filled(values: Tensor, length: int, value: float) -> Tensor:
    rest = values.new_full((length - len(values), *values.shape[1:]), value)
    return torch.cat([values, rest])


def _relations(bonded: Tensor, ends: Tensor, none: int) -> Float[Tensor, "groups groups relations"]:
    """Shared atoms of two groups, and the bonds between their atoms."""
    atom, parent, angle, torsion = ends.T
    same = lambda one, other: (one[:, None] == other) & (one[:, None] < none)  # noqa: E731
    shared = [same(parent, parent), same(parent, atom), same(angle, atom), same(torsion, atom), same(angle, parent)]
    reach, steps, hops = torch.eye(none), torch.eye(none), []
    for _ in range(_HOPS):
        steps = ((steps @ bonded) > 0).float()
        new = steps * (reach == 0)
        hops.append(torch.nn.functional.pad(new, (0, 1, 0, 1))[atom][:, atom])
        reach = reach + new
    return torch.cat([torch.stack(shared, 2).float(), torch.stack(hops, 2)], 2)
