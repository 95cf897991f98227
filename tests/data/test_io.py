import os
import pickle
import warnings
import zipfile
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bayesmol.data import Labelled, Structures, load, read, write
from bayesmol.errors import BayesmolError, DataError, ShapeError
from bayesmol.posterior import Gaussian, Prediction

DOUBLE = torch.float64


def water(energy: float = -1.0) -> ase.Atoms:
    atoms = molecule("H2O")
    atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, atoms.positions * 0.1
    return atoms


def prediction(structures: Structures, inside: bool = True) -> Prediction:
    size, atoms = len(structures), structures.positions.shape[0]
    return Prediction(
        energy=Gaussian(torch.arange(size).to(DOUBLE), torch.full((size,), 0.04, dtype=DOUBLE), unit="eV"),
        forces=Gaussian(structures.positions, torch.full((atoms, 3), 0.01, dtype=DOUBLE), unit="eV/Å"),
        stress=Gaussian(torch.ones(size, 3, 3, dtype=DOUBLE), torch.ones(size, 3, 3, dtype=DOUBLE), unit="eV/Å³"),
        pointer=structures.pointer,
        inside=torch.arange(size) % 2 == 0 if inside else None,
        p_value=torch.full((size,), 0.25, dtype=DOUBLE) if inside else None,
    )


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.traj", "a.db"])
def test_formats_of_ase(tmp_path: Path, name: str) -> None:
    frames = [bulk("Cu") * (1, 1, 2), bulk("Cu", cubic=True)]
    for atoms in frames:
        atoms.rattle(0.05)
        atoms.calc = EMT()
        atoms.get_stress()
    ase.io.write(tmp_path / name, frames)
    data, wanted = read(tmp_path / name), Labelled.from_ase(frames)
    assert torch.allclose(data.energies, wanted.energies, atol=1e-7)
    assert torch.allclose(data.forces, wanted.forces, atol=1e-7)
    assert torch.allclose(data.stresses, wanted.stresses, atol=1e-7)


def test_vasp_output_without_labels(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "POSCAR", bulk("Si", cubic=True))
    data = read(tmp_path / "POSCAR")
    assert len(data) == 1 and data.energies is None and data.forces is None


def test_mixed_file_and_index(tmp_path: Path) -> None:
    scan = molecule("CH4")
    scan.info["REF_energy"] = -2.0
    scan.info["config_type"] = "scan"
    ase.io.write(tmp_path / "a.xyz", [water(), scan, water(-3.0)])
    data = read(tmp_path / "a.xyz")
    assert data.has_forces.tolist() == [True, False, True]
    assert data.energies.tolist() == [-1, -2, -3]
    assert torch.allclose(data.forces[-3:], 0.1 * data.structures.positions[-3:], atol=1e-7)
    assert read(tmp_path / "a.xyz", 1).energies.tolist() == [-2]
    (tmp_path / "run@300K.xyz").write_bytes((tmp_path / "a.xyz").read_bytes())
    assert read(tmp_path / "run@300K.xyz").energies.tolist() == [-1, -2, -3]
    assert read(tmp_path / "a.xyz", slice(1, None)).energies.tolist() == [-2, -3]
    assert read(tmp_path / "a.xyz", "-1:").energies.tolist() == [-3]
    for index in ("7:", 9):
        with pytest.raises(DataError):
            read(tmp_path / "a.xyz", index)


def test_refusals(tmp_path: Path) -> None:
    (tmp_path / "empty.xyz").touch()
    (tmp_path / "words.xyz").write_text("words\n\n")
    (tmp_path / "noise.foo").write_bytes(bytes(range(100)))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps([1]))
    (tmp_path / "a.npz").write_bytes(pickle.dumps([1]))
    (tmp_path / "folder").mkdir()
    np.save(tmp_path / "a.npy", np.zeros(3))
    cases = {
        "absent.xyz": "existing",
        "empty.xyz": "empty file",
        "words.xyz": "truncated",
        "noise.foo": "format",
        "a.pkl": "pickles can run code",
        "a.npz": "pickled",
        "a.npy": "DeePMD folder",
        "folder": "DeePMD folder",
    }
    for name, message in cases.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


