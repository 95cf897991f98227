"""Claims of the benchmark: made where an interval excludes zero, and as seldom false as they say."""

import math

import pytest
import torch
from scipy import stats

ROOM = [(f"task{t}", seed) for t in range(10) for seed in range(5)]


@pytest.fixture
def comparison(study):
    return study("calibration_comparison")


def values(array):
    return {(f"task{t}", seed): float(x) for t, row in enumerate(array) for seed, x in enumerate(row)}


def cell(comparison, array):
    return comparison.Comparison("crps", ("a", "scale"), ("a", "raw"), values(array))


def test_interval_is_students_over_tasks(comparison, normal):
    gaps = normal(10, 5) + 0.3
    found = cell(comparison, gaps)
    expected = stats.ttest_1samp(gaps.mean(1).numpy(), 0.0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high), rel=1e-12)
    assert found.value == pytest.approx(float(gaps.mean())) and found.tasks == 10
    assert found.name == "a_scale_minus_a_raw_crps"


def test_better_is_said_only_where_zero_is_excluded(comparison):
    for shift, winner in ((-3.0, ("a", "scale")), (3.0, ("a", "raw")), (0.0, None)):
        found = cell(comparison, shift + torch.linspace(-1, 1, 8, dtype=torch.float64)[:, None])
        assert found.better == winner
        assert ("is better than" in str(found)) == (winner is not None) == (not found.lower <= 0 <= found.upper)
    assert "a raw is better than a scale" in str(cell(comparison, torch.tensor([[3.0], [3.1], [2.9]])))


def test_one_task_proves_nothing(comparison):
    found = cell(comparison, torch.full((1, 5), -2.0))
    assert found.better is None and math.isinf(found.standard_error) and found.lower == -math.inf
    assert math.isinf(float(comparison.over_tasks({("task0", 0): 1.0}).standard_error))


def test_identical_methods_are_called_better_in_five_percent(comparison, source):
    """Two methods with the same law, tasks of very different noise, correlated seeds: 5 ± 2 %."""
    claims = 0
    for _ in range(1500):
        scale = torch.randn(10, 1, generator=source).exp()
        table = {}
        for name in ("raw", "scale"):
            task, run = torch.randn(10, 1, generator=source), torch.randn(10, 5, generator=source)
            table["a", name] = {"crps": values(1 + 0.1 * scale * (0.5 * task + run))}
        claims += comparison.compared(table, "crps", ("a", "scale"), ("a", "raw")).better is not None
    assert claims / 1500 == pytest.approx(0.05, abs=0.02)


def test_a_difference_of_two_standard_deviations_is_found(comparison, source):
    gaps = [cell(comparison, 2 + torch.randn(10, 5, generator=source) + torch.randn(10, 1, generator=source))] * 20
    assert all(gap.better == ("a", "raw") for gap in gaps)


def test_only_pairs_count(comparison):
    table = {
        ("a", "raw"): {"nll": {("t", 0): 1.0, ("t", 1): 5.0}},
        ("b", "raw"): {"nll": {("t", 0): 3.0, ("u", 0): 9.0}},
    }
    found = comparison.compared(table, "nll", ("a", "raw"), ("b", "raw"))
    assert found.gaps == {("t", 0): -2.0}
    table["b", "raw"]["nll"] = {("u", 0): 9.0}
    assert comparison.compared(table, "nll", ("a", "raw"), ("b", "raw")) is None


def test_pooled(comparison):
    parts = [cell(comparison, torch.tensor([[1.0, 2.0]])), cell(comparison, torch.tensor([[3.0]]))]
    found = comparison.pooled(parts, ("all", "scale"), ("all", "raw"))
    assert found.gaps == {("task0", 0): 2.0, ("task0", 1): 2.0} and found.metric == "crps"


def test_means_are_over_tasks_of_means_over_seeds(comparison):
    found = comparison.over_tasks({("t", 0): 1.0, ("t", 1): 3.0, ("u", 0): 4.0})
    assert float(found.value) == 3.0 and float(found.standard_error) == pytest.approx(1.0)


def test_ranks(comparison):
    scores = {
        ("a", "raw"): {("t", 0): 0.1, ("t", 1): 1.0},
        ("b", "raw"): {("t", 0): 0.2, ("t", 1): 1.0},
        ("c", "raw"): {},
    }
    found = comparison.ranks(scores)
    assert found["a", "raw"] == {("t", 0): 1.0, ("t", 1): 1.5} and found["c", "raw"] == {}


def test_rate_of_exchanged_methods(comparison, normal):
    even = [values(5 + normal(10, 5)) for _ in range(20)]
    assert float(comparison.null_rate(even, seed=0).value) == pytest.approx(0.05, abs=0.02)
    one = torch.full((10, 1), 1e-3, dtype=torch.float64)
    one[0] = 1.0
    assert float(comparison.null_rate([values(one)], seed=0).value) < 0.01, "one large difference claims nothing"
