"""The benchmark resumes, says what failed or was skipped, and fills a study with flat names."""

import json
from io import StringIO

import pytest
import torch
from rich.console import Console

from bayesmol.errors import DataError
from bayesmol.report import Study


@pytest.fixture
def laboratory(study):
    return study("calibration_study")


@pytest.fixture
def tasks(study, normal):
    kind, found = study("calibration_tasks").Task, []
    for name in ("one", "two", "three"):
        inputs = normal(160, 2)
        targets = 3 * inputs[:, 0] + normal(160)
        found.append(kind(name, inputs, targets, torch.arange(160), ("a", "b"), "K", "own", "none"))
    return found


@pytest.fixture
def counting(study):
    """A ridge that counts its fits, and stops everything at a chosen one."""
    models = study("calibration_models")

    class Counting(models.Ridge):
        fits, limit, error = 0, 10**9, KeyboardInterrupt

        def law(self, x, y, source):
            Counting.fits += 1
            if Counting.fits > Counting.limit:
                raise Counting.error("stopped")
            return super().law(x, y, source)

    return Counting


def test_a_killed_study_resumes(laboratory, tasks, counting, tmp_path):
    cache, models = tmp_path / "results.jsonl", {"ridge": counting(), "other": counting()}
    whole, failures = laboratory.results(tasks, models, range(2))
    assert len(whole) == 12 == counting.fits and not failures
    counting.fits, counting.limit = 0, 5
    with pytest.raises(KeyboardInterrupt):
        laboratory.results(tasks, models, range(2), cache)
    assert len(cache.read_text().splitlines()) == 5
    counting.fits, counting.limit = 0, 10**9
    resumed, _ = laboratory.results(tasks, models, range(2), cache)
    assert counting.fits == 7
    assert [r["methods"] for r in resumed] == [r["methods"] for r in whole], "the same answer"
    laboratory.results(tasks, models, range(2), cache)
    assert counting.fits == 7 and [p.name for p in tmp_path.iterdir()] == ["results.jsonl"]


def test_a_result_is_used_again_only_for_the_same_data_and_settings(laboratory, tasks, study, tmp_path):
    cache, process = tmp_path / "results.jsonl", study("calibration_models").ExactGP
    laboratory.results(tasks[:1], {"gp": process(steps=2)}, [0], cache)
    laboratory.results(tasks[:1], {"gp": process(steps=3)}, [0], cache)
    assert [json.loads(line)["settings"] for line in cache.read_text().splitlines()] == [
        "ExactGP(steps=2)",
        "ExactGP(steps=3)",
    ]
    changed = type(tasks[0])(**(vars(tasks[0]) | {"targets": tasks[0].targets + 1}))
    laboratory.results([changed], {"gp": process(steps=3)}, [0], cache)
    assert len(cache.read_text().splitlines()) == 3


def test_a_failure_is_said_and_tried_again(laboratory, tasks, counting, tmp_path):
    cache = tmp_path / "results.jsonl"
    counting.limit, counting.error = 1, RuntimeError
    records, failures = laboratory.results(tasks[:2], {"ridge": counting()}, [0], cache)
    assert len(records) == 1 and failures == ["ridge failed on two, seed 0: stopped"]
    counting.limit = 10**9
    records, failures = laboratory.results(tasks[:2], {"ridge": counting()}, [0], cache)
    assert len(records) == 2 and not failures and counting.fits == 3


def test_figures(laboratory, tasks, counting, study):
    models = {"ridge": counting(), "spread": study("calibration_forests").ForestSpread(trees=20)}
    records, _ = laboratory.results(tasks, models, range(2))
    found = Study("calibration", "study")
    laboratory.summarise(found, records)
    expected = {"ridge_raw_crps", "spread_cdf_nll", "ridge_conformal_width_90", "spread_isotonic_rank"}
    expected |= {"spread_raw_minus_ridge_raw_crps_lower", "all_scale_minus_all_raw_nll"}
    expected |= {"ridge_conformal_minus_ridge_raw_coverage_gap", "better_rate_of_exchanged_methods"}
    assert expected <= found.figures.keys()
    spread, ridge = (found.figures[f"{name}_raw_crps"].value for name in ("spread", "ridge"))
    assert found.figures["spread_raw_minus_ridge_raw_crps"].value == pytest.approx(spread - ridge)
    claims = [note for note in found.notes if "is better than" in note]
    assert any("ridge raw is better than spread raw" in note for note in claims), "the data are linear"
    for name in [name for name in found.figures if name.endswith("_lower")]:
        base = name.removesuffix("_lower")
        assert found.figures[name].value <= found.figures[base].value <= found.figures[f"{base}_upper"].value
    json.dumps(found.content(), allow_nan=False)


def test_the_command(laboratory, tmp_path):
    output = StringIO()
    found = Study("calibration", "study", console=Console(file=output, width=200))
    options = {"tasks": ["diabetes", "steel"], "models": ["ridge"], "seeds": 2, "cache": tmp_path / "r.jsonl"}
    records = laboratory.benchmark(found, **options)
    assert [record["seed"] for record in records] == [0, 1]
    laboratory.finish(found, records, tmp_path / "study.json")
    text = output.getvalue()
    assert "task steel is skipped" in text and "BSD-3-Clause" in text and "ridge" in text and "conformal" in text
    content = json.loads((tmp_path / "study.json").read_text())
    assert 0.5 < content["figures"]["ridge_raw_crps"] < 1 and "ridge_raw_crps" not in text
    assert found.figures["ridge_raw_crps"].value == content["figures"]["ridge_raw_crps"]


def test_unknown_names(laboratory):
    found = Study("calibration", "study")
    with pytest.raises(DataError, match="--models"):
        laboratory.benchmark(found, models=["oracle"])
    with pytest.raises(DataError, match="--tasks"):
        laboratory.benchmark(found, tasks=["nonsense"])
    with pytest.raises(DataError, match="at least one that can be loaded"):
        laboratory.benchmark(found, tasks=["steel"])
