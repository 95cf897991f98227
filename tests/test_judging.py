import csv
import json

import pytest
import torch

from bayesmol.data.predicted import Predicted
from bayesmol.errors import DataError
from bayesmol.judging import judge, reported
from bayesmol.posterior import Gaussian
from bayesmol.report import Study


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def table(tmp_path):
    """Predictions whose standard deviations are too small by a factor of 1.5."""
    stddev, kind = (0.3 * normal(500, seed=1)).exp(), torch.arange(500) % 2
    columns = {"mean": normal(500), "stddev": stddev, "kind": kind}
    columns["truth"] = columns["mean"] + 1.5 * stddev * normal(500, seed=2)
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
    return tmp_path / "a.csv"


def test_a_table_is_judged_with_names_text_data_and_plots(table, tmp_path):
    study = judge(Study("bayesmol", "evaluate", {"seed": 0}), table, unit="kcal/mol", figures=tmp_path / "plots")
    assert study.figures["z_mean_square"].value == pytest.approx(2.25, abs=0.4)
    assert study.figures["crps"].unit == "kcal/mol"
    content = json.loads(json.dumps(study.content()))
    reported = content["settings"]["reports"]["predictions"]
    assert not reported["verdict"]["consistent"] and "over-confident by a factor 1.4" in reported["verdict"]["text"]
    assert set(reported["local"]) == {"stddev", "mean", "kind"}
    assert (tmp_path / "plots" / "predictions.png").stat().st_size > 10_000
    assert any("over-confident" in note for note in study.notes)


def test_a_model_without_test_frames_is_refused(tmp_path):
    with pytest.raises(DataError, match="TEST"):
        judge(Study("bayesmol", "evaluate", {"seed": 0}), tmp_path / "model.bm")


def test_rows_of_a_group_are_one_unit():
    owner = torch.arange(50).repeat_interleave(10)
    posterior = Gaussian(torch.zeros(500, dtype=torch.float64), torch.ones(500, dtype=torch.float64), unit="eV")
    found = reported(Predicted("energy", posterior, normal(50)[owner], owner), seed=0)
    assert found.observed.structures == 50 and found.verdict().consistent
