"""Torsions and distances of molecules as features of their dynamics; nothing changes as a molecule moves or turns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.trajectory_formats import Topology
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.representation.internal import dihedral
from bayesmol.representation.zmatrix import bonds as bonds_by_radii

__all__ = ["HeavyDistances", "Torsions", "heavy_distances", "torsions"]

_LONGEST_BOND = 4.0  # Å; a longer one joins two images of a periodic cell
_BATCH = 2_000_000  # torsions at once, to bound the memory


@dataclass(frozen=True)
class Torsions:
    r"""Cosine and sine of torsions, :math:`(\cos\phi_1, \sin\phi_1, \cos\phi_2, \dots)`.

    The torsions are φ (C–N–Cα–C) and ψ (N–Cα–C–N) of each residue of a peptide, in the order of the chain; without a
    peptide, all proper torsions of four heavy atoms in a row. Bonds are those of the topology, else of its reference.

    Attributes
    ----------
    atoms
        Quadruples of atoms to use instead.
    """

    atoms: tuple[tuple[int, int, int, int], ...] = ()

    def __call__(
        self, positions: Float[Tensor, "frames atoms 3"], topology: Topology
    ) -> Float[Tensor, "frames features"]:
        """Features of each frame; positions in Å.

        Raises
        ------
        ShapeError, DataError
            If the positions are not of these atoms, there is no torsion, or a molecule is broken at the boundary of a
            cell.
        """
        _check(positions, topology)
        indices = torch.tensor(self.quadruples(topology), device=positions.device)
        _check_whole(positions, torch.cat([indices[:, k : k + 2] for k in range(3)]))
        step = max(_BATCH // len(indices), 1)
        angles = torch.cat([dihedral(part.flatten(1), indices) for part in positions.split(step)])
        return torch.stack([angles.cos(), angles.sin()], 2).flatten(1)

    def quadruples(self, topology: Topology) -> tuple[tuple[int, int, int, int], ...]:
        """Atoms of each torsion."""
        found = self.atoms or _found(topology)
        if not found:
            remedy = "use heavy_distances"
            raise DataError(
                expected("topology", "four heavy atoms in a row", f"none of {len(topology.species)}", remedy)
            )
        if max(map(max, found)) >= len(topology.species) or min(map(min, found)) < 0:
            raise DataError(expected("atoms", f"indices below {len(topology.species)}", found))
        return found

    def names(self, topology: Topology) -> list[str]:
        """Name of each feature, such as ``"cos φ(4, 6, 8, 14)"``."""
        found = self.quadruples(topology)
        backbone = {} if self.atoms else _backbone(topology)
        text = [f"{backbone.get(atoms, 'torsion')}({', '.join(map(str, atoms))})" for atoms in found]
        return [f"{function} {name}" for name in text for function in ("cos", "sin")]


@dataclass(frozen=True)
class HeavyDistances:
    """Distances in Å of pairs of heavy atoms that are at least so many bonds apart, or in different molecules.

    Attributes
    ----------
    bonds_apart
        Pairs with fewer bonds between them are stiff and left out.
    """

    bonds_apart: int = 3

    def __call__(
        self, positions: Float[Tensor, "frames atoms 3"], topology: Topology
    ) -> Float[Tensor, "frames features"]:
        """Features of each frame; positions in Å, those of different molecules not across a boundary.

        Raises
        ------
        ShapeError, DataError
            If the positions are not of these atoms, or there is no pair.
        """
        _check(positions, topology)
        heavy = (topology.species > 1).tolist()
        near = enumerate(_neighbours(topology))
        bonded = [(i, j) for i, around in near for j in around if i < j and heavy[i] and heavy[j]]
        _check_whole(positions, torch.tensor(bonded, dtype=torch.long).reshape(-1, 2))
        first, second = torch.tensor(self.pairs(topology), device=positions.device).T
        return (positions[:, first] - positions[:, second]).norm(dim=2)

    def pairs(self, topology: Topology) -> list[tuple[int, int]]:
        """Atoms of each distance."""
        if self.bonds_apart < 1:
            raise DataError(expected("bonds_apart", "1 or more", self.bonds_apart))
        heavy = (topology.species > 1).nonzero().flatten().tolist()
        near = _neighbours(topology)
        found = []
        for i in heavy:
            reached, edge = {i}, {i}
            for _ in range(self.bonds_apart - 1):
                edge = {k for j in edge for k in near[j]} - reached
                reached |= edge
            found += [(i, j) for j in heavy if j > i and j not in reached]
        if not found:
            raise DataError(expected("topology", f"heavy atoms {self.bonds_apart} bonds apart", "none"))
        return found

    def names(self, topology: Topology) -> list[str]:
        """Name of each feature, such as ``"distance(1, 8)"``."""
        return [f"distance({i}, {j})" for i, j in self.pairs(topology)]


torsions = Torsions()
heavy_distances = HeavyDistances()


@lru_cache(maxsize=16)
def _neighbours(topology: Topology) -> tuple[tuple[int, ...], ...]:
    """Atoms that each atom is bonded to."""
    edges = topology.bonds if topology.bonds is not None else bonds_by_radii(topology.species, topology.reference)
    found: list[list[int]] = [[] for _ in range(len(topology.species))]
    for i, j in edges.tolist():
        found[i].append(j)
        found[j].append(i)
    return tuple(tuple(sorted(near)) for near in found)


@lru_cache(maxsize=16)
def _found(topology: Topology) -> tuple[tuple[int, int, int, int], ...]:
    return tuple(_backbone(topology)) or tuple(_proper(topology))


def _backbone(topology: Topology) -> dict[tuple[int, int, int, int], str]:
    """φ and ψ by the bonds alone, so that names of residues do not matter: C is bonded to an end O, Cα is not."""
    near, element = _neighbours(topology), topology.species.tolist()
    heavy = [[j for j in around if element[j] > 1] for around in near]
    ends = {i for i, z in enumerate(element) if z == 8 and len(heavy[i]) == 1}
    carbonyl = {i for i, z in enumerate(element) if z == 6 and ends & set(near[i])}
    found: dict[tuple[int, int, int, int], str] = {}
    for n in (i for i, z in enumerate(element) if z == 7):
        for alpha in (i for i in heavy[n] if element[i] == 6 and i not in carbonyl):
            before = [i for i in heavy[n] if i in carbonyl]
            for c in (i for i in heavy[alpha] if i in carbonyl):
                after = [i for i in heavy[c] if element[i] == 7]
                found |= {(i, n, alpha, c): "φ" for i in before} | {(n, alpha, c, i): "ψ" for i in after}
    return found


def _proper(topology: Topology) -> list[tuple[int, int, int, int]]:
    """Each a–b–c–d of different heavy atoms once."""
    near, heavy = _neighbours(topology), (topology.species > 1).tolist()
    inner = [(b, c) for b, around in enumerate(near) for c in around if b < c and heavy[b] and heavy[c]]
    return [
        (a, b, c, d)
        for b, c in inner
        for a in near[b]
        for d in near[c]
        if heavy[a] and heavy[d] and len({a, b, c, d}) == 4
    ]


def _check(positions: Tensor, topology: Topology) -> None:
    if positions.ndim != 3 or positions.shape[1:] != (len(topology.species), 3):
        raise ShapeError(expected("positions", f"(frames, {len(topology.species)}, 3) in Å", tuple(positions.shape)))


def _check_whole(positions: Tensor, bonds: Int[Tensor, "bonds 2"]) -> None:
    """Refuse molecules in two parts, whose torsions would be wrong without a word."""
    for i, j in bonds.sort(1).values.unique(dim=0).tolist():
        longest = (positions[:, i] - positions[:, j]).norm(dim=1).max() if len(positions) else 0.0
        if longest > _LONGEST_BOND:
            got = f"{float(longest):.1f} Å between atoms {i} and {j}"
            remedy = "make the molecules whole (trjconv -pbc whole, cpptraj autoimage), or are these nm?"
            raise DataError(expected("positions", f"bonds shorter than {_LONGEST_BOND:g} Å", got, remedy))
