"""Which bonds, angles and torsions describe a molecule: a tree over its bond graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.typing import Positions, Species

__all__ = ["ZMatrix", "bonds", "zmatrix"]

_STRETCHED, _OVERLAPPING = 1.25, 0.5  # of the sum of two covalent radii
_LINEAR = 0.05  # sine of an angle that leaves the torsions about its bonds undefined
_PLANAR = 0.25  # rad; a centre with four neighbours has no torsion so near to the plane


@dataclass(frozen=True, eq=False)
class ZMatrix:
    """Order in which atoms are placed, and what each is placed from.

    The first three atoms i, j, k are bonded, i–j–k. Each further one, a *row*, has a bond to its parent, an angle and a
    torsion about the bond from the parent to the parent's parent; the frames of i, j and k are (i, j, k), (j, k, i) and
    (k, j, i).

    Attributes
    ----------
    atoms
        Atom at each place of the order.
    parents
        Place of the atom that each row is bonded to.
    siblings
        Row whose torsion that of a row is counted from, as both turn about the same bond; −1 if it is absolute.
    handedness
        Sign that the torsion of a row keeps, as its parent has four neighbours; 0 if it may change.
    rotors
        Rows of three equal end atoms on one parent with four neighbours, counterclockwise along the torsion.
    rotating
        Whether the torsion of a row is the rotation about a bond outside of rings.
    """

    atoms: Int[Tensor, " atoms"]
    parents: Int[Tensor, " rows"]
    siblings: Int[Tensor, " rows"]
    handedness: Int[Tensor, " rows"]
    rotors: Int[Tensor, "rotors 3"]
    rotating: Bool[Tensor, " rows"]

    def __post_init__(self) -> None:
        places, rows = len(self.atoms), torch.arange(len(self.parents))
        if places < 3 or not torch.equal(self.atoms.sort().values, torch.arange(places)):
            raise DataError(expected("atoms", "an order of three atoms or more", self.atoms.tolist()))
        if {len(self.parents), len(self.siblings), len(self.handedness), len(self.rotating)} != {places - 3}:
            raise ShapeError(expected("parents, siblings, handedness, rotating", f"{places - 3} rows each", "others"))
        if bool((self.parents >= rows + 3).any() | (self.parents < 0).any() | (self.siblings >= rows).any()):
            raise DataError(expected("parents, siblings", "places and rows that come earlier", "later ones"))
        if not torch.equal(self._depth, self._depth.sort().values):
            raise DataError(expected("parents", "rows level by level", self.parents.tolist(), "sort by depth"))

    @cached_property
    def references(self) -> Int[Tensor, "rows 3"]:
        """Places of the bonded, the angle and the torsion atom of each row."""
        frames = {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 1, 0)}
        for row, parent in enumerate(self.parents.tolist()):
            frames[row + 3] = (row + 3, *frames[parent][:2])
        return torch.tensor([frames[p] for p in self.parents.tolist()], dtype=torch.long).reshape(-1, 3)

    @cached_property
    def levels(self) -> tuple[Int[Tensor, " rows"], ...]:
        """Rows that can be placed at once, level after level."""
        return tuple((self._depth == level).nonzero().squeeze(1) for level in self._depth.unique())

    @cached_property
    def _depth(self) -> Int[Tensor, " rows"]:
        """Bonds from the start to each row."""
        depth = [0, 0, 0]
        for parent in self.parents.tolist():
            depth.append(depth[parent] + 1)
        return torch.tensor(depth[3:], dtype=torch.long)


def bonds(species: Species, positions: Positions) -> Int[Tensor, "bonds 2"]:
    """Pairs of atoms nearer than 1.25 times the sum of their covalent radii.

    Raises
    ------
    DataError
        If positions are not finite, or two atoms are nearer than half of that sum.
    """
    from ase.data import covalent_radii

    if len(species) != len(positions):
        raise ShapeError(expected("species", f"one for each of {len(positions)} atoms", len(species)))
    if not bool(torch.isfinite(positions).all()):
        raise DataError(expected("positions", "finite numbers in Å", "NaN or infinity"))
    radii = torch.as_tensor(covalent_radii, dtype=torch.float64)[species.cpu()]
    pairs = torch.triu_indices(len(species), len(species), offset=1)
    x = positions.detach().cpu().double()
    relative = (x[pairs[0]] - x[pairs[1]]).norm(dim=1) / (radii[pairs[0]] + radii[pairs[1]])
    if bool((relative < _OVERLAPPING).any()):
        close = pairs[:, relative.argmin()].tolist()
        raise DataError(expected("positions", "atoms apart", f"atoms {close} on top of each other", "in Å?"))
    return pairs[:, relative < _STRETCHED].T


def zmatrix(species: Species, positions: Positions, edges: Int[Tensor, "bonds 2"] | None = None) -> ZMatrix:
    """Internal coordinates of a molecule from its bond graph.

    The start is the bonded triple nearest to the middle of the molecule, of heavy atoms if possible (N–Cα–C of an
    amino acid), and none of a rotor. Among the atoms on one parent the one that carries most atoms comes first; the
    torsions of the others are relative to it.

    Parameters
    ----------
    positions
        One geometry, in Å: it gives the bonds if ``edges`` does not, and the handedness of centres with four
        neighbours.

    Raises
    ------
    DataError
        If there are fewer than three atoms, atoms in fragments, overlapping, not finite, or three in a row on a line.
    """
    edges = bonds(species, positions) if edges is None else edges
    return _Tree(species, positions.detach().cpu().double(), edges).matrix()


class _Tree:
    """A molecule while its Z-matrix is chosen."""

    def __init__(self, species: Tensor, x: Tensor, edges: Tensor) -> None:
        self.species, self.x, self.count = species.tolist(), x.numpy(), len(species)
        if self.count < 3:
            raise DataError(expected("species", "three atoms or more", self.count, "use MeanFree coordinates"))
        self.near: list[list[int]] = [[] for _ in range(self.count)]
        for a, b in edges.tolist():
            self.near[a].append(b)
            self.near[b].append(a)
        self.far = _distances(self.near)
        if np.isinf(self.far).any():
            apart = np.isinf(self.far[0]).nonzero()[0].tolist()
            raise DataError(expected("positions", "one bonded molecule", f"atoms {apart} apart from 0", "give edges"))
        self.centres = {c: ends for c in range(self.count) if (ends := self._equal_ends(c))}

    def matrix(self) -> ZMatrix:
        order = list(self._start())
        ranks = {a: p for p, a in enumerate(order)}
        parents: list[int] = []
        siblings: list[int] = []
        rotors, rotating = [], []
        place = 0
        for center in order:  # it grows while the molecule is walked, level by level
            children = [n for n in self.near[center] if n not in ranks]
            frame = self._frame(order, parents, place)
            children = self._sorted(children, frame)
            first = len(parents)
            if self.centres.get(center) == sorted(children):
                rotors.append([first, first + 1, first + 2])
            for index, child in enumerate(children):
                ranks[child] = len(order)
                order.append(child)
                parents.append(place)
                siblings.append(first if index and place != 1 else -1)
                rotating.append(index == 0 and place != 1 and self._bridge(frame[0], frame[1]))
            place += 1
        return self._with_handedness(order, parents, siblings, rotors, rotating)

    def _start(self) -> tuple[int, int, int]:
        """Three bonded atoms, best first: few of rotors, few hydrogens, near the middle of the molecule."""
        mobile = {a for ends in self.centres.values() for a in ends}
        best: tuple | None = None
        for j in range(self.count):
            for i in self.near[j]:
                for k in self.near[j]:
                    if (-self.species[i], i) >= (-self.species[k], k) or self._sine(i, j, k) < _LINEAR:
                        continue
                    triple = (i, j, k)
                    rotor, light = len(mobile & set(triple)), sum(self.species[a] == 1 for a in triple)
                    steps = self.far[list(triple)].min(0)
                    kinds = [-self.species[a] for a in triple]
                    score = (rotor, light, steps.max(), steps.sum(), *kinds, *triple)
                    best = min(best, (score, triple)) if best else (score, triple)
        if best is None:
            raise DataError(expected("positions", "three bonded atoms off a line", "none", "use MeanFree coordinates"))
        return best[1]

    def _frame(self, order: list[int], parents: list[int], place: int) -> tuple[int, int, int]:
        places = {0: (0, 1, 2), 1: (1, 2, 0), 2: (2, 1, 0)}.get(place)
        if places is None:
            parent = parents[place - 3]
            up = 1 if parent in (0, 2) else 2 if parent == 1 else parents[parent - 3]
            places = (place, parent, up)
        first, second, third = places
        return order[first], order[second], order[third]

    def _sorted(self, children: list[int], frame: tuple[int, int, int]) -> list[int]:
        """The heaviest branch first, equal ends counterclockwise."""
        b, c, d = frame
        for child in children:
            if self._sine(child, b, c) < _LINEAR:
                raise DataError(
                    expected("positions", "no three bonded atoms on a line", f"atoms {[child, b, c]}", "use MeanFree")
                )
        behind = {n: (self.far[n] < self.far[b]).sum() for n in children}
        children = sorted(children, key=lambda n: (self.species[n] == 1, -behind[n], -self.species[n], n))
        if self.centres.get(b) == sorted(children) and self._turn(children[1], children[0], b, c, d) < 0:
            children[1:] = children[:0:-1]
        return children

    def _with_handedness(self, order: list, parents: list, siblings: list, rotors: list, rotating: list) -> ZMatrix:
        signs = []
        for row, parent in enumerate(parents):
            b, c, d = self._frame(order, parents, parent)
            first = order[siblings[row] + 3] if siblings[row] >= 0 else None
            relative = siblings[row] >= 0 or parent == 1
            turn = self._turn(order[row + 3], first, b, c, d) if relative else 0.0
            free = len(self.near[b]) != 4 or not relative or not _PLANAR < abs(turn) < np.pi - _PLANAR
            signs.append(0 if free else int(np.sign(turn)))
        one, two, three, four = (torch.tensor(q, dtype=torch.long) for q in (order, parents, siblings, signs))
        return ZMatrix(
            one,
            two,
            three,
            four,
            torch.tensor(rotors, dtype=torch.long).reshape(-1, 3),
            torch.tensor(rotating, dtype=torch.bool),
        )

    def _equal_ends(self, center: int) -> list[int]:
        """Three end atoms of one element on a centre with a fourth neighbour."""
        ends = [n for n in self.near[center] if len(self.near[n]) == 1]
        equal = len({self.species[n] for n in ends}) == 1
        return sorted(ends) if len(ends) == 3 and len(self.near[center]) == 4 and equal else []

    def _bridge(self, a: int, b: int) -> bool:
        """Whether a bond is outside of rings."""
        cut = [[m for m in near if {n, m} != {a, b}] for n, near in enumerate(self.near)]
        return bool(np.isinf(_distances(cut)[a, b]))

    def _sine(self, a: int, b: int, c: int) -> float:
        u, v = self.x[a] - self.x[b], self.x[c] - self.x[b]
        return float(np.linalg.norm(np.cross(u, v)) / (np.linalg.norm(u) * np.linalg.norm(v)))

    def _turn(self, p: int, first: int | None, b: int, c: int, d: int) -> float:
        """Torsion of p about b–c, relative to that of another atom on b if there is one."""
        turn = self._torsion(p, b, c, d) - (0.0 if first is None else self._torsion(first, b, c, d))
        return float((turn + np.pi) % (2 * np.pi) - np.pi)

    def _torsion(self, p: int, b: int, c: int, d: int) -> float:
        x = self.x
        along, one, two = x[b] - x[c], x[c] - x[d], x[p] - x[b]
        n1, n2 = np.cross(one, along), np.cross(along, two)
        return float(np.arctan2(np.linalg.norm(along) * one @ n2, n1 @ n2))


def _distances(near: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Bonds between each pair of atoms; infinite if nothing joins them."""
    from scipy.sparse.csgraph import shortest_path

    graph = np.zeros((len(near), len(near)))
    for a, others in enumerate(near):
        graph[a, list(others)] = 1
    return shortest_path(graph, unweighted=True)
