import math

import pytest
import torch

from bayesmol.acquisition.stopping import StopRule, forecast
from bayesmol.applicability import tolerance_rank
from bayesmol.errors import DataError


def test_bound_is_the_tolerance_limit_at_the_confidence_that_is_left():
    errors = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule = StopRule(target=1.0, share=0.9, confidence=0.95)
    for look in (1, 2, 5):
        rank = tolerance_rank(200, 0.1, 1 - 0.05 / (look * (look + 1)))
        assert rule.check(errors, look).bound == float(errors.sort().values[-rank])
    bounds = [rule.check(errors, look).bound for look in range(1, 30)]
    assert bounds == sorted(bounds), "each further look costs confidence"


def test_too_few_structures_give_no_bound():
    rule = StopRule(target=1.0, share=0.9, confidence=0.95)
    few = rule.needed(1)
    assert few == math.ceil(math.log(0.025) / math.log(0.9))
    assert rule.check(torch.zeros(few - 1, dtype=torch.float64), 1).bound == math.inf
    check = rule.check(torch.zeros(few, dtype=torch.float64), 1)
    assert check.met and check.bound == 0
    assert f"takes {few}" in check.guarantee


def test_a_false_stop_is_rare_however_often_one_looks():
    # A share of 0.9 is below the target: just too few. Independent looks are the worst case.
    source, rule, false = torch.Generator().manual_seed(1), StopRule(target=0.9, share=0.901), 0
    for _ in range(400):
        looks = [torch.rand(150, generator=source, dtype=torch.float64) for _ in range(10)]
        false += any(rule.check(errors, look).met for look, errors in enumerate(looks, 1))
    assert false <= 0.05 * 400 + 3 * math.sqrt(0.05 * 0.95 * 400)


def test_a_good_model_is_found_good():
    errors = torch.rand(150, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.9
    assert StopRule(target=1.0).check(errors, 3).met


@pytest.mark.parametrize(
    ("arguments", "match"),
    [({"target": 0.0}, "target"), ({"share": 1.0}, "share"), ({"confidence": 0.0}, "confidence")],
)
def test_bad_rules_are_refused(arguments, match):
    with pytest.raises(DataError, match=match):
        StopRule(**{"target": 1.0} | arguments)


def test_bad_errors_are_refused():
    rule = StopRule(target=1.0)
    with pytest.raises(DataError, match="errors"):
        rule.check(torch.tensor([0.1, math.nan]), 1)
    with pytest.raises(DataError, match="look"):
        rule.check(torch.tensor([0.1]), 0)


def test_forecast_of_an_exact_power_law():
    labels = [10, 20, 40, 80]
    errors = [3.0 * n**-0.5 for n in labels]
    found = forecast(labels, errors, 0.1)
    assert found.labels == pytest.approx(900, rel=1e-9)
    assert found.lower == pytest.approx(900, rel=1e-6) == found.upper
    assert "900 labels" in str(found)


def test_forecast_interval_covers():
    source, hits = torch.Generator().manual_seed(3), 0
    labels = [10, 20, 30, 40, 60, 80, 120]
    for _ in range(1000):
        noise = 0.1 * torch.randn(len(labels), generator=source, dtype=torch.float64)
        errors = [2.0 * n**-0.6 * math.exp(e) for n, e in zip(labels, noise.tolist(), strict=True)]
        found = forecast(labels, errors, 2.0 * 400**-0.6, level=0.9)
        hits += found.lower <= 400 <= found.upper
    assert abs(hits - 900) <= 3 * math.sqrt(90)


def test_a_curve_that_does_not_fall_promises_nothing():
    found = forecast([10, 20, 40], [1.0, 1.1, 1.2], 0.5)
    assert found.labels == math.inf == found.upper
    unclear = forecast([10, 20, 40, 80], [1.0, 0.6, 1.2, 0.7], 0.5)
    assert unclear.upper == math.inf


@pytest.mark.parametrize(
    "case", [([1, 2], [1.0, 0.5], 0.1), ([1, 2, 3], [1.0, 0.0, 0.5], 0.1), ([1, 2, 3], [1.0], 0.1)]
)
def test_bad_curves_are_refused(case):
    with pytest.raises(DataError, match="points"):
        forecast(*case)
