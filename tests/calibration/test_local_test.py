import math

import pytest
import torch
from scipy import stats

from bayesmol.calibration.energy_test import EnergyTest
from bayesmol.calibration.local_test import LocalTest, neighbours_of_rows
from bayesmol.calibration.two_sample import ClassifierTest, KernelTest
from bayesmol.errors import DataError

SHARES = torch.tensor([0.4, 0.3, 0.25, 0.05])
CENTRES = torch.tensor([[-1.4, 2.6], [-1.2, -0.5], [-2.6, 2.8], [1.0, 0.8]], dtype=torch.float64)


def torsions(rows, source, *, dropped=False):
    """Two torsions with four basins as cosines and sines beside six noisy features; the rarest basin may be missing."""
    shares = SHARES.clone()
    shares[-1] *= not dropped
    basin = torch.multinomial(shares, rows, replacement=True, generator=source)
    angles = CENTRES[basin] + 0.35 * torch.randn(rows, 2, generator=source, dtype=torch.float64)
    noise = torch.randn(rows, 6, generator=source, dtype=torch.float64)
    return torch.cat([angles.cos(), angles.sin(), noise], 1), basin


def divergence(a, b):
    return sum(x * math.log(x / y) for x, y in ((a, b), (1 - a, 1 - b)) if x > 0)


def test_statistic_by_brute_force(normal):
    first, second = normal(12, 2), normal(9, 2) + 0.5
    rows = torch.cat([first, second])
    rows = rows / rows.std(0, correction=0)
    best = 0.0
    for k in (3, 8):
        for row in rows:
            inside = int(((row - rows).norm(dim=1).argsort()[:k] < 12).sum())
            ratio = k * divergence(inside / k, 12 / 21) + (21 - k) * divergence((12 - inside) / (21 - k), 12 / 21)
            best = max(best, ratio)
    found = LocalTest((3, 8), permutations=1)(first, second, seed=0)
    assert found.statistic == pytest.approx(best, rel=1e-5)
    assert found.expected_of_first == pytest.approx(12 / 21 * found.neighbours)


def test_neighbours_in_parts(normal, monkeypatch):
    rows = normal(30, 2)
    whole = neighbours_of_rows(rows, 5)
    monkeypatch.setattr("bayesmol.calibration.local_test._PART", 64)
    assert torch.equal(whole, neighbours_of_rows(rows, 5))
    assert torch.equal(whole[:, 0], torch.arange(30))


def test_exact_under_the_null(normal):
    p_values = [LocalTest((4, 8), 99)(normal(24, 2), normal(16, 2), seed=k).p_value for k in range(80)]
    assert stats.binom(80, 0.2).ppf(0.001) <= sum(p <= 0.2 for p in p_values) <= stats.binom(80, 0.2).ppf(0.999)


def test_groups_are_moved_whole(normal):
    groups = torch.arange(8).repeat_interleave(10)
    rejected = {None: 0, "groups": 0}
    for k in range(30):
        first, second = (normal(8, 1)[groups] + 0.05 * normal(80, 1) for _ in range(2))
        rejected[None] += LocalTest(permutations=49)(first, second, seed=k).p_value <= 0.1
        rejected["groups"] += LocalTest(permutations=49)(first, second, groups=(groups, groups), seed=k).p_value <= 0.1
    assert rejected[None] > 12 and rejected["groups"] <= stats.binom(30, 0.1).ppf(0.999)


def test_it_says_where(source):
    first, _ = torsions(600, source, dropped=True)
    second, basin = torsions(600, source)
    found = LocalTest((8, 16, 32), permutations=99)(first, second, seed=0)
    assert found.p_value <= 0.01
    assert found.centre >= 600 and int(basin[found.centre - 600]) == 3
    assert found.of_first < 0.2 * found.expected_of_first


def test_bad_input(normal):
    for wrong in ((), (64,), (8, 4), (0, 4)):
        with pytest.raises(DataError, match="neighbours"):
            LocalTest(wrong)(normal(10, 2), normal(10, 2), seed=0)


@pytest.mark.slow
def test_power_to_see_a_dropped_mode_of_five_percent(source):
    seen = 0
    for k in range(40):
        first, second = torsions(2000, source, dropped=True)[0], torsions(2000, source)[0]
        seen += LocalTest(permutations=39)(first, second, seed=k).p_value <= 0.05
    assert seen >= 38


@pytest.mark.slow
@pytest.mark.parametrize(
    "test", [LocalTest((8, 32), 39), EnergyTest(39), KernelTest(39), ClassifierTest("logistic", permutations=79)]
)
def test_rejection_under_the_null_is_five_percent(test, source):
    repeats, rejected = 800, 0
    for k in range(repeats):
        rejected += test(torsions(100, source)[0], torsions(80, source)[0], seed=k).p_value <= 0.05
    lower = 0 if isinstance(test, ClassifierTest) else 0.03  # its p-value is valid, not exact
    assert lower * repeats <= rejected <= 0.07 * repeats
