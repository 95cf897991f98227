import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.units import GPa, kcal, mol

from bayesmol.data import Labelled, read
from bayesmol.errors import DataError, ShapeError

RANDOM = np.random.default_rng(0)


def rmd17(path: Path, **change: Any) -> Path:
    content = {
        "nuclear_charges": np.array([8, 1, 1], dtype=np.uint8),
        "coords": RANDOM.normal(size=(4, 3, 3)) * 3,
        "energies": np.array([-1.0, -2.0, -3.0, -4.0]),
        "forces": np.ones((4, 3, 3)),
    }
    np.savez(path, **{name: array for name, array in (content | change).items() if array is not None})
    return path


def deepmd(folder: Path, sets: int = 2, **change: Any) -> Path:
    folder.mkdir()
    (folder / "type.raw").write_text("0\n1\n1\n")
    (folder / "type_map.raw").write_text("O\nH\n")
    cell = np.diag([9.0, 10.0, 11.0]).reshape(-1)
    content = {
        "coord": RANDOM.uniform(0, 9, (2, 9)).astype(np.float32),
        "box": np.tile(cell, (2, 1)),
        "energy": np.array([-1.0, -2.0]),
        "force": np.ones((2, 9)),
        "virial": np.tile(np.arange(9.0), (2, 1)),
    }
    for k in range(sets):
        (folder / f"set.{k:03d}").mkdir()
        for name, array in (content | change).items():
            if array is not None:
                np.save(folder / f"set.{k:03d}" / f"{name}.npy", array)
    return folder


def mlearn(path: Path, **change: Any) -> Path:
    sites = [{"species": [{"element": "Si", "occu": 1}], "xyz": [x, 0.0, 0.0]} for x in (0.0, 2.4)]
    structure = {"lattice": {"matrix": np.diag([5.0, 6.0, 7.0]).tolist()}, "sites": sites}
    outputs = {"energy": -10.0, "forces": [[1.0, 0, 0], [-1.0, 0, 0]], "virial_stress": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    path.write_text(json.dumps([{"structure": structure | change, "outputs": outputs}]))
    return path


def test_rmd17_in_ev(tmp_path: Path) -> None:
    data = read(rmd17(tmp_path / "a.npz"))
    assert torch.allclose(data.energies, -torch.arange(1, 5).double() * kcal / mol)
    assert torch.allclose(data.forces, torch.tensor(kcal / mol).double())
    assert data.structures.species[:6].tolist() == [8, 1, 1, 8, 1, 1]
    assert len(read(tmp_path / "a.npz", "1:3")) == 2 and len(read(tmp_path / "a.npz", -1)) == 1


def test_rmd17_without_labels(tmp_path: Path) -> None:
    data = read(rmd17(tmp_path / "a.npz", energies=None, forces=None))
    assert data.energies is None and not data.has_forces.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"coords": None}, DataError, "coords"),
        ({"coords": np.zeros((4, 2, 3))}, ShapeError, r"frames, 3, 3"),
        ({"coords": np.zeros((0, 3, 3))}, DataError, "at least one frame"),
        ({"forces": np.ones((3, 3, 3))}, ShapeError, "forces"),
        ({"energies": np.array([1, 2, 3, np.nan])}, DataError, "row 3"),
        ({"energies": np.array([{}, {}, {}, {}], dtype=object)}, DataError, "pickled"),
    ],
)
def test_bad_rmd17(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(rmd17(tmp_path / "a.npz", **change))


def test_truncated_npz(tmp_path: Path) -> None:
    file = rmd17(tmp_path / "a.npz")
    for size in (10, file.stat().st_size // 2, file.stat().st_size - 10):
        (tmp_path / "b.npz").write_bytes(file.read_bytes()[:size])
        with pytest.raises(DataError, match="complete numpy file"):
            read(tmp_path / "b.npz")


def test_deepmd(tmp_path: Path) -> None:
    data = read(deepmd(tmp_path / "water"))
    assert len(data) == 4 and data.structures.pbc.all()
    assert data.structures.species[:3].tolist() == [8, 1, 1]
    assert data.energies.tolist() == [-1, -2, -1, -2] and data.forces.eq(1).all()
    assert torch.allclose(data.stresses[0], -torch.arange(9.0).double().reshape(3, 3) / 990)


def test_deepmd_molecule(tmp_path: Path) -> None:
    folder = deepmd(tmp_path / "molecule", box=None, virial=None)
    with pytest.raises(DataError, match="nopbc"):
        read(folder)
    (folder / "nopbc").touch()
    assert not read(folder).structures.pbc.any()


def test_bad_deepmd(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="coord"):
        read(deepmd(tmp_path / "a", coord=np.zeros((2, 6))))
    with pytest.raises(ShapeError, match="forces"):
        read(deepmd(tmp_path / "b", force=np.zeros((1, 9))))
    with pytest.raises(DataError, match=r"set\.000"):
        read(deepmd(tmp_path / "c", sets=0))
    folder = deepmd(tmp_path / "d")
    (folder / "set.001" / "energy.npy").unlink()
    with pytest.raises(DataError, match="every set"):
        read(folder)
    for file, text, message in (("type.raw", "0 2 1", "numbers 0 to 1"), ("type_map.raw", "O D9", "D9")):
        folder = deepmd(tmp_path / file)
        (folder / file).write_text(text)
        with pytest.raises(DataError, match=message):
            read(folder)
    (folder / "type.raw").unlink()
    with pytest.raises(DataError, match=r"type\.raw"):
        read(folder)


def test_mlearn_stress_is_minus_the_pressure_in_kbar(tmp_path: Path) -> None:
    data = read(mlearn(tmp_path / "a.json"))
    expected = -0.1 * GPa * torch.tensor([[1.0, 4, 6], [4, 2, 5], [6, 5, 3]], dtype=torch.float64)
    assert torch.allclose(data.stresses[0], expected)
    assert data.energies.tolist() == [-10.0] and data.forces[:, 0].tolist() == [1, -1]
    assert isinstance(data, Labelled) and data.structures.species.tolist() == [14, 14]


def test_bad_mlearn(tmp_path: Path) -> None:
    partial = [{"species": [{"element": "Si", "occu": 0.5}], "xyz": [0.0, 0, 0]}]
    with pytest.raises(DataError, match="partial occupation"):
        read(mlearn(tmp_path / "a.json", sites=partial))
    with pytest.raises(DataError, match="entry 0"):
        read(mlearn(tmp_path / "a.json", lattice={}))
    for text, message in (("[]", "at least one"), ('[{"a": 1}]', "entry 0"), ('[{"a":', "complete json")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=message):
            read(tmp_path / "a.json")


def test_lengths_in_other_units(tmp_path: Path) -> None:
    plain = read(rmd17(tmp_path / "a.npz"))
    content = dict(np.load(tmp_path / "a.npz"))
    other = read(rmd17(tmp_path / "b.npz", coords=content["coords"] / 10), length_unit="nm", energy_unit="kJ/mol")
    assert torch.allclose(other.structures.positions, plain.structures.positions)
    assert torch.allclose(other.forces, plain.forces / 41.84) and torch.allclose(other.energies, plain.energies / 4.184)
    data, wide = read(deepmd(tmp_path / "c")), read(tmp_path / "c", length_unit="nm")
    assert torch.allclose(wide.structures.cell, 10 * data.structures.cell)
    assert torch.allclose(wide.stresses * 1000, data.stresses)
