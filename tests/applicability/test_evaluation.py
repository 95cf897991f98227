import json
import math

import pytest
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from bayesmol.applicability.domain import Domain
from bayesmol.applicability.evaluation import _gain, _separation, evaluate
from bayesmol.applicability.ground_truths import truths
from bayesmol.errors import DataError, ShapeError
from bayesmol.testing import assert_calibrated


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def case(rows=200, seed=0):
    """Scores that grow with the standard deviation of the error; every fourth row is from outside."""
    outside = torch.arange(rows) % 4 == 0
    scores = normal(rows, seed=seed) + 1.5 * outside
    sigma = torch.exp(0.5 * scores)
    return scores, outside, sigma * normal(rows, seed=seed + 10_000), sigma


def judge(*, rows=200, seed=0, **options):
    scores, outside, errors, sigma = case(rows, seed)
    domain = Domain("identity", level=0.1).calibrate(normal(300, seed=20_000))
    return evaluate(domain, scores, errors=errors, stddevs=sigma, outside=outside, **options)


@pytest.fixture(scope="module")
def report():
    return judge(targets=3 * normal(500, seed=5).exp())


def test_numbers_are_those_of_sklearn_and_scipy(report):
    scores, outside, errors, sigma = case()
    targets = 3 * normal(500, seed=5).exp()
    found = {name: measure.value for name, measure in report.measures.items()}
    assert found["auroc_outside"] == pytest.approx(roc_auc_score(outside, scores))
    good = errors.abs() < (targets - targets.mean()).abs().mean()
    assert found["auroc_point"] == pytest.approx(roc_auc_score(~good, scores))
    gain = average_precision_score(good, -scores) - float(good.double().mean())
    assert found["precision_gain_point"] == pytest.approx(gain)
    assert found["spearman"] == pytest.approx(stats.spearmanr(scores, errors.abs()).statistic)
    inside = report.verdict.inside
    assert found["rmse_inside"] == pytest.approx(float(errors[inside].square().mean().sqrt()))
    assert found["z_mean_square_outside"] == pytest.approx(float((errors / sigma)[~inside].square().mean()))
    covered = ((errors / sigma).abs() < stats.norm.ppf(0.95))[inside].double().mean()
    assert found["coverage_90_inside"] == pytest.approx(float(covered))
    assert found["power"] == pytest.approx(float((~inside)[outside].double().mean()))
    assert found["risk_coverage_area"] == pytest.approx(report.curve.area)
    assert {"precision_gain_error", "precision_gain_calibration", "auroc_error", "auroc_calibration"} <= set(found)


def test_every_interval_holds_its_value_and_the_false_positive_rate_is_exact(report):
    for name, measure in report.measures.items():
        assert math.isnan(measure.value) or measure.lower <= measure.value <= measure.upper, name
    assert sum(math.isnan(measure.value) for measure in report.measures.values()) <= 1
    rate = report.measures["false_positive_rate"]
    _, outside, _, _ = case()
    hits = int((~report.verdict.inside)[~outside].sum())
    want = stats.binomtest(hits, 150).proportion_ci(0.95, method="exact")
    assert (rate.lower, rate.upper) == pytest.approx((want.low, want.high)) and rate.method == "Clopper-Pearson"


def test_report_reads_and_serialises(report):
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["rows"] == 200 and content["measures"]["power"]["method"] == "Clopper-Pearson"
    text = str(report)
    assert "auroc_outside" in text and "95 % interval" in text and "at most 10 %" in text
    bare = evaluate(Domain("identity", level=0.1).calibrate(normal(300)), normal(50), errors=normal(50, seed=1))
    assert "auroc_outside" not in bare.measures and {"spearman", "rmse_inside"} <= set(bare.measures)
    assert bare.truths == ()


def covered(name, truth, *, draws=300, rows=160, **options):
    found = [judge(rows=rows, seed=seed, **options).measures[name] for seed in range(draws)]
    return sum(measure.lower <= truth <= measure.upper for measure in found)


def limits():
    big = judge(rows=400_000, targets=None).measures
    names = ("spearman", "risk_coverage_area", "risk_coverage_fraction", "rmse_inside")
    return {"auroc_outside": float(stats.norm.cdf(1.5 / math.sqrt(2))), **{name: big[name].value for name in names}}


