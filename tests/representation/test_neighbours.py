import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.representation import neighbours as module
from bayesmol.representation.neighbours import Neighbours, neighbours


def rattled(atoms: ase.Atoms, seed: int = 0) -> ase.Atoms:
    atoms = atoms.copy()
    atoms.rattle(0.05, seed=seed)
    return atoms


def slab(pbc: tuple[bool, bool, bool]) -> ase.Atoms:
    atoms = rattled(fcc111("Cu", (2, 2, 2), orthogonal=True, vacuum=3.0))
    atoms.pbc = pbc
    return atoms


def skewed() -> ase.Atoms:
    generator = np.random.default_rng(0)
    cell = [[4, 0, 0], [3, 3.5, 0], [-2, 5, 3.7]]
    return ase.Atoms("SiC2O", scaled_positions=generator.uniform(-1, 2, (4, 3)), cell=cell, pbc=True)


SYSTEMS = {
    "molecule": rattled(molecule("CH3CH2OH")),
    "atom": ase.Atoms("He"),
    "own images": ase.Atoms("Po", cell=[3.1, 3.2, 3.3], pbc=True),
    "cubic": rattled(bulk("Si", cubic=True)),
    "primitive": rattled(bulk("NaCl", "rocksalt", a=5.6)),
    "skewed, atoms outside": skewed(),
    "slab": slab((True, True, False)),
    "chain": slab((False, True, False)),
    "molecule in a cell": ase.Atoms("N2", [[0, 0, 0], [0, 0, 1.1]], cell=[6, 6, 6], pbc=True),
}


def table(edges: Neighbours) -> np.ndarray:
    return torch.cat([edges.first[:, None], edges.second[:, None], edges.shifts], 1).numpy()


def oracle(atoms: ase.Atoms, cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    i, j, shift, vectors = neighbor_list("ijSD", atoms, cutoff)
    rows = np.column_stack([i, j, shift]).reshape(-1, 5)
    order = np.lexsort(rows.T[::-1])
    return rows[order], vectors[order]


@pytest.mark.parametrize("cutoff", [0.5, 3.0, 5.5])
@pytest.mark.parametrize("name", SYSTEMS)
def test_edges_of_ase_in_order(name: str, cutoff: float) -> None:
    edges = neighbours(Structures.from_ase(SYSTEMS[name]), cutoff)
    rows, vectors = oracle(SYSTEMS[name], cutoff)
    assert np.array_equal(table(edges), rows)
    np.testing.assert_allclose(edges.vectors.numpy(), vectors.reshape(-1, 3), atol=1e-12)


def test_mixed_batch_is_the_union_of_its_structures() -> None:
    batch = Structures.from_ase(list(SYSTEMS.values()))
    edges = neighbours(batch, 4.0)
    parts = [neighbours(one, 4.0) for one in batch]
    offsets = batch.pointer.tolist()
    assert torch.equal(edges.first, torch.cat([p.first + o for p, o in zip(parts, offsets, strict=False)]))
    assert torch.equal(edges.second, torch.cat([p.second + o for p, o in zip(parts, offsets, strict=False)]))
    assert torch.equal(edges.vectors, torch.cat([p.vectors for p in parts]))
    assert (edges.first.diff() >= 0).all()


def test_all_pairs_and_vesin_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Structures.from_ase([rattled(molecule(name)) for name in ("CH3CH2OH", "H2O", "C6H6", "CH4", "H")])
    by_pairs = neighbours(batch, 2.5)
    monkeypatch.setattr(module, "_PAIRS", 50)
    assert torch.equal(neighbours(batch, 2.5).vectors, by_pairs.vectors)
    monkeypatch.setattr(module, "_SMALL", 0)
    by_vesin = neighbours(batch, 2.5)
    assert np.array_equal(table(by_vesin), table(by_pairs))
    assert torch.equal(by_vesin.vectors, by_pairs.vectors)


def test_each_edge_has_its_reverse() -> None:
    edges = neighbours(Structures.from_ase(SYSTEMS["skewed, atoms outside"]), 5.0)
    forward = {tuple(row) for row in table(edges).tolist()}
    assert forward == {(j, i, -a, -b, -c) for i, j, a, b, c in forward} and len(forward) == len(edges)


def test_no_neighbours() -> None:
    edges = neighbours(Structures.from_ase([ase.Atoms("H"), ase.Atoms("He2", [[0, 0, 0], [0, 0, 9]])]), 5.0)
    assert len(edges) == 0 and edges.vectors.shape == (0, 3) and edges.shifts.shape == (0, 3)
    assert len(neighbours(Structures.from_ase(ase.Atoms("H", cell=[9, 9, 9], pbc=True)), 5.0)) == 0


def test_vectors_are_differentiable_in_positions_and_cell() -> None:
    s = Structures.from_ase([SYSTEMS["primitive"], SYSTEMS["molecule"]])
    positions, cell = s.positions.clone().requires_grad_(), s.cell.clone().requires_grad_()
    edges = neighbours(Structures(positions, s.species, s.pointer, cell, s.pbc), 4.0)
    weights = torch.linspace(-1, 1, 3 * len(edges), dtype=torch.float64).reshape(-1, 3)
    by_position, by_cell = torch.autograd.grad((weights * edges.vectors).sum(), (positions, cell))
    expected = torch.zeros_like(s.positions).index_add(0, edges.second, weights).index_add(0, edges.first, -weights)
    assert torch.allclose(by_position, expected)
    inside = s.structure_index[edges.first] == 0
    assert torch.allclose(by_cell[0], edges.shifts[inside].double().T @ weights[inside])


def test_type_follows_the_input() -> None:
    edges = neighbours(Structures.from_ase(SYSTEMS["cubic"]).to(dtype=torch.float32), 3.0)
    assert edges.vectors.dtype == torch.float32 and len(edges) == 8 * 4


@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_cutoff(cutoff: float) -> None:
    with pytest.raises(DataError, match="cutoff"):
        neighbours(Structures.from_ase(ase.Atoms("H")), cutoff)
