"""The search against brute force; its thresholds are round numbers between rows."""

import itertools
import math

import pytest
import torch

from bayesmol.calibration.boxes import Box, Rows, _short, best_boxes
from bayesmol.errors import DataError


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def gain(rows, box):
    return float(rows.gains[rows.inside(box)].sum())


def bounded(lower, upper):
    return Box(tensor(lower), tensor(upper), 0.0)


def brute_force(rows, dimension):
    """Largest sum of gains of an interval of one descriptor, one-sided or two-sided."""
    values = rows.values[dimension]
    edges = [-math.inf, *((a + b) / 2 for a, b in itertools.pairwise(values.unique().tolist())), math.inf]
    pairs = {(a, b) for a in edges for b in edges if a < b}
    sums = {pair: float(rows.gains[(values > pair[0]) & (values <= pair[1])].sum()) for pair in pairs}
    kinds = {"above": (True, False), "below": (False, True), "between": (True, True)}
    return {
        kind: max(total for pair, total in sums.items() if tuple(map(math.isfinite, pair)) == ends)
        for kind, ends in kinds.items()
    }


def test_best_cuts_are_those_of_brute_force(normal):
    values = (3 * normal(2, 40)).round()  # with ties
    rows = Rows.of(values, normal(40).abs())
    cuts = list(rows.children(rows.whole()))
    assert len(cuts) == 6
    for dimension in range(2):
        want = brute_force(rows, dimension)
        for kind, cut in zip(("above", "below", "between"), cuts[3 * dimension :], strict=False):
            assert cut.quality == pytest.approx(want[kind])
            assert cut.quality == pytest.approx(gain(rows, cut))
            finite = bool(cut.lower[dimension].isfinite()), bool(cut.upper[dimension].isfinite())
            assert finite == {"above": (True, False), "below": (False, True), "between": (True, True)}[kind]


def test_cuts_within_a_region_keep_its_other_bounds(normal):
    rows = Rows.of(normal(3, 60), normal(60).abs())
    parent = bounded([-1.0, -math.inf, -math.inf], [math.inf, 1.0, math.inf])
    for child in rows.children(parent):
        assert float(child.lower[0]) >= -1 and float(child.upper[1]) <= 1
        assert child.quality == pytest.approx(gain(rows, child))
        assert bool((rows.inside(parent) | ~rows.inside(child)).all()), "a child lies inside its parent"


def test_polishing_never_loses_and_keeps_the_kind(normal):
    rows = Rows.of(normal(2, 80), normal(80).abs())
    start = bounded([-0.3, -math.inf], [1.5, 0.2])
    start = Box(start.lower, start.upper, gain(rows, start))
    found = rows.polished(start)
    assert found.quality >= start.quality and found.quality == pytest.approx(gain(rows, found))
    assert torch.equal(found.lower.isfinite(), start.lower.isfinite()) and found.conditions == 3
    assert rows.polished(found).key == found.key


def test_sharpening_raises_the_likelihood_of_two_exponential_laws(normal, source):
    values = torch.rand(2, 400, generator=source, dtype=torch.float64)
    inside = (values[0] <= 0.5) & (values[1] > 0.4)
    errors = normal(400).abs() * torch.where(inside, 0.2, 1.0)
    rows = Rows.of(values, errors)
    start = bounded([-math.inf, 0.3], [0.62, math.inf])
    found = rows.sharpened(start)
    assert float(rows.log_prob(found).sum()) > float(rows.log_prob(start).sum())
    assert float((rows.inside(found) ^ inside).double().mean()) < 0.02
    means = [errors[part].mean() for part in (rows.inside(found), ~rows.inside(found))]
    want = [torch.distributions.Exponential(1 / m).log_prob(errors) for m in means]
    torch.testing.assert_close(rows.log_prob(found), torch.where(rows.inside(found), *want))


def test_one_threshold_is_found_exactly(source):
    values = torch.rand(3, 200, generator=source, dtype=torch.float64)
    errors = torch.where(values[1] > 0.6, 0.1, 1.0).double()
    found = best_boxes(Rows.of(values, errors), torch.arange(200), conditions=3, width=5)
    assert len(found) == 1 and found[0].conditions == 1, "further conditions add nothing"
    rows = Rows.of(values, errors)
    assert torch.equal(rows.inside(found[0]), values[1] > 0.6)


def test_thresholds_are_round():
    assert _short(0.26, 0.41) == 0.3 and _short(1.0, 2.0) == 1.5 and _short(-3.0, -2.9) == -3.0
    assert _short(0.12341, 0.12343) == 0.12342
    low, high = 0.1, math.nextafter(0.1, 1)
    assert low <= _short(low, high) < high
    assert _short(1e-300, 3e-300) == 2e-300


def test_constant_descriptors_give_no_region():
    rows = Rows.of(torch.ones(2, 30, dtype=torch.float64), torch.rand(30, dtype=torch.float64))
    with pytest.raises(DataError, match="varies"):
        best_boxes(rows, torch.arange(30), conditions=2, width=3)