def test_truncation_anywhere_in_the_last_frame(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.xyz", [water(), water()])
    content = (tmp_path / "a.xyz").read_bytes()
    for lost in range(2, 120, 7):
        (tmp_path / "b.xyz").write_bytes(content[:-lost])
        with pytest.raises(DataError, match=r"b\.xyz"):
            read(tmp_path / "b.xyz")
    (tmp_path / "b.xyz").write_bytes(content[:-1])
    assert len(read(tmp_path / "b.xyz")) == 2


def test_suspicious_units_need_a_name(tmp_path: Path) -> None:
    ethanol = load("rmd17/ethanol")[:5]
    frames = ethanol.to_ase()
    for atoms in frames:
        atoms.positions *= 0.1
    ase.io.write(tmp_path / "nm.xyz", frames)
    with pytest.raises(DataError, match="positions in nm"):
        read(tmp_path / "nm.xyz")
    data = read(tmp_path / "nm.xyz", length_unit="nm")
    assert torch.allclose(data.structures.positions, ethanol.structures.positions, atol=1e-6)
    assert torch.allclose(data.forces, ethanol.forces / 10, atol=1e-6)
    ase.io.write(tmp_path / "scan.xyz", [ase.Atoms("C2", [[0, 0, 0], [0, 0, 0.15]])])
    with pytest.raises(DataError, match="length_unit"):
        read(tmp_path / "scan.xyz")
    assert len(read(tmp_path / "scan.xyz", length_unit="Å")) == 1
    kcal = 23.060548
    changed = Labelled(ethanol.structures, ethanol.energies * kcal, ethanol.forces * kcal)
    write(tmp_path / "kcal.xyz", changed)
    with pytest.raises(DataError, match="kcal/mol"):
        read(tmp_path / "kcal.xyz")
    data = read(tmp_path / "kcal.xyz", energy_unit="kcal/mol")
    assert torch.allclose(data.forces, ethanol.forces, atol=1e-6)
    assert torch.allclose(data.energies, ethanol.energies, atol=1e-3)
    assert read(tmp_path / "kcal.xyz", energy_unit="eV").forces.abs().max() > 15


def test_standard_errors_are_converted(tmp_path: Path) -> None:
    graphene = load("qmc/graphene")[:3]
    write(tmp_path / "a.xyz", graphene)
    assert torch.allclose(read(tmp_path / "a.xyz").energy_errors, graphene.energy_errors, atol=1e-8)
    data = read(tmp_path / "a.xyz", energy_unit="meV")
    assert torch.allclose(data.energy_errors, graphene.energy_errors / 1000, atol=1e-8)


def test_written_labels_are_read_again(tmp_path: Path) -> None:
    data = Labelled.concatenate([load("rmd17/ethanol")[:3], load("ethanol/h-removal")[:2]])
    write(tmp_path / "a.xyz", data)
    again = read(tmp_path / "a.xyz")
    assert torch.allclose(again.forces, data.forces, atol=1e-7) and torch.allclose(again.energies, data.energies)
    assert torch.equal(again.has_forces, data.has_forces)
    assert list(tmp_path.iterdir()) == [tmp_path / "a.xyz"]


def test_written_prediction_is_read_by_ase(tmp_path: Path) -> None:
    labelled = Labelled.from_ase([water(), water(-3.0)])
    made = prediction(labelled.structures)
    write(tmp_path / "a.xyz", labelled, made, level=0.8)
    first, second = ase.io.read(tmp_path / "a.xyz", index=":")
    assert second.get_potential_energy() == 1.0 and second.info["REF_energy"] == -3.0
    np.testing.assert_allclose(first.get_forces(), first.positions, atol=1e-7)
    np.testing.assert_allclose(first.arrays["REF_forces"], 0.1 * first.positions, atol=1e-7)
    assert first.info["energy_stddev"] == pytest.approx(0.2)
    assert second.info["energy_upper"] == pytest.approx(1 + 0.2 * 1.2815515655)
    assert second.info["energy_lower"] == pytest.approx(1 - 0.2 * 1.2815515655)
    assert (first.info["inside"], second.info["inside"], first.info["p_value"]) == (True, False, 0.25)
    np.testing.assert_allclose(first.arrays["forces_stddev"], 0.1)
    width = first.arrays["forces_upper"] - first.arrays["forces_lower"]
    np.testing.assert_allclose(width, 0.2 * 1.2815515655, rtol=1e-6)
    assert "stress" not in first.calc.results
    assert read(tmp_path / "a.xyz").energies.tolist() == [0, 1]


def test_prediction_of_ase_atoms_with_stress_and_without_domain(tmp_path: Path) -> None:
    frames = [molecule("H2O"), bulk("Cu")]
    write(tmp_path / "a.xyz", frames, prediction(Structures.from_ase(frames), inside=False))
    first, second = ase.io.read(tmp_path / "a.xyz", index=":")
    assert "stress" not in first.calc.results and "inside" not in first.info
    np.testing.assert_allclose(second.get_stress(), 1.0)


def test_infinite_bounds_survive(tmp_path: Path) -> None:
    structures = Structures.from_ase(molecule("H2O"))
    base = prediction(structures)
    wide = Gaussian(base.energy.mean, base.energy.variance, unit="eV", rule=Unbounded())
    write(tmp_path / "a.xyz", structures, Prediction(energy=wide, forces=base.forces, pointer=structures.pointer))
    info = ase.io.read(tmp_path / "a.xyz").info
    assert info["energy_lower"] == -np.inf and info["energy_upper"] == np.inf


class Unbounded:
    def interval(self, posterior: Gaussian, level: float) -> object:
        from bayesmol.posterior import Interval

        bound = torch.full_like(posterior.mean, float("inf"))
        return Interval(-bound, bound, level, posterior.unit, "needs more frames")


def test_prediction_of_other_structures(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="prediction"):
        write(tmp_path / "a.xyz", molecule("CH4"), prediction(Structures.from_ase(molecule("H2O"))))


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.xyz", molecule("H2O"))
    before = (tmp_path / "a.xyz").read_bytes()

    def broken(path: Path, frames: object, **_: object) -> None:
        Path(path).write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(ase.io, "write", broken)
    with pytest.raises(OSError, match="disk full"):
        write(tmp_path / "a.xyz", molecule("CH4"))
    assert (tmp_path / "a.xyz").read_bytes() == before and os.listdir(tmp_path) == ["a.xyz"]
    with pytest.raises(DataError, match="existing folder"):
        write(tmp_path / "absent" / "a.xyz", molecule("CH4"))


def _written(folder, kind):
    """A valid file of four molecules with labels."""
    source, frames = np.random.default_rng(0), []
    for energy in range(4):
        frames.append(molecule("CH4"))
        frames[-1].positions += 0.02 * source.standard_normal((5, 3))
        forces = source.standard_normal((5, 3))
        frames[-1].calc = SinglePointCalculator(frames[-1], energy=float(energy), forces=forces)
    path = folder / f"valid.{kind}"
    if kind == "npz":
        places = np.array([frame.positions for frame in frames])
        np.savez(path, coords=places, nuclear_charges=frames[0].numbers, energies=np.arange(4.0), forces=places)
    else:
        ase.io.write(path, frames)
    return path


@pytest.mark.parametrize("kind", ["xyz", "npz", "traj", "db"])
@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_damaged_file_is_read_or_refused_in_words(kind, count, tmp_path, damaged):
    """What is still a valid file is read; all else is an error of ours, never one from inside a library."""
    valid = _written(tmp_path, kind)
    assert len(read(valid)) == 4
    path = tmp_path / f"damaged.{kind}"
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for content in damaged(valid.read_bytes(), count):
            path.write_bytes(content)
            try:
                read(path)
            except BayesmolError as error:
                refused += 1
                assert len(str(error)) > 20
    assert refused > count / 10


def test_positions_beyond_all_measure_are_refused(tmp_path):
    far = molecule("H2O")
    far.positions[0, 0] = 1e300
    ase.io.write(tmp_path / "far.traj", [far, molecule("H2O")])
    with pytest.raises(DataError, match="positions"):
        read(tmp_path / "far.traj")


def test_an_archive_that_claims_to_be_larger_than_memory_is_refused(tmp_path):
    path = tmp_path / "huge.npz"
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999,), }"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("coords", "nuclear_charges"):
            archive.writestr(f"{name}.npy", header + b" " * (127 - len(header)) + b"\n")
    with pytest.raises(DataError, match="complete numpy file"):
        read(path)