@pytest.mark.slow
def test_intervals_cover():
    draws, truth = 400, limits()
    reports = [judge(rows=200, seed=seed).measures for seed in range(draws)]
    for name, value in truth.items():
        hits = sum(report[name].lower <= value <= report[name].upper for report in reports)
        assert hits >= stats.binom(draws, 0.93).ppf(0.005), (name, hits)
        assert hits <= draws - 2, (name, hits)


@pytest.mark.slow
def test_intervals_of_the_truths_in_bins_hold_what_many_rows_would_say():
    """Errors and their claims are good in some bins of the score and bad in others; a bin may be on the edge."""
    targets = torch.exp(1.2 * torch.special.ndtri((torch.arange(400) + 0.5).double() / 400))
    spread = float(targets.std(correction=0))

    def case_in_bins(rows, seed):
        source = torch.Generator().manual_seed(seed)
        scores = torch.rand(rows, generator=source).double()
        sigma = spread * (0.9 + 0.35 * torch.sin(9 * scores) + 0.3 * (scores - 0.5))
        errors = sigma * torch.randn(rows, generator=source).double()
        return scores, errors, sigma * torch.exp(0.9 * torch.cos(7 * scores))

    scores, errors, claimed = case_in_bins(400_000, 7)
    limits = {}
    for name, truth in zip(("point", "error", "calibration"), truths(scores, errors, targets, claimed), strict=True):
        limits[f"auroc_{name}"], limits[f"precision_gain_{name}"] = _separation(truth), _gain(truth)
    domain, draws = Domain("identity", level=0.1).calibrate(torch.rand(300).double()), 40
    held = dict.fromkeys(limits, 0)
    for seed in range(draws):
        scores, errors, claimed = case_in_bins(200, seed)
        found = evaluate(domain, scores, errors=errors, stddevs=claimed, targets=targets, seed=seed).measures
        for name, limit in limits.items():
            held[name] += found[name].lower <= limit <= found[name].upper
    for name, hits in held.items():
        assert hits >= stats.binom(draws, 0.95).ppf(0.001), (name, hits)


def test_interval_of_the_separation_covers():
    truth = float(stats.norm.cdf(1.5 / math.sqrt(2)))
    assert_calibrated(covered("auroc_outside", truth, draws=120), 120, 0.95, confidence=0.999)


def test_groups_widen_intervals():
    """Each row ten times over says no more than once."""
    scores, outside, errors, sigma = case(100)
    domain = Domain("identity", level=0.1).calibrate(normal(300, seed=3))
    many = torch.arange(100).repeat_interleave(10)
    keywords = {
        "errors": errors[many],
        "stddevs": sigma[many],
        "outside": outside[many],
        "targets": normal(400, seed=4),
    }
    alone = evaluate(domain, scores[many], **keywords).measures
    grouped = evaluate(domain, scores[many], groups=many, **keywords).measures
    once = evaluate(domain, scores, errors=errors, stddevs=sigma, outside=outside).measures
    for name in ("auroc_outside", "spearman", "rmse_inside", "false_positive_rate"):
        wide, narrow = (report[name].upper - report[name].lower for report in (grouped, alone))
        assert wide > 1.8 * narrow, name
        assert grouped[name].value == pytest.approx(alone[name].value)
    a, b = grouped["auroc_outside"], once["auroc_outside"]
    assert (a.lower, a.upper) == pytest.approx((b.lower, b.upper), abs=0.01)


def test_degenerate_cases_say_so():
    domain = Domain("identity", level=0.1).calibrate(normal(300))
    report = evaluate(
        domain,
        normal(40) - 50,
        errors=normal(40, seed=1),
        outside=torch.zeros(40, dtype=torch.bool),
        targets=normal(9, seed=2),
    )
    assert math.isnan(report.measures["auroc_outside"].value) and math.isnan(report.measures["power"].value)
    assert report.measures["false_positive_rate"].value == 0 and "rmse_outside" not in report.measures
    json.dumps(report.to_dict(), allow_nan=False)


def test_bad_input():
    domain = Domain("identity", level=0.1).calibrate(normal(300))
    with pytest.raises(ShapeError, match="outside"):
        evaluate(domain, normal(9), errors=normal(9), outside=torch.ones(8, dtype=torch.bool))
    with pytest.raises(DataError, match="stddevs"):
        evaluate(domain, normal(9), errors=normal(9), stddevs=normal(9))
    with pytest.raises(DataError, match="level"):
        evaluate(domain, normal(9), errors=normal(9), confidence=1.0)
