"""Data, targets and errors of a study."""

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError


@pytest.fixture
def harness(study):
    return study("harness")


def test_average(harness, normal):
    values = normal(10_000) + 3
    found = harness.average(values, "eV")
    assert float(found.value) == pytest.approx(3, abs=0.05) and found.unit == "eV"
    assert float(found.standard_error) == pytest.approx(0.01, rel=0.05)


def test_expectations_are_those_of_the_data_and_size(harness):
    names = ("folder/rmd17_ethanol_train_01.npz", "folder/rmd17_ethanol_test_01.npz")
    found = harness.expectations(*names, "ace", 50)
    assert found["force_mae"]["upper"] == 0.034 and found["force_mae"]["reference"] == (
        "linear ACE 43, NequIP 40.2, MACE 32.6, sGDML 82.5 meV/Å"
    )
    assert harness.expectations("rmd17/ethanol/train", "rmd17/ethanol/test", "ace", 50) == found
    assert "upper" not in harness.expectations(*names, "gradient-gp", 50)["force_mae"]
    assert harness.expectations("mine.xyz", "yours.xyz", "ace", 50) == {}
    assert "lower" not in harness.expectations(names[0], "rmd17_aspirin_test_01.npz", "ace", 50).get("force_mae", {})


def test_data_by_name_or_path(harness, tmp_path):
    from bayesmol import data

    found = harness.labelled("ethanol/isolated-atoms", dtype="float32")
    assert found.energies.dtype == torch.float32
    data.write(tmp_path / "atoms.xyz", data.load("ethanol/isolated-atoms"))
    again = harness.labelled(str(tmp_path / "atoms.xyz"))
    torch.testing.assert_close(again.energies.float(), found.energies)
    with pytest.raises(DataError, match="--dtype"):
        harness.labelled("ethanol/isolated-atoms", dtype="int8")


def test_bad_input_ends_in_one_line(harness, study, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["potentials.py", "noisy-labels", "--train", "ethanol/isolated-atoms"])
    with pytest.raises(SystemExit) as left:
        harness.run(study("potentials").app)
    assert left.value.code == 1
    assert "energies with standard errors" in capsys.readouterr().err


def test_relative_widths_of_a_normal_law_are_one(harness):
    values = np.random.default_rng(0).normal(size=(20_000, 2)) * [1.0, 5.0]
    ends = values - 1.96 * np.array([1.0, 5.0]), values + 1.96 * np.array([1.0, 5.0])
    assert harness.relative_width(values, *ends) == pytest.approx(1.0, abs=0.02)
    assert harness.relative_width(values, *ends, level=0.5) == pytest.approx(1.96 / 0.6745, rel=0.02)
