"""Power laws with known crossings: exact values, honest intervals, honest choices."""

import math

import pytest
import torch
from scipy import stats

from bayesmol.errors import DataError, ShapeError
from bayesmol.potentials.learning_curves import LearningCurve, choose, crossover
from bayesmol.testing import assert_calibrated

SIZES = torch.tensor([50.0, 100.0, 200.0, 400.0], dtype=torch.float64)


def curve(factor, power, spread, source, seeds=4, sizes=SIZES):
    """A power law whose two parameters scatter from seed to seed, with noise of each error."""
    noise = torch.randn(seeds, 2 + len(sizes), generator=source, dtype=torch.float64)
    logs = math.log(factor) + spread * noise[:, :1] - (power + 0.2 * spread * noise[:, 1:2]) * sizes.log()
    return LearningCurve(sizes, (logs + spread * noise[:, 2:]).exp())


def meeting(powers=(0.5, 1.0), size=150.0):
    """Factors with which the laws are equal at ``size``."""
    return 1.0, size ** (powers[1] - powers[0])


def test_exact_laws_cross_where_they_must(source):
    factors = meeting()
    first, second = (curve(f, p, 0.0, source) for f, p in zip(factors, (0.5, 1.0), strict=True))
    torch.testing.assert_close(first.lines, torch.tensor([[0.0, -0.5]] * 4).double(), atol=1e-12, rtol=0)
    found = crossover(first, second)
    assert found.size == pytest.approx(150) and found.inside and found.later == 1 and found.excluded is None
    assert float(found.interval.lower) == pytest.approx(150) == pytest.approx(float(found.interval.upper))
    assert "crossover at 150 labels" in str(found)
    other = crossover(second, first)
    assert other.size == pytest.approx(150) and other.later == 0


def test_the_set_is_where_students_test_does_not_reject(source):
    first, second = curve(1.0, 0.5, 0.1, source), curve(meeting()[1], 1.0, 0.1, source)
    found = crossover(first, second, level=0.8)
    for end in (float(found.interval.lower), float(found.interval.upper)):
        values = (first.lines - second.lines) @ torch.tensor([1.0, math.log(end)], dtype=torch.float64)
        assert stats.ttest_1samp(values.numpy(), 0.0).pvalue == pytest.approx(0.2)
    assert float(found.interval.lower) < found.size < float(found.interval.upper)


def test_parallel_laws_do_not_cross_and_the_interval_says_so(source):
    first, second = curve(1.0, 0.5, 0.02, source), curve(2.0, 0.5, 0.02, source)
    found = crossover(first, second)
    assert math.isinf(float(found.interval.upper)) or float(found.interval.lower) == 1.0
    excluded = found.excluded or (1.0, float(found.interval.lower))
    assert excluded[0] < 50 and excluded[1] > 400, "within the data the first is better"
    assert not found.inside


def test_a_crossing_beyond_the_data_is_half_open(source):
    first, second = curve(1.0, 0.5, 0.05, source), curve(meeting(size=4000.0)[1], 1.0, 0.05, source, seeds=4)
    found = crossover(first, second, level=0.999)
    assert not found.inside and "beyond the data" in str(found)
    assert float(found.interval.lower) > 400 or found.excluded is not None


def test_one_seed_knows_nothing(source):
    first, second = curve(1.0, 0.5, 0.0, source, seeds=1), curve(2.0, 1.0, 0.0, source, seeds=1)
    found = crossover(first, second)
    assert (float(found.interval.lower), float(found.interval.upper)) == (1.0, math.inf)
    assert math.isnan(found.probability) and math.isnan(first.curvature_p_value)
    assert math.isinf(float(first.predicted(100.0).upper))
    with pytest.raises(DataError, match="two or more seeds"):
        choose({"a": first, "b": second}, 100)


def test_choice_of_two_is_students_test(source):
    first, second = curve(1.0, 0.5, 0.2, source), curve(meeting()[1], 1.0, 0.2, source)
    found = choose({"first": first, "second": second}, 200)
    values = (first.lines - second.lines) @ torch.tensor([1.0, math.log(200.0)], dtype=torch.float64)
    want = stats.ttest_1samp(values.numpy(), 0.0, alternative="less").pvalue
    assert found.probabilities["second"] == pytest.approx(want, abs=0.015)
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.name == max(found.probabilities, key=found.probabilities.get)
    assert "power laws" in found.guarantee and "extrapolated" not in found.guarantee


def test_choice_changes_with_the_budget(source):
    curves = {"kernel": curve(1.0, 0.5, 0.02, source), "network": curve(meeting()[1], 1.0, 0.02, source)}
    curves["worse"] = curve(10.0, 0.5, 0.02, source)
    small, large = choose(curves, 50), choose(curves, 2000)
    assert (small.name, large.name) == ("kernel", "network") and "extrapolated from 400 labels" in large.guarantee
    assert small.probabilities["worse"] < 0.05 and small.errors["kernel"].upper < small.errors["worse"].lower
    assert choose(curves, 50, seed=1).probabilities == choose(curves, 50, seed=1).probabilities


def test_bending_is_seen(source):
    straight = curve(1.0, 0.5, 0.01, source, seeds=6)
    bent = LearningCurve(SIZES, straight.errors + 0.05)
    assert bent.curvature_p_value < 0.01 < straight.curvature_p_value


def test_bad_curves_are_refused(source):
    good = curve(1.0, 0.5, 0.0, source)
    with pytest.raises(ShapeError):
        LearningCurve(SIZES, good.errors[:, :2])
    with pytest.raises(DataError, match="sizes"):
        LearningCurve(SIZES.flip(0), good.errors)
    with pytest.raises(DataError, match="errors"):
        LearningCurve(SIZES, 0 * good.errors)
    with pytest.raises(DataError, match="same seeds"):
        crossover(good, curve(1.0, 0.5, 0.0, source, seeds=3))
    with pytest.raises(DataError, match="budget"):
        choose({"a": good, "b": good}, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "seeds"), [(0.05, 3), (0.4, 3), (0.4, 6)])
def test_intervals_cover(spread, seeds):
    """Narrow laws with clear crossings and wide ones, whose sets are often open: both cover as they say."""
    source, trials, hits = torch.Generator().manual_seed(5), 600, 0
    for _ in range(trials):
        first = curve(1.0, 0.5, spread, source, seeds)
        found = crossover(first, curve(meeting()[1], 1.0, spread, source, seeds), level=0.8)
        hole = found.excluded is not None and found.excluded[0] < 150 < found.excluded[1]
        hits += float(found.interval.lower) <= 150 <= float(found.interval.upper) and not hole
    assert_calibrated(hits, trials, 0.8)
