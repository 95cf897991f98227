"""Figures print in the unit that fits, a study writes what it measured, and a page needs no other file."""

import io
import json
import math
import re
import time
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure as Plot
from rich.console import Console

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.posterior import Estimate, Gaussian, Prediction
from bayesmol.report import Figure, Study, cpu_seconds, page, peak_memory_mb, proportion, versions, write_text


def estimate(value, error, unit=""):
    return Estimate(*(torch.tensor(x, dtype=torch.float64) for x in (value, error, 10.0)), unit)


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Figure(0.00671, "eV", 0.00015), "6.71(15) meV"),
        (Figure(0.67, "eV", 0.05), "0.67(5) eV"),
        (Figure(0.0343, "eV/Å", 0.0002), "34.3(2) meV/Å"),
        (Figure(0.5, "", None), "0.5"),
        (Figure(1.0, "", 0.0), "1"),
        (Figure(math.inf, "nat", 1.0), "inf nat"),
    ],
)
def test_a_figure_prints_in_the_unit_that_fits(figure, text):
    assert str(figure) == text


@pytest.mark.parametrize(
    ("ends", "text", "met"),
    [
        ({"upper": 0.0067}, "≤ 6.7", True),
        ({"upper": 0.005}, "≤ 5", False),
        ({"lower": 0.007}, "≥ 7", False),
        ({"lower": 0.004, "upper": 0.007}, "4 to 7", True),
        ({}, "", True),
    ],
)
def test_a_target_is_in_the_unit_of_its_figure(ends, text, met):
    figure = Figure(0.006, "eV", **ends)
    assert figure.target == text
    assert figure.met is met


def test_a_study_keeps_figures_times_and_versions(tmp_path):
    study = Study(
        "bayesmol", "test", {"seed": 3, "out": tmp_path}, {"energy_mae": {"upper": 0.01, "reference": "X 12"}}
    )
    with study.stage("busy"):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    study.add("energy_mae", estimate(0.006, 0.001, "eV"))
    study.add("auroc", math.nan)
    study.finish(tmp_path / "deep" / "study.json")
    content = json.loads((tmp_path / "deep" / "study.json").read_text(encoding="utf-8"))
    assert {"study", "command", "settings", "figures", "units", "cpu_seconds", "peak_memory_mb", "versions"} <= set(
        content
    )
    assert content["figures"] == {"energy_mae": 0.006, "auroc": None}
    assert content["units"] == {"energy_mae": "eV", "auroc": ""}
    assert content["standard_errors"]["energy_mae"] == 0.001
    assert content["targets"] == {"energy_mae": [None, 0.01]}
    assert content["settings"] == {"seed": 3, "out": str(tmp_path)}
    assert 0.05 <= content["cpu_seconds"]["busy"] < 5
    assert {"bayesmol", "python", "torch"} <= set(content["versions"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["study.json"]


def test_the_table_says_value_target_and_reference():
    console = Console(record=True, width=100, file=io.StringIO())
    study = Study("a", "b", expectations={"force_mae": {"upper": 0.03, "reference": "MACE 32.6"}}, console=console)
    study.add("force_mae", estimate(0.0343, 0.0002, "eV/Å"))
    study.notes.append("a [note] as it is")
    study.finish()
    text = console.export_text()
    for part in ("34.3(2) meV/Å", "≤ 30 missed; MACE 32.6", "a [note] as it is", "standard error"):
        assert part in text


def test_json_on_the_standard_output_is_alone_there(capsys):
    study = Study("a", "b")
    study.add("figure", 1.0)
    study.finish(Path("-"))
    captured = capsys.readouterr()
    assert json.loads(captured.out)["figures"] == {"figure": 1.0}
    assert "figure" in captured.err


def test_judged_figures_have_the_names_of_all_studies():
    structures = Structures.from_ase(_hydrogen(8))
    labelled = Labelled(structures, torch.arange(8).double(), torch.zeros(16, 3).double())
    energy = Gaussian(labelled.energies + 0.1, torch.full((8,), 0.01).double(), unit="eV")
    forces = Gaussian(torch.zeros(16, 3).double(), torch.ones(16, 3).double(), unit="eV/Å")
    inside = torch.tensor([True] * 6 + [False] * 2)
    study = Study("a", "b")
    study.judge(Prediction(energy, forces, structures.pointer, inside=inside), labelled, seed=0, prefix="all_")
    assert study.figures["all_energy_mae"].value == pytest.approx(0.1)
    assert study.figures["all_force_nll"].value == pytest.approx(0.5 * math.log(2 * math.pi))
    assert study.figures["all_false_alarm_rate"].value == 0.25


def _hydrogen(count):
    from ase import Atoms

    return [Atoms("H2", [[0, 0, 0], [0.7 + 0.01 * i, 0, 0]]) for i in range(count)]


def test_a_page_is_whole_in_itself():
    plot = Plot(figsize=(2, 2))
    plot.subplots().plot([0, 1])
    study = Study("a", "b", expectations={"energy_mae": {"upper": 0.1}})
    study.add("energy_mae", 0.2, "eV")
    chosen = [{"order": "1", "frame": "7"}]
    text = page(study, "A <title>", "lead", [("a & b", plot)], chosen=chosen, guarantees={"energy": "p ≥ 0.9"})
    assert "A &lt;title&gt;" in text and "a &amp; b" in text
    assert re.search(r'src="data:image/png;base64,iVBOR[\w+/=]+"', text)
    assert not re.search(r'(src|href)="(?!data:)', text)
    for part in ("0.2 eV", "missed", "mean absolute error of energies", "p ≥ 0.9", "<td>7</td>", "largest memory"):
        assert part in text


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 10), (10, 10)])
def test_a_proportion_has_the_error_of_its_jeffreys_posterior(hits, trials):
    found, a, b = proportion(hits, trials), hits + 0.5, trials - hits + 0.5
    assert float(found.value) == hits / trials
    assert float(found.standard_error) == pytest.approx(math.sqrt(a * b / ((a + b) ** 2 * (a + b + 1))))


@pytest.mark.parametrize(("hits", "trials"), [(1, 0), (-1, 3), (4, 3)])
def test_an_impossible_proportion_is_refused(hits, trials):
    with pytest.raises(DataError, match="hits"):
        proportion(hits, trials)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_machine_is_measured():
    assert cpu_seconds() > 0
    assert peak_memory_mb() > 10
    assert versions(["numpy", "no-such-package"]).keys() == {"bayesmol", "python", "numpy"}
