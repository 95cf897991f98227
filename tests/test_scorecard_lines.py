"""Intervals over structures hold, and a verdict follows from the interval alone."""

import json
import math

import numpy as np
import pytest
import torch

from bayesmol.applicability.measures import clopper_pearson
from bayesmol.calibration import binomial_band
from bayesmol.errors import DataError
from bayesmol.posterior import Estimate
from bayesmol.scorecard_lines import CONFIDENCE, Line, Score, Thresholds, over_structures, verdict, worst
from bayesmol.testing import assert_calibrated


@pytest.mark.parametrize(
    ("score", "ends", "said"),
    [
        (Score(1.0, 0.9, 1.1), {"upper": 1.1}, "met"),
        (Score(1.0, 0.9, 1.1), {"upper": 1.0}, "cannot tell"),
        (Score(1.0, 0.9, 1.1), {"upper": 0.8}, "not met"),
        (Score(1.0, 0.9, 1.1), {"lower": 1.2, "upper": 2.0}, "not met"),
        (Score(0.9, 0.87, 0.93), {"lower": 0.86, "upper": 0.94}, "met"),
        (Score(0.9, 0.85, 0.93), {"lower": 0.86, "upper": 0.94}, "cannot tell"),
        (Score(1.0), {"upper": 5.0}, "cannot tell"),
        (Score(math.nan), {"upper": 5.0}, "cannot tell"),
    ],
)
def test_verdict_from_the_interval(score, ends, said):
    assert verdict(score, **ends) == said


def test_several_conditions_are_as_good_as_the_worst():
    assert worst(["met", "met"]) == "met" and worst(["met", "cannot tell"]) == "cannot tell"
    assert worst(["cannot tell", "not met", "met"]) == "not met"


def test_thresholds_are_those_of_the_requirements():
    assert Thresholds().energy == pytest.approx(0.25 * 0.0433641, rel=1e-5)
    assert 1000 * 1e6 * Thresholds().microseconds * 1e-6 == pytest.approx(86400)  # a day


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_intervals_hold_for_ragged_structures_also_along_a_trajectory(correlation):
    source, hits, repeats = np.random.default_rng(3), 0, 300
    for _ in range(repeats):
        sizes = source.integers(3, 12, 800).astype(float)
        noise = source.normal(size=800)
        for step in range(1, 800):
            noise[step] = correlation * noise[step - 1] + math.sqrt(1 - correlation**2) * noise[step]
        found = over_structures(torch.from_numpy(sizes * (2.0 + noise)), torch.from_numpy(sizes), "eV")
        hits += found.lower <= 2.0 <= found.upper
    low, _ = binomial_band(repeats, 0.95, 0.999)
    assert hits / repeats >= low - 0.03  # blocks of a finite chain know their length roughly


@pytest.mark.parametrize(("count", "share"), [(10, False), (40, False), (200, False), (40, True), (200, True)])
def test_intervals_over_independent_structures_hold_at_their_level(count, share):
    source, hits, repeats, true = np.random.default_rng(count), 0, 400, 0.8
    for _ in range(repeats):
        if share:  # components inside, of 27 that depend on each other
            sizes = np.full(count, 27.0)
            sums = source.binomial(27, source.beta(9 * true, 9 * (1 - true), count)).astype(float)
        else:
            sizes = source.integers(3, 12, count).astype(float)
            sums = sizes * (true + source.normal(size=count))
        found = over_structures(torch.from_numpy(sums), torch.from_numpy(sizes), share=share)
        hits += found.lower <= true <= found.upper
    assert_calibrated(hits, repeats, CONFIDENCE, confidence=0.999)


def test_value_is_the_mean_of_all_entries_and_the_error_at_least_that_of_independent_ones(normal):
    sums, sizes = normal(50).abs(), torch.full((50,), 3.0)
    found = over_structures(sums, sizes, "eV/Å")
    assert found.value == pytest.approx(float(sums.sum()) / 150) and found.unit == "eV/Å"
    assert found.standard_error >= float(sums.std()) / 3 / math.sqrt(50)


def test_extreme_shares_have_the_exact_interval():
    for value in (0.0, 1.0):
        found = over_structures(torch.full((40,), 27 * value), torch.full((40,), 27.0), share=True)
        assert (found.lower, found.upper) == clopper_pearson(int(40 * value), 40)
    found = over_structures(torch.tensor([1.0] * 39 + [0.0]), torch.ones(40), share=True)
    assert found.lower < 0.975 <= found.upper <= 1.0


def test_what_cannot_be_known_is_infinite():
    assert over_structures(torch.ones(3), torch.ones(3)).upper == math.inf
    assert over_structures(torch.arange(200.0), torch.ones(200)).upper == math.inf  # one long correlation
    assert over_structures(torch.tensor([1.0, math.inf, 1.0, 1.0, 1.0]), torch.ones(5)).lower == -math.inf
    with pytest.raises(DataError, match="at least one structure"):
        over_structures(torch.zeros(0), torch.zeros(0))


def test_estimates_become_scores_with_a_least_value():
    estimate = Estimate(*(torch.tensor(x, dtype=torch.float64) for x in (0.02, 0.02, 10.0)), "")
    found = Score.of(estimate, least=0.0)
    assert found.lower == 0.0 and found.upper == pytest.approx(0.02 + 1.959964 * 0.02)
    assert Score(0.1, 0.1 - 1.959964, 0.1 + 1.959964).standard_error == pytest.approx(1.0, rel=1e-6)


def test_printing():
    assert str(Score(0.0067, 0.0065, 0.0069, "eV")) == "6.7 [6.5, 6.9] meV"
    assert str(Score(0.67, 0.6, 0.7, "eV")) == "0.67 [0.6, 0.7] eV"
    assert Score(0.9, 0.88, 0.92).percent == "90 [88, 92] %"


def test_content_is_json():
    line = Line("cheap", "cannot tell", "Because.", {"x": Score(1.0, unit="µs")}, {"y": "no"})
    found = json.loads(json.dumps(line.content(), allow_nan=False))
    assert found["scores"]["x"] == {"value": 1.0, "lower": None, "upper": None, "unit": "µs"}
    impossible = Line.impossible("scalable", "one molecule only")
    assert impossible.verdict == "not possible" and not impossible.scores and impossible.sentence == "one molecule only"
