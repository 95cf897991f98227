import csv

import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write as ase_write

import bayesmol as bm
from bayesmol.data import read_predictions
from bayesmol.errors import DataError


def table(path, rows):
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


ROWS = [
    {"mean": 1.0, "stddev": 0.5, "truth": 1.2, "error": 0.1, "group": "a", "species": "H", "x": 0.5, "note": "one"},
    {"mean": 2.0, "stddev": 0.4, "truth": 1.9, "error": 0.0, "group": "b", "species": "C", "x": 1, "note": "two"},
    {"mean": 3.0, "stddev": 0.3, "truth": 3.3, "error": 0.2, "group": "a", "species": "H", "x": 2.5, "note": "one"},
]


def test_a_table_gives_claim_labels_groups_errors_and_conditions(tmp_path):
    (found,) = read_predictions(table(tmp_path / "a.csv", ROWS), unit="kcal/mol")
    assert found.name == "" and found.posterior.unit == "kcal/mol"
    assert found.posterior.mean.tolist() == [1.0, 2.0, 3.0]
    assert torch.allclose(found.posterior.stddev, torch.tensor([0.5, 0.4, 0.3], dtype=torch.float64))
    assert found.truth.tolist() == [1.2, 1.9, 3.3] and found.errors.tolist() == [0.1, 0.0, 0.2]
    assert found.groups.tolist() == [0, 1, 0]
    assert found.conditions["species"].tolist() == [1, 6, 1]
    assert found.conditions["x"].tolist() == [0.5, 1.0, 2.5] and found.conditions["x"].is_floating_point()
    assert found.conditions["note"].tolist() == [0, 1, 0]


def test_what_is_missing_or_no_number_is_named(tmp_path):
    with pytest.raises(DataError, match="none called stddev"):
        read_predictions(table(tmp_path / "a.csv", [{"mean": 1, "truth": 2}]))
    with pytest.raises(DataError, match="'truth'"):
        read_predictions(table(tmp_path / "b.csv", [{"mean": 1, "stddev": 1, "truth": "?"}]))
    with pytest.raises(DataError, match="finite"):
        read_predictions(table(tmp_path / "c.csv", [{"mean": "nan", "stddev": 1, "truth": 1}]))
    with pytest.raises(DataError, match="existing"):
        read_predictions(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="columns"):
        read_predictions(tmp_path / "empty.csv")


def test_structures_without_deviations_are_refused(tmp_path):
    ase_write(tmp_path / "a.extxyz", Atoms("H2", [[0, 0, 0], [0, 0, 0.7]]))
    with pytest.raises(DataError, match="forces_stddev"):
        read_predictions(tmp_path / "a.extxyz")
    (tmp_path / "b.extxyz").write_text("2\nbroken")
    with pytest.raises(DataError, match="ASE reads"):
        read_predictions(tmp_path / "b.extxyz")


def test_structures_of_another_program(tmp_path):
    frames = []
    for k in range(3):
        frame = Atoms("OH2"[: 2 + (k == 0)] if k else "OH2", [[0, 0, 0], [0, 0, 1], [0, 1, 0]][: 3 if k == 0 else 2])
        frame.calc = SinglePointCalculator(frame, energy=-1.0 * k, forces=frame.positions * 0 + k)
        frame.info |= {"energy_stddev": 0.1, "REF_energy": -1.1 * k}
        frame.arrays |= {"forces_stddev": frame.positions * 0 + 0.2, "REF_forces": frame.positions * 0 + 1.1 * k}
        frames.append(frame)
    ase_write(tmp_path / "a.extxyz", frames)
    energy, force = read_predictions(tmp_path / "a.extxyz")
    assert energy.name == "energy" and energy.truth.tolist() == pytest.approx([0, -1.1, -2.2])
    assert energy.conditions["atoms"].tolist() == [len(frame) for frame in frames]
    assert force.name == "force" and force.posterior.shape == (sum(map(len, frames)), 3)
    assert force.groups.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert set(force.conditions["species"].tolist()) <= {1, 8}


def test_what_predict_writes_is_read_back(tmp_path):
    frames = bm.data.load("rmd17/ethanol")
    model = bm.potentials.GradientGP().fit(frames[:10], seed=0)
    prediction = model.predict(frames[20:24].structures)
    bm.data.write(tmp_path / "p.extxyz", frames[20:24], prediction)
    energy, force = read_predictions(tmp_path / "p.extxyz")
    assert torch.allclose(energy.posterior.mean, prediction.energy.mean, atol=1e-6)
    assert torch.allclose(force.posterior.stddev, prediction.forces.stddev, atol=1e-6)
    assert torch.allclose(force.truth, frames[20:24].forces, atol=1e-6)
