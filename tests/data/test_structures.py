import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from bayesmol.data import Labelled, Structures
from bayesmol.data.structures import completed_cell
from bayesmol.errors import DataError, ShapeError


def batch() -> Structures:
    return Structures.from_ase([molecule("H2O"), bulk("Si", cubic=True), ase.Atoms("H")])


def arrays(atoms: int = 2, structures: int = 1) -> dict[str, torch.Tensor]:
    return {
        "positions": torch.arange(3 * atoms, dtype=torch.float64).reshape(atoms, 3),
        "species": torch.ones(atoms, dtype=torch.long),
        "pointer": torch.tensor([0, atoms]),
        "cell": torch.zeros(structures, 3, 3, dtype=torch.float64),
        "pbc": torch.zeros(structures, 3, dtype=torch.bool),
    }


def test_ase_round_trip() -> None:
    frames = [molecule("CH3CH2OH"), bulk("NaCl", "rocksalt", a=5.6), ase.Atoms("He")]
    for before, after in zip(frames, Structures.from_ase(frames).to_ase(), strict=True):
        assert before == after


def test_pointer_counts_and_owner() -> None:
    structures = batch()
    assert structures.pointer.tolist() == [0, 3, 11, 12]
    assert structures.counts.tolist() == [3, 8, 1]
    assert structures.structure_index.tolist() == [0] * 3 + [1] * 8 + [2]
    assert structures.positions.dtype == torch.float64
    assert structures.composition(0) == {1: 2, 8: 1}


@pytest.mark.parametrize(
    ("index", "chosen"),
    [
        (1, [1]),
        (-1, [2]),
        (slice(0, 2), [0, 1]),
        (slice(None, None, -1), [2, 1, 0]),
        ([2, 0], [2, 0]),
        (torch.tensor([1, 1]), [1, 1]),
        (np.array([0, -1]), [0, 2]),
        (torch.tensor([True, False, True]), [0, 2]),
    ],
)
def test_selection_equals_selection_of_frames(index: object, chosen: list[int]) -> None:
    frames = batch().to_ase()
    assert batch()[index].to_ase() == [frames[k] for k in chosen]


def test_iteration_ends() -> None:
    assert [len(one) for one in batch()] == [1, 1, 1]


def test_selection_refusals() -> None:
    with pytest.raises(IndexError):
        batch()[3]
    with pytest.raises(DataError, match="at least one structure"):
        batch()[5:]
    with pytest.raises(ShapeError, match="mask"):
        batch()[torch.tensor([True])]


def test_concatenate_restores_the_parts() -> None:
    structures = batch()
    again = Structures.concatenate([structures[:1], structures[1:]])
    assert again.to_ase() == structures.to_ase()
    with pytest.raises(DataError):
        Structures.concatenate([])


def test_coerce() -> None:
    structures = batch()
    frames = structures.to_ase()
    assert Structures.coerce(structures) is structures
    assert Structures.coerce(Labelled(structures)) is structures
    assert Structures.coerce(frames[0]).to_ase() == frames[:1]
    assert Structures.coerce(frames).to_ase() == frames
    assert Structures.coerce([structures, Labelled(structures), frames[0]]).to_ase() == frames + frames + frames[:1]
    for wrong in ("file.xyz", 3, torch.zeros(2, 3), [1, 2], []):
        with pytest.raises(DataError):
            Structures.coerce(wrong)


def test_to_changes_coordinates_alone() -> None:
    single = batch().to(dtype=torch.float32)
    assert single.positions.dtype == single.cell.dtype == torch.float32
    assert single.species.dtype == torch.long and single.pbc.dtype == torch.bool


PERIODIC = torch.ones(1, 3, dtype=torch.bool)


def lattice(*lengths: float) -> torch.Tensor:
    return torch.diag(torch.tensor(lengths, dtype=torch.float64))[None]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"positions": torch.zeros(3, 2)}, ShapeError, "transpose"),
        ({"positions": torch.zeros(2, 3, dtype=torch.long)}, DataError, "floating"),
        ({"positions": torch.tensor([[0.0, 0, 0], [0, 0, float("nan")]])}, DataError, "row 1"),
        ({"species": torch.tensor([1])}, ShapeError, "species"),
        ({"species": torch.tensor([0, 1])}, DataError, "type indices"),
        ({"species": torch.tensor([119, 1])}, DataError, "119"),
        ({"pointer": torch.tensor([0, 1])}, DataError, "pointer"),
        ({"pointer": torch.tensor([0])}, DataError, "at least one"),
        ({"pointer": torch.tensor([0, 0, 2])}, DataError, "empty"),
        ({"cell": torch.zeros(2, 3, 3)}, ShapeError, "cell"),
        ({"pbc": torch.ones(1, 3, dtype=torch.bool)}, DataError, "independent"),
        ({"cell": torch.full((1, 3, 3), float("inf"))}, DataError, "cell"),
        ({"cell": lattice(1e300, 1e300, 1e300), "pbc": PERIODIC}, DataError, "1e\\+06"),
        ({"cell": lattice(1e300, 1e-150, 1e-150), "pbc": PERIODIC}, DataError, "1e\\+06"),
        ({"cell": lattice(5.0, 5.0, 0.01), "pbc": PERIODIC}, DataError, r"0\.1 to"),
    ],
)
def test_bad_arrays(change: dict[str, torch.Tensor], error: type[Exception], message: str) -> None:
    Structures(**arrays())
    with pytest.raises(error, match=message):
        Structures(**(arrays() | change))


def test_overlap_is_found_directly_and_through_images() -> None:
    near = ase.Atoms("H2", [[0, 0, 0], [0.06, 0.05, 0]])
    image = ase.Atoms("H2", [[0.01, 1, 1], [4.98, 1, 1]], cell=[5, 5, 5], pbc=True)
    corner = ase.Atoms(
        "H2", [[0.01, 0.01, 0.01], [7.48, 4.32, 4.99]], cell=[[5, 0, 0], [2.5, 4.33, 0], [0, 0, 5]], pbc=True
    )
    for atoms in (near, image, corner):
        with pytest.raises(DataError, match="of structure 1"):
            Structures.from_ase([molecule("H2O"), atoms])
    image.pbc = [False, True, True]
    assert len(Structures.from_ase(image)) == 1


def test_distant_frames_and_skewed_cells_do_not_overlap() -> None:
    skewed = ase.Atoms("H2", [[0, 0, 0], [0.5, 0, 0]], cell=[[3, 0, 0], [8, 3, 0], [7, 9, 3]], pbc=True)
    far = ase.Atoms("H2", [[0, 0, 0], [100.0, 0, 0]])
    same = molecule("H2O")
    assert len(Structures.from_ase([skewed, far, same, same])) == 4


@pytest.mark.parametrize("pbc", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)])
def test_completed_cell_keeps_the_periodic_part(pbc: tuple[int, int, int]) -> None:
    cell = torch.randn(1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    repeats = torch.tensor([pbc], dtype=torch.bool)
    completed = completed_cell(cell, repeats)[0]
    assert torch.equal(completed[repeats[0]], cell[0][repeats[0]])
    normals = completed[~repeats[0]]
    assert torch.allclose(normals @ normals.T, torch.eye(len(normals), dtype=torch.float64), atol=1e-12)
    assert torch.allclose(normals @ cell[0][repeats[0]].T, torch.zeros(1, dtype=torch.float64), atol=1e-12)
