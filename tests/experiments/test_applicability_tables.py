"""Small tables in a wheel made here: folds, figures, and a note where there is no wheel."""

import csv
import io
import zipfile

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.report import Study

ROWS = 240


@pytest.fixture
def module(study, monkeypatch):
    module = study("applicability_tables")
    monkeypatch.setattr(module, "TREES", 5)
    return module


@pytest.fixture
def wheel(tmp_path):
    """Two tables: one in three groups, one of which is far away; one without groups."""
    source = torch.Generator().manual_seed(0)
    text = {}
    for file, target, groups in (("super_cond", "Tc", "abc"), ("diffusion", "E_regression", "o")):
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["x", "y", "group", "mat", target])
        for row in range(ROWS):
            group = groups[row % len(groups)]
            x, y = torch.randn(2, generator=source).tolist()
            x += 20 * (group == "c")
            writer.writerow([x, y, group, f"[{'AgCuNi'[row % 3 * 2 :][:2]}][Co]", x + 0.1 * y])
        text[file] = out.getvalue()
    with zipfile.ZipFile(tmp_path / "madml-2.6.7-py3-none-any.whl", "w") as archive:
        for file, content in text.items():
            archive.writestr(f"madml/data/{file}.csv", content)
    return tmp_path


def test_comparison_fills_the_figures(module, wheel):
    study = Study("applicability", "tables")
    names = ["superconductor", "diffusion", "diffusion_by_host"]
    records = module.compare(study, tables=wheel, names=names, scores=["local", "knn", "madml"], seeds=2)
    figures = {name: figure.value for name, figure in study.figures.items()}
    per_table = [figures["auroc_local_superconductor"], figures["auroc_local_diffusion"]]
    assert figures["mean_auroc"] == pytest.approx(sum(per_table) / 2), "tables by chemistry are in no mean"
    assert {"mean_auroc_knn", "mean_auroc_madml", "microseconds_local", "false_positive_rate_local"} <= set(figures)
    assert "auroc_local_diffusion_by_host" in figures and "mean_gain_point" in figures
    far = [r["auroc"] for r in records if (r["table"], r["group"], r["score"]) == ("superconductor", "c", "local")]
    assert min(far) == 1.0 and len(far) == 2, "the far group is always stranger"
    assert study.figures["mean_auroc"].standard_error is not None
    assert any("not on these four" in note for note in study.notes)


def test_folds_keep_groups_apart_and_use_every_row_once(module, wheel):
    table = module.load("superconductor", wheel)
    for fold in module.folds(table, 0):
        size = int(fold.outside.sum())
        assert size == 80 and len(fold.train) == 96 and len(fold.calibration) == 32 and len(fold.judged) == 112
        rows = torch.cat([fold.train, fold.calibration, fold.judged])
        assert len(rows.unique(dim=0)) == ROWS
        left = torch.tensor([group == fold.group for group in table.groups])
        assert torch.equal(fold.judged[fold.outside], table.inputs[left])
    again = [fold.judged for fold in module.folds(table, 0)]
    assert all(torch.equal(a.judged, b) for a, b in zip(module.folds(table, 0), again, strict=True))


def test_tables_without_groups_are_cut_into_clusters(module, wheel):
    table = module.load("diffusion", wheel)
    assert len(set(table.parts(0))) == module.CLUSTERS and table.parts(0) == table.parts(0)
    assert set(module.load("diffusion_by_host", wheel).parts(0)) == {"Ag", "Cu", "Ni"}


def test_dissimilarity_is_that_of_madml(module):
    """One outside of all kernels, zero where the density is highest."""
    features = torch.randn(80, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    score = module.Dissimilarity().fit(features)
    found = score(features)
    assert float(found.min()) == pytest.approx(0, abs=1e-12) and bool((found <= 1).all())
    assert score(features + 100).tolist() == [1.0] * 80


def test_no_wheel_gives_a_note_and_wrong_names_an_error(module, tmp_path):
    study = Study("applicability", "tables")
    assert module.compare(study, tables=tmp_path) == [] and "madml-2.6.7" in study.notes[0]
    with pytest.raises(DataError, match="names"):
        module.compare(study, tables=tmp_path, names=["nonsense"])
    with pytest.raises(DataError, match="scores"):
        module.compare(study, tables=tmp_path, scores=["nonsense"])
