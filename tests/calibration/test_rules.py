"""Conformal rules: quantiles by brute force, sentences, and files."""

import itertools
import math

import pytest
import torch

from bayesmol.calibration import Conformal, ConformalRule
from bayesmol.calibration.rules import Sample, needed, sentence
from bayesmol.errors import DataError, FormatError
from bayesmol.posterior import Gaussian


def posterior_of(mean, stddev=1.0, unit="eV"):
    return Gaussian(mean, torch.as_tensor(stddev, dtype=torch.float64).square().expand_as(mean), unit=unit)


def rule_of(truth, groups=None, stddev=1.0, **setting):
    return Conformal(**setting).fit(posterior_of(torch.zeros_like(truth), stddev), truth, groups=groups)


@pytest.mark.parametrize("count", [9, 10, 57, 99, 199, 500])
@pytest.mark.parametrize("level", [0.5, 0.55, 0.57, 2 / 3, 0.9])
def test_radius_is_the_textbook_order_statistic(count, level, normal):
    scores = normal(count)
    sample = Sample.of(scores, torch.arange(count), "entry")
    rank = math.ceil(round((count + 1) * level, 9))
    assert sample.radius(level) == float(scores.sort().values[rank - 1])


def test_hierarchical_radius_is_the_weighted_quantile_by_brute_force(source):
    counts = torch.randint(1, 9, (40,), generator=source)
    ends = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)]).tolist()
    truth = torch.randn(ends[-1], 3, generator=source, dtype=torch.float64)
    rule = rule_of(truth, torch.arange(40).repeat_interleave(counts), 0.5, unit="structure")
    scores = truth.abs() / 0.5
    for level in (0.3, 0.5, 0.9, 40 / 41):
        for value in scores.flatten().sort().values:
            parts = [(scores[a:b] <= value).double().mean() for a, b in itertools.pairwise(ends)]
            if sum(parts) / 41 >= level - 1e-12:
                break
        assert float(rule.radii(level)) == pytest.approx(float(value), abs=1e-12)
    assert math.isinf(rule.radii(0.98))


def test_simultaneous_radius_is_that_of_the_largest_scores(source, normal):
    truth, groups = normal(60, 3), torch.arange(20).repeat(3)
    largest = torch.stack([truth[groups == g].abs().max() for g in range(20)])
    rule = rule_of(truth, groups, unit="structure", simultaneous=True)
    assert float(rule.radii(0.9)) == float(largest.sort().values[18])
    shuffled = torch.randperm(60, generator=source)
    other = rule_of(truth[shuffled], groups[shuffled] * 7 + 3, unit="structure", simultaneous=True)
    assert torch.equal(other.samples[0].scores, rule.samples[0].scores)


def test_hierarchical_with_one_component_a_structure_is_split(normal):
    truth = normal(73)
    for level in (0.1, 0.55, 0.9, 0.98):
        assert torch.equal(rule_of(truth, unit="structure").radii(level), rule_of(truth).radii(level))


def test_interval_scales_with_the_standard_deviation(normal):
    rule = rule_of(normal(99))
    posterior = Gaussian(torch.tensor([1.0, 2.0]), torch.tensor([0.01, 4.0]), unit="eV").with_rule(rule)
    interval, radius = posterior.interval(0.9), float(rule.radii(0.9))
    assert torch.allclose(interval.upper, torch.tensor([1.0 + 0.1 * radius, 2.0 + 2.0 * radius]))
    assert torch.allclose(interval.lower + interval.upper, 2 * posterior.mean)
    assert interval.unit == "eV" and interval.level == 0.9
    assert "≥ 0.9" in interval.guarantee and "n = 99" in interval.guarantee and "needs n ≥ 9" in interval.guarantee


def test_small_samples_give_infinite_intervals_that_say_so(normal):
    truth = normal(8)
    rule = rule_of(truth)
    interval = rule.interval(posterior_of(torch.zeros(3, dtype=torch.float64)), 0.9)
    assert bool(interval.width.isinf().all())
    assert "needs n ≥ 9" in interval.guarantee and "got 8" in interval.guarantee
    assert bool(rule.radii(0.8).isfinite())
    for simultaneous in (False, True):
        rule = rule_of(truth, torch.arange(4).repeat(2), unit="structure", simultaneous=simultaneous)
        assert rule.count == 4
        assert bool(rule.radii(0.9).isinf()) and bool(rule.radii(0.8).isfinite())


