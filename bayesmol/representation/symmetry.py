"""Permutations of identical atoms that the motion of a molecule can bring about, found from its frames.

A candidate is an automorphism of the bond graph. It is feasible if it keeps the handedness of every stereogenic
centre, or inverts all of them at once (energies do not see reflections), and keeps atoms *cis* or *trans* across
every stiff planar bond. Each condition is the stabiliser of a labelling, so the result is a group for any number
of frames, one included.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from ase.data import covalent_radii
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import DataError, expected

__all__ = ["Topology"]

_BOND = 1.3  # longest bond, in sums of covalent radii
_STIFF = 0.945  # longest bond without free rotation (double, aromatic, amide), in sums of covalent radii
_SHARE = 0.9  # share of the frames in which a bond, or a sign, must be present
_HANDED = 0.5  # smallest mean triple product of unit bond vectors at a stereogenic centre (0.77 in a tetrahedron)
_PLANAR = 0.5  # smallest mean |cosine| of the dihedral angle at a stiff bond

Positions = Float[Tensor, "frames atoms 3"]
Species = Int[Tensor, " atoms"]


@dataclass(frozen=True, eq=False)
class Topology:
    """What stays the same while a molecule moves: bonds, handedness of its centres, sides of its stiff bonds.

    Attributes
    ----------
    species
        Atomic numbers.
    graph
        Bonds: pairs within 1.3 sums of covalent radii in at least nine of ten frames.
    centres, hands
        Atom and first three neighbours of each stereogenic centre, and the sign of their triple product.
    quads, sides
        Atoms a-b-c-d with a stiff bond b-c, and the sign of the cosine of their dihedral angle: 1 *cis*, −1 *trans*.
    """

    species: Species
    graph: Bool[Tensor, "atoms atoms"]
    centres: Int[Tensor, "centres 4"]
    hands: Float[Tensor, " centres"]
    quads: Int[Tensor, "quads 4"]
    sides: Float[Tensor, " quads"]

    @classmethod
    def of(cls, positions: Positions, species: Species) -> "Topology":
        """Topology of the frames of one molecule, in Å."""
        reduced = _reduced(positions, species)
        graph = (reduced < _BOND).double().mean(0) >= _SHARE
        centres, quads = _centres(graph), _quads(graph, _stiff(reduced.mean(0), species, graph))
        triple, cosine = _triple(positions, centres), _cosine(positions, quads)
        handed, sided = _settled(triple, _HANDED), _settled(cosine, _PLANAR)
        hands, sides = triple[:, handed].mean(0).sign(), cosine[:, sided].mean(0).sign()
        return cls(species, graph, centres[handed], hands, quads[sided], sides)

    def permutations(self, *, largest: int = 1000) -> Int[Tensor, "group atoms"]:
        """Feasible permutations, the identity first; for each ``p``, ``positions[:, p]`` is an equivalent frame.

        Raises
        ------
        DataError
            If the bond graph has more than ``largest`` automorphisms, as in a cluster of unbonded atoms.

        References
        ----------
        Longuet-Higgins, Mol. Phys. 6, 445 (1963), feasible permutations; Chmiela et al., Nat. Commun. 9, 3887 (2018),
        their use in a kernel.
        """
        found = list(islice(_isomorphisms(self.graph, self.species, self.graph, self.species), largest + 1))
        if len(found) > largest:
            remedy = "the bonds leave too many atoms free; give the permutations that matter"
            raise DataError(expected("permutations", f"at most {largest} automorphisms", "more", remedy))
        kept = sorted(p for p in found if self._keeps(p))
        return torch.tensor(kept, device=self.graph.device)

    def orders(self, positions: Positions, species: Int[Tensor, "frames atoms"]) -> Int[Tensor, "frames atoms"]:
        """Order of the atoms of each frame in which it has the species, bonds, hands and sides of the topology.

        A frame with the bonds of the topology in another order is brought to its order; one with broken or new bonds
        keeps its own if its species allow.

        Raises
        ------
        DataError
            If the species have another order and the bonds do not tell which atom is which.
        """
        order = torch.arange(len(self.species), device=positions.device).repeat(len(positions), 1)
        like = (species == self.species).all(1)
        graphs = torch.zeros(len(positions), *self.graph.shape, dtype=torch.bool, device=positions.device)
        graphs[like] = _reduced(positions[like], self.species) < _BOND
        best = len(self.hands) + len(self.sides)
        sure = like & (graphs == self.graph).all(2).all(1) & (self._agreement(positions) == best)
        for frame in (~sure).nonzero().flatten().tolist():
            found = self._order(positions[frame], species[frame])
            if found is None and not like[frame]:
                remedy = "give the atoms in the order of the training structures"
                got = f"{species[frame].tolist()} with other bonds (structure {frame})"
                raise DataError(expected("species", f"{self.species.tolist()}", got, remedy))
            order[frame] = order[frame] if found is None else found
        return order

    def kinds(self) -> Int[Tensor, " pairs"]:
        """Kind of every pair: its two species, and whether one, two, three or more bonds lie between them."""
        atoms = len(self.species)
        step = (self.graph | torch.eye(atoms, dtype=torch.bool, device=self.graph.device)).double()
        reach = [torch.linalg.matrix_power(step, bonds) > 0 for bonds in (1, 2, 3)]
        first, second = torch.triu_indices(atoms, atoms, offset=1, device=step.device)
        bonds = 4 - torch.stack(reach).sum(0)[first, second]
        ends = self.species[torch.stack([first, second])].sort(dim=0).values
        return torch.stack([*ends, bonds]).unique(dim=1, return_inverse=True)[1]

    def _order(self, frame: Float[Tensor, "atoms 3"], species: Species) -> Tensor | None:
        graph = _reduced(frame[None], species)[0] < _BOND
        found = list(islice(_isomorphisms(self.graph, self.species, graph, species), 10_000))
        if not found:
            return None
        orders = torch.tensor(found, device=frame.device)
        own = (orders == torch.arange(len(species), device=frame.device)).all(1)
        return orders[(2 * self._agreement(frame[orders]) + own).argmax()]

    def _agreement(self, positions: Positions) -> Int[Tensor, " frames"]:
        """Number of hands (or of their opposites, if more) and of sides that frames share with the topology."""
        hands = (_triple(positions, self.centres).sign() == self.hands).sum(1)
        sides = (_cosine(positions, self.quads).sign() == self.sides).sum(1)
        return torch.maximum(hands, len(self.hands) - hands) + sides

    def _keeps(self, p: list[int]) -> bool:
        """Whether ``p`` keeps, or inverts, all hands together and keeps all sides."""
        hands = dict(zip(self.centres[:, 0].tolist(), self.hands.tolist(), strict=True))
        sides = dict(zip(map(tuple, self.quads.tolist()), self.sides.tolist(), strict=True))
        ends = {atom: self.graph[atom].nonzero().flatten().tolist() for atom in hands}
        if {p[atom] for atom in hands} != set(hands):
            return False
        changes = {sign * hands[p[atom]] * _parity([p[b] for b in ends[atom]]) for atom, sign in hands.items()}
        return len(changes) <= 1 and all(sides.get(tuple(p[a] for a in q)) == s for q, s in sides.items())


def _reduced(positions: Positions, species: Species) -> Float[Tensor, "frames atoms atoms"]:
    """Distances in sums of covalent radii; infinite on the diagonal."""
    radii = torch.as_tensor(covalent_radii, dtype=positions.dtype, device=positions.device)[species]
    distance = torch.cdist(positions, positions) / (radii[:, None] + radii)
    return distance + torch.diag(torch.full_like(radii, torch.inf))


def _stiff(reduced: Tensor, species: Species, graph: Tensor) -> Bool[Tensor, "atoms atoms"]:
    """Short bonds between atoms with at most three neighbours; equivalent bonds are judged by their mean length."""
    colours = torch.tensor(_colours([(graph, species)])[0], device=graph.device)
    kinds = torch.minimum(colours[:, None], colours) * len(colours) + torch.maximum(colours[:, None], colours)
    kind, length, few = kinds[graph], reduced[graph], graph.sum(0) <= 3
    total = length.new_zeros(len(colours) ** 2)
    mean = total.index_add(0, kind, length) / total.index_add(0, kind, torch.ones_like(length))
    result = torch.zeros_like(graph)
    result[graph] = mean[kind] < _STIFF
    return result & few & few[:, None]


def _centres(graph: Tensor) -> Int[Tensor, "centres 4"]:
    """Atoms with three or four neighbours, and the first three of these."""
    degree = graph.sum(0)
    atoms = ((degree == 3) | (degree == 4)).nonzero().flatten().tolist()
    rows = [[atom, *graph[atom].nonzero().flatten().tolist()[:3]] for atom in atoms]
    return torch.tensor(rows, dtype=torch.long, device=graph.device).reshape(-1, 4)


def _quads(graph: Tensor, stiff: Tensor) -> Int[Tensor, "quads 4"]:
    """Chains of four atoms whose middle bond is stiff."""
    ends = [set(row.nonzero().flatten().tolist()) for row in graph]
    rows = [(a, b, c, d) for b, c in stiff.nonzero().tolist() for a in ends[b] - {c} for d in ends[c] - {a, b}]
    return torch.tensor(rows, dtype=torch.long, device=graph.device).reshape(-1, 4)


def _settled(values: Float[Tensor, "frames labels"], smallest: float) -> Bool[Tensor, " labels"]:
    """Labels of one sign in most frames and large on average."""
    return (values.sign().mean(0).abs() >= 2 * _SHARE - 1) & (values.mean(0).abs() > smallest)


def _triple(positions: Positions, centres: Tensor) -> Float[Tensor, "frames centres"]:
    """Triple product of the unit bond vectors of centres."""
    arms = positions[:, centres[:, 1:]] - positions[:, centres[:, :1]]
    return torch.linalg.det(torch.nn.functional.normalize(arms, dim=-1))


def _cosine(positions: Positions, quads: Tensor) -> Float[Tensor, "frames quads"]:
    """Cosine of dihedral angles."""
    a, b, c, d = positions[:, quads].unbind(2)
    left, right = torch.linalg.cross(a - b, c - b, dim=-1), torch.linalg.cross(d - c, b - c, dim=-1)
    return -torch.nn.functional.cosine_similarity(left, right, dim=-1)


def _isomorphisms(graph: Tensor, species: Species, other: Tensor, other_species: Species) -> Iterator[list[int]]:
    """Bijections ``p`` with ``other[p][:, p] == graph`` and equal species, by backtracking over refined colours."""
    colours, targets = _colours([(graph, species), (other, other_species)])
    if sorted(colours) != sorted(targets):
        return
    edges, images = graph.tolist(), other.tolist()
    order = _connected_order(edges, colours)
    chosen: dict[int, int] = {}

    def extend(depth: int) -> Iterator[list[int]]:
        if depth == len(order):
            yield [chosen[atom] for atom in range(len(order))]
            return
        atom = order[depth]
        for image in set(range(len(order))).difference(chosen.values()):
            same = all(edges[atom][past] == images[image][chosen[past]] for past in order[:depth])
            if targets[image] == colours[atom] and same:
                chosen[atom] = image
                yield from extend(depth + 1)
                del chosen[atom]

    yield from extend(0)


def _colours(graphs: list[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """Equal colours for atoms with equal species and, again and again, equal multisets of neighbouring colours."""
    neighbours = [[row.nonzero().flatten().tolist() for row in graph] for graph, _ in graphs]
    colours = [species.tolist() for _, species in graphs]
    for _ in range(max(len(c) for c in colours)):
        signatures = [
            [(c[a], tuple(sorted(c[b] for b in n[a]))) for a in range(len(c))]
            for c, n in zip(colours, neighbours, strict=True)
        ]
        names = {s: k for k, s in enumerate(sorted({s for part in signatures for s in part}))}
        colours = [[names[s] for s in part] for part in signatures]
    return colours


def _connected_order(edges: list[list[bool]], colours: list[int]) -> list[int]:
    """Atoms so that each has a neighbour before it where possible, rare colours first: backtracking fails early."""
    order: list[int] = []
    while len(order) < len(colours):
        rest = [atom for atom in range(len(colours)) if atom not in order]
        rank = {a: (-any(edges[a][b] for b in order), colours.count(colours[a])) for a in rest}
        order.append(min(rest, key=rank.__getitem__))
    return order


def _parity(sequence: list[int]) -> int:
    """Sign of the permutation that sorts ``sequence``."""
    inversions = sum(a > b for i, a in enumerate(sequence) for b in sequence[i + 1 :])
    return -1 if inversions % 2 else 1
