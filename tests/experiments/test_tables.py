"""Tables from the files of studies: figures, targets, what is missing, and the README's own table."""

import json

import pytest

from bayesmol.errors import DataError
from bayesmol.report import Study


@pytest.fixture
def tables(study):
    return study("tables")


@pytest.fixture
def folder(tmp_path):
    """Results of two studies, a figure of which misses its target and one of which is not finite."""
    learned = {"train": "data/rmd17_ethanol_train_01.npz", "model": "ace", "train_frames": 50}
    one = Study("potentials", "learn", learned, {"energy_mae": {"upper": 0.0067}, "force_mae": {"upper": 0.034}})
    for name, value, unit in (("energy_mae", 0.0065, "eV"), ("force_mae", 0.04, "eV/Å")):
        one.add(name, value, unit, error=0.0002)
    one.add("force_coverage_90", 0.9014)
    one.add("force_conformal_90", 0.8977)
    one.cpu_seconds["train"] = 43.4
    other = Study("boltzmann", "train dw4")
    other.add("k_hat", float("inf"))
    for place, run in enumerate((one, other)):
        text = json.dumps(run.content(), allow_nan=False)
        (tmp_path / f"{place}.json").write_text(text, encoding="utf-8")
    (tmp_path / "settings.json").write_text("[1, 2]", encoding="utf-8")
    return tmp_path


def test_a_table_has_measured_figures_with_targets(tables, folder):
    other, one = tables.studies(folder)
    assert [other["study"], one["file"]] == ["boltzmann", "0.json"]
    text = tables.table(one)
    assert "| energy_mae | 6.5(2) meV | ≤ 6.7 | met |" in text
    assert "| force_mae | 40.0(2) meV/Å | ≤ 34 | **missed** |" in text
    assert "| force_coverage_90 | 0.9014 |  |  |" in text and "43 CPU s; bayesmol" in text
    assert "| k_hat | nan |" in tables.table(other)


def test_what_is_missed_or_missing_is_said(tables, folder):
    text = tables.summary(tables.studies(folder))
    assert "1 of 2 targets met" in text and "- missed: potentials learn, force_mae" in text
    assert "- no results: wavefunctions energy" in text and "- no results: potentials md" in text
    assert "no results: potentials learn" not in text and "no results: boltzmann train" not in text


def test_the_readme_gets_new_rows_and_keeps_the_others(tables, folder):
    text = "a\n<!-- FIGURES: x -->\n\n| data | |\n|---|---|\n| ethanol, 50 | 1 | 2 | 3 / 4 | 5 | MACE 32.6 |\n"
    text += "| aspirin, 50 | 1 |\n\n<!-- /FIGURES -->\nb\n"
    new = tables.renewed(text, tables.accuracy(tables.studies(folder)))
    assert "| ethanol, 50 | 6.5 | 40.0 | 0.901 / 0.898 | 43 | MACE 32.6 |" in new
    assert new.replace("| 6.5 | 40.0 | 0.901 / 0.898 | 43 |", "| 1 | 2 | 3 / 4 | 5 |") == text
    with pytest.raises(DataError, match="FIGURES"):
        tables.renewed("nothing", {})


def test_one_command(tables, folder, tmp_path):
    out = tmp_path / "tables.md"
    tables.tables(folder, out)
    assert out.read_text(encoding="utf-8").count("### ") == 3
    (tmp_path / "cut.json").write_text('{"study": ', encoding="utf-8")
    with pytest.raises(DataError, match="cut"):
        tables.studies(tmp_path)
    with pytest.raises(DataError, match="--json"):
        tables.studies(tmp_path / "none")