@pytest.mark.parametrize(("level", "least"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99)])
def test_needed(level, least):
    assert needed(level) == least
    with pytest.raises(DataError, match="level"):
        needed(1.0)


def test_sentence(normal):
    enough, few = (Sample.of(normal(n), torch.arange(n), "entry") for n in (20, 5))
    assert sentence([few], 0.9, "it", "calibration") == "infinite: level 0.9 needs n ≥ 9, got 5"
    said = sentence([enough, few, few], 0.9, "it", "calibration", "each part")
    assert "covers it" in said and "in each part" in said and "n = 20" in said
    assert said.endswith("; infinite in 2 (n = 5), 3 (n = 5)")
    assert sentence([enough, few], 0.9, "it", "calibration", "each part", [1, 8]).endswith("infinite in 8 (n = 5)")
    assert sentence([enough] + [few] * 6, 0.9, "it", "calibration", "each part").endswith("(n = 5) and others")
    assert "n = 5 to 20" in sentence([enough, few], 0.8, "it", "calibration", "each part")


SETTINGS = [
    {},
    {"unit": "structure"},
    {"unit": "structure", "simultaneous": True, "floor": 0.1},
    {"score": "absolute", "unit": "structure", "source": "leave-one-out"},
    {"bins": 3},
    {"unit": "structure", "bins": 2, "floor": "auto"},
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_state_gives_the_same_intervals(setting, normal):
    truth, groups = normal(60, 3), torch.arange(30).repeat_interleave(2)
    posterior = posterior_of(torch.zeros_like(truth), normal(60, 3).exp(), unit="eV/Å")
    rule = Conformal(**setting).fit(posterior, truth, groups=groups)
    header, arrays = rule.state()
    again = ConformalRule.from_state(header, arrays)
    assert again.guarantee(0.8) == rule.guarantee(0.8)
    assert torch.equal(again.interval(posterior, 0.8).upper, rule.interval(posterior, 0.8).upper)
    for part in header:
        with pytest.raises(FormatError):
            ConformalRule.from_state({key: value for key, value in header.items() if key != part}, arrays)
    with pytest.raises(FormatError):
        ConformalRule.from_state(header, {})


def test_state_of_categories(normal):
    truth, categories = normal(60), torch.arange(60) % 3
    rule = Conformal().fit(posterior_of(torch.zeros_like(truth)), truth, categories=categories)
    again = ConformalRule.from_state(*rule.state())
    posterior = posterior_of(torch.zeros_like(truth))
    got, want = (r.interval(posterior, 0.8, categories=categories).upper for r in (again, rule))
    assert torch.equal(got, want)


def test_files_of_earlier_versions_are_refused(normal):
    header = {"count": 40, "target": "value", "source": "calibration", "floor": 0.0}
    with pytest.raises(FormatError, match="calibrate and save again"):
        ConformalRule.from_state(header, {"scores": normal(40).abs()})


@pytest.mark.parametrize("change", [{"score": "other"}, {"target": "component"}, {"sizes": [3]}])
def test_contradictory_states_are_refused(change, normal):
    header, arrays = rule_of(normal(40)).state()
    with pytest.raises(FormatError):
        ConformalRule.from_state(header | change, arrays)


def test_rule_follows_a_slice_and_single_precision(source, normal):
    rule = rule_of(normal(40, 3), torch.arange(20).repeat_interleave(2), unit="structure")
    variance = torch.rand(6, 3, generator=source) + 1
    posterior = Gaussian(torch.zeros(6, 3), variance, unit="eV/Å", rule=rule)
    assert posterior.interval(0.9).upper.dtype == torch.float32
    assert torch.equal(posterior[2:4].interval(0.9).upper, posterior.interval(0.9).upper[2:4])
