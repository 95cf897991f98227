"""Intervals that follow the error field: coverage everywhere, where plain split intervals have it on average."""

import math

import pytest
import torch

from bayesmol.calibration import Conformal
from bayesmol.calibration.local_conformal import LocalConformal
from bayesmol.calibration.locality import ErrorField
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian
from bayesmol.testing import assert_calibrated

SMALL = LocalConformal(ErrorField(trees=60))


def toy(normal, source, rows):
    """Features, labels of noise with a scale from 0.2 to 2.2, and predictions that know nothing of it."""
    features = 2 * torch.rand(rows, 3, generator=source, dtype=torch.float64) - 1
    labels = (0.2 + 2 * features[:, 0].square()) * normal(rows)
    return features, labels, Gaussian(torch.zeros_like(labels), torch.ones_like(labels), unit="eV")


def deciles(interval, labels, features):
    """Coverage in each tenth of the scale of the noise."""
    order = features[:, 0].abs().argsort()
    return interval.contains(labels)[order].double().reshape(10, -1).mean(1)


def coverages(normal, source, repetitions, spec):
    """Mean coverage of the deciles: plain split, local."""
    plain, local = [], []
    for seed in range(repetitions):
        features, labels, posterior = toy(normal, source, 1000)
        new, truth, prediction = toy(normal, source, 2000)
        rule = spec.fit(posterior, labels, features, seed=seed)
        local.append(deciles(rule.interval(prediction, 0.9, new), truth, new))
        rule = Conformal("absolute").fit(posterior, labels)
        plain.append(deciles(rule.interval(prediction, 0.9), truth, new))
    return torch.stack(plain), torch.stack(local)


def test_each_decile_is_covered_where_plain_intervals_fail(normal, source):
    plain, local = coverages(normal, source, 10, SMALL)
    assert float(plain.mean(0).min()) < 0.75, "the worst decile of plain split intervals"
    assert float((local.mean(0) - 0.9).abs().max()) < 0.04
    assert float(local.mean()) == pytest.approx(0.9, abs=0.015)


@pytest.mark.slow
def test_coverage_over_many_replications(normal, source):
    plain, local = coverages(normal, source, 100, LocalConformal())
    print("plain deciles", plain.mean(0).tolist(), "local deciles", local.mean(0).tolist())
    assert float(plain.mean(0).min()) < 0.75
    assert float((local.mean(0) - 0.9).abs().max()) < 0.04
    missed = 0
    for hits in (local.mean(1) * 2000).round().int().tolist():
        try:
            assert_calibrated(hits, 2000, 0.9, calibration=500)
        except AssertionError:
            missed += 1
    assert missed <= 5  # of 100 bands of 99 %


def test_marginal_coverage_is_that_of_split_even_with_a_useless_field(normal, source):
    hits = 0
    for seed in range(40):
        _, labels, posterior = toy(normal, source, 200)
        _, truth, prediction = toy(normal, source, 50)
        rule = LocalConformal(ErrorField(trees=8)).fit(posterior, labels, normal(200, 2), seed=seed)
        hits += int(rule.interval(prediction, 0.9, normal(50, 2)).contains(truth).sum())
    assert 0.88 < hits / 2000 < 0.93


def test_structures_are_the_units(normal, source):
    features, labels, posterior = toy(normal, source, 600)
    owner = torch.arange(600) // 6
    for simultaneous, subject in ((False, "a random component"), (True, "all components")):
        spec = LocalConformal(ErrorField(trees=40), unit="structure", simultaneous=simultaneous)
        rule = spec.fit(posterior, labels, features, groups=owner, seed=0)
        assert rule.rule.count == 50, "half of the structures calibrate"
        assert subject in rule.guarantee(0.9) and "exchangeable" in rule.guarantee(0.9)
        interval = rule.interval(posterior, 0.9, features)
        assert interval.guarantee == rule.guarantee(0.9) and interval.unit == "eV"
        assert bool(rule.interval(posterior, 0.99, features).width.isinf().all())


def test_components_of_a_row_share_the_width(normal, source):
    features, _, _ = toy(normal, source, 300)
    labels = (0.2 + 2 * features[:, :1].square()) * normal(300, 3)
    posterior = Gaussian(torch.zeros_like(labels), torch.ones_like(labels), unit="eV/Å")
    rule = SMALL.fit(posterior, labels, features, seed=0)
    width = rule.interval(posterior, 0.8, features).width
    assert width.shape == (300, 3) and torch.equal(width[:, 0], width[:, 2])
    field = rule.field.mean(features).value
    torch.testing.assert_close(width[:, 0] / field, torch.full_like(field, float(width[0, 0] / field[0])))


def test_as_the_rule_of_a_posterior(normal, source):
    features, labels, posterior = toy(normal, source, 300)
    rule = SMALL.fit(posterior, labels, features, seed=0)
    marked = posterior.with_rule(rule.at(features))
    assert torch.equal(marked.interval(0.9).upper, rule.interval(posterior, 0.9, features).upper)
    with pytest.raises(ShapeError, match="slice"):
        marked[:10].interval(0.9)
    again = SMALL.fit(posterior, labels, features, seed=0)
    assert torch.equal(again.interval(posterior, 0.9, features).upper, marked.interval(0.9).upper)


def test_no_neighbourhood_has_width_zero(normal, source):
    features, labels, posterior = toy(normal, source, 400)
    labels = torch.where(features[:, 0] > 0, labels, 0.0)
    rule = SMALL.fit(posterior, labels, features, seed=0)
    width = rule.interval(posterior, 0.9, features).width
    assert bool((width > 0).all()) and math.isfinite(float(width.max()))


def test_bad_input(normal, source):
    features, labels, posterior = toy(normal, source, 200)
    with pytest.raises(DataError, match="share"):
        LocalConformal(share=1.0)
    with pytest.raises(ShapeError, match="features"):
        SMALL.fit(posterior, labels, features[:100], seed=0)
    with pytest.raises(ShapeError, match="truth"):
        SMALL.fit(posterior, labels[:100], features, seed=0)
