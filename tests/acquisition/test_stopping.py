import math

import pytest
import torch

from bayesmol.acquisition.stopping import StopRule, forecast
from bayesmol.applicability import tolerance_rank
from bayesmol.errors import DataError


def test_bound_is_the_tolerance_limit_at_the_confidence_of_a_look():
    errors = torch.rand(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for looks in (1, 5, 20):
        rank = tolerance_rank(200, 0.1, 1 - 0.05 / looks)
        assert StopRule(1.0, share=0.9, confidence=0.95, looks=looks).check(errors).bound == float(
            errors.sort().values[-rank]
        )


def test_too_few_structures_give_no_bound():
    rule = StopRule(target=1.0, share=0.9, confidence=0.95)
    few = rule.needed
    assert few == math.ceil(math.log(0.005) / math.log(0.9)) == 51
    assert rule.check(torch.zeros(few - 1, dtype=torch.float64)).bound == math.inf
    check = rule.check(torch.zeros(few, dtype=torch.float64))
    assert check.met and check.bound == 0
    assert f"takes {few}" in check.guarantee


def test_a_false_stop_is_rare_however_often_one_looks():
    # A share of 0.9 is below the target: just too few. Independent looks are the worst case.
    source, rule, false = torch.Generator().manual_seed(1), StopRule(target=0.9, share=0.901), 0
    for _ in range(400):
        looks = [torch.rand(150, generator=source, dtype=torch.float64) for _ in range(10)]
        false += any(rule.check(errors).met for errors in looks)
    assert false <= 0.05 * 400 + 3 * math.sqrt(0.05 * 0.95 * 400)


def test_a_good_model_is_found_good():
    errors = torch.rand(150, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.9
    assert StopRule(target=1.0).check(errors).met


def test_looks_are_spread_over_the_campaign():
    rule, look, taken = StopRule(target=1.0, looks=4), 1, []
    for labels in range(10, 81, 5):
        if rule.due(look, labels, 10, 80):
            taken.append(labels)
            look += 1
    assert taken == [10, 20, 40, 80]
    assert not rule.due(5, 1000, 10, 80), "no look more than was said"
    once = StopRule(target=1.0, looks=1)
    assert not once.due(1, 79, 10, 80) and once.due(1, 80, 10, 80)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"target": 0.0}, "target"),
        ({"share": 1.0}, "share"),
        ({"confidence": 0.0}, "confidence"),
        ({"looks": 0}, "looks"),
    ],
)
def test_bad_rules_are_refused(arguments, match):
    with pytest.raises(DataError, match=match):
        StopRule(**{"target": 1.0} | arguments)


def test_bad_errors_are_refused():
    rule = StopRule(target=1.0)
    with pytest.raises(DataError, match="errors"):
        rule.check(torch.tensor([0.1, math.nan]))


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
