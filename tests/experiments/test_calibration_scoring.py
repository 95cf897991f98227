"""Splits keep groups together; the constant predictor scores one; CRPS by quadrature is the exact one."""

import pytest
import torch

from bayesmol.posterior.quantiles import Quantiles


@pytest.fixture
def scoring(study):
    return study("calibration_scoring")


@pytest.fixture
def task(study, normal):
    inputs = normal(240, 2)
    targets = 3 * inputs[:, 0] + normal(240)
    groups = torch.arange(240) // 2
    return study("calibration_tasks").Task("toy", inputs, targets, groups, ("a", "b"), "K", "own", "none")


def test_split(scoring):
    groups = torch.arange(300) // 3
    parts = scoring.split(groups, 0)
    assert torch.equal(torch.cat(parts).sort().values, torch.arange(300))
    owners = [set(groups[part].tolist()) for part in parts]
    assert not owners[0] & owners[1] and not owners[0] & owners[2] and not owners[1] & owners[2]
    assert [len(part) for part in parts] == [150, 75, 75]
    assert all(torch.equal(a, b) for a, b in zip(parts, scoring.split(groups, 0), strict=True))
    assert not torch.equal(parts[0], scoring.split(groups, 1)[0])


def test_the_constant_predictor_scores_one(scoring, normal):
    truth = normal(50)
    constant = scoring.constant_predictor(normal(80), 50, "K")
    found = scoring.judged(constant, truth, constant)
    assert found["crps"] == pytest.approx(1, abs=1e-6) and found["nll"] == 0
    assert found["rmse"] == found["width_90"] == 1
    assert found["coverage_90"] == constant.interval(0.9).covered(truth)


def test_what_is_not_defined_is_none(scoring, normal):
    truth, constant = normal(20), scoring.constant_predictor(normal(80), 20, "")
    levels = torch.linspace(0, 1, 11, dtype=torch.float64)
    quantiles = Quantiles(levels, normal(11, 20).sort(0).values, unit="")
    found = scoring.judged(quantiles, truth, constant)
    assert found["nll"] is None and found["crps"] is not None
    inner = scoring.judged(Quantiles(levels[1:-1], quantiles.values[1:-1], unit=""), truth, constant)
    assert {name for name, value in inner.items() if value is not None} == {"coverage_90", "miscalibration_area"}
    assert inner["coverage_90"] == 1, "levels 0.05 and 0.95 are unknown, so the interval is infinite"


def test_result(scoring, study, task):
    found = scoring.result(task, 0, study("calibration_models").Ridge())
    assert list(found["methods"]) == list(scoring.METHODS) and found["fit_cpu_seconds"] >= 0
    raw, scale = found["methods"]["raw"], found["methods"]["scale"]
    assert 0.2 < raw["rmse"] < 0.5 and scale["rmse"] == pytest.approx(raw["rmse"])
    assert 0.7 < raw["coverage_90"] <= 1 and raw["crps"] < 0.5 and raw["nll"] < -0.5
    assert set(found["methods"]["conformal"]) == {"coverage_90", "width_90"}


def test_a_method_that_cannot_is_said(scoring, study, task):
    few = type(task)(**(vars(task) | {name: getattr(task, name)[:100] for name in ("inputs", "targets", "groups")}))
    found = scoring.result(few, 0, study("calibration_models").Ridge())
    assert "isotonic" not in found["methods"] and "at least 40 labels" in found["missing"]["isotonic"]
    assert found["methods"].keys() == {"raw", "scale", "affine", "cdf", "conformal"}


def test_recalibration_mends_a_wrong_claim(scoring, study, task):
    models = study("calibration_models")

    class Bold(models.Ridge):
        def law(self, x, y, source):
            law = models.linear_law(x, y)
            return lambda inputs: law(inputs).scaled(0.25)

    found = scoring.result(task, 0, Bold())["methods"]
    assert found["raw"]["z_mean_square"] > 8 and found["raw"]["coverage_90"] < 0.5
    for method in ("scale", "affine", "isotonic", "cdf"):
        assert found[method]["nll"] < found["raw"]["nll"] - 1
        assert found[method]["miscalibration_area"] < 0.5 * found["raw"]["miscalibration_area"]
    assert found["conformal"]["coverage_90"] > 0.75
