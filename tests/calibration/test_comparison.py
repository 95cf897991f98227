import json

import pytest
import torch

from bayesmol.calibration.comparison import compare
from bayesmol.calibration.energy_test import EnergyTest
from bayesmol.calibration.local_test import LocalTest
from bayesmol.errors import DataError, ShapeError

FAST = {"local": LocalTest((8, 32), 99), "energy": EnergyTest(99)}


def test_a_perfect_sampler_and_one_that_lacks_a_mode(normal):
    modes = (torch.arange(300) < 30).long()
    reference, good, bad = normal(300, 2), normal(300, 2), normal(300, 2)
    reference[:30] += 8
    good[:30] += 8
    options = {"pairs": [(0, 1)], "tests": FAST, "resamples": 40, "seed": 0}
    found = compare(good, reference, modes=(modes, modes), **options)
    assert found.p_value > 0.01
    for name, one in found.distances.items():
        assert one.p_value > 1 / 40, name
    assert found.modes[1].value == found.modes[1].ideal == 0.1
    lacking = compare(bad, reference, modes=(torch.zeros(300).long(), modes), training=normal(100, 2), **options)
    assert lacking.p_value <= 0.03
    assert lacking.tests["local"].p_value <= 0.01
    assert lacking.distances["sliced Wasserstein"].p_value == pytest.approx(1 / 41)
    assert lacking.modes[1].value == 0 and lacking.modes[1].p_value < 1e-3
    assert lacking.support["recall"].p_value <= 0.05 and "memorisation" in lacking.support
    text = str(lacking)
    for word in ("Jensen-Shannon", "perfect sampler", "share of mode 1", "neighbours, not", "recall", "energy test"):
        assert word in text
    content = json.loads(json.dumps(lacking.content(), allow_nan=False))
    assert content["tests"]["local"]["centre"] >= 300


def test_weights_make_the_draws_those_of_the_reference(normal):
    draws, reference = 1.5 * normal(600, 1), normal(400, 1)
    weights = (-draws.square() / 2 + draws.square() / 2 / 1.5**2).exp()[:, 0]
    options = {"tests": FAST, "resamples": 40, "seed": 0}
    plain, weighted = compare(draws, reference, **options), compare(draws, reference, weights=weights, **options)
    assert plain.p_value <= 0.03 and plain.distances["energy distance"].p_value == pytest.approx(1 / 41)
    assert weighted.p_value > 0.05 and weighted.distances["energy distance"].p_value > 0.05
    assert "thinned" in weighted.notes[0]


def test_few_rows_and_many(normal):
    weights = torch.zeros(60)
    weights[:3] = 1
    found = compare(normal(60, 1), normal(60, 1), weights=weights, tests=FAST, resamples=10, seed=0)
    assert not found.tests and found.p_value == 1 and "fewer than 20" in found.notes[-1]
    groups = torch.arange(60) // 2, torch.arange(60) // 3
    options = {"groups": groups, "largest": 50, "tests": FAST, "resamples": 10, "seed": 0}
    found = compare(normal(60, 2), normal(60, 2), periodic=[True, False], **options)
    assert "50 of 60 rows of the sample" in found.notes[0]
    assert "groups" in found.tests["local"].guarantee
    again = normal(60, 2)
    assert compare(again, again + 1, **options).content() == compare(again, again + 1, **options).content()


def test_bad_input(normal):
    with pytest.raises(ShapeError, match="two samples"):
        compare(normal(10, 2), normal(10, 3), seed=0)
    with pytest.raises(DataError, match="finite"):
        compare(normal(10, 2) / 0, normal(10, 2), seed=0)
    with pytest.raises(ShapeError, match="groups"):
        compare(normal(60, 2), normal(60, 2), groups=(torch.arange(60), torch.arange(59)), seed=0)
