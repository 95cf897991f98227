import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.calibration.energy_test import EnergyTest
from bayesmol.errors import DataError


def energy_distance(first, second):
    """By the definition, in loops."""
    spread = np.concatenate([first, second]).std(0)
    first, second = first / spread, second / spread

    def mean(a, b):
        return np.mean([np.linalg.norm(x - y) for x in a for y in b])

    return 2 * mean(first, second) - mean(first, first) - mean(second, second)


def test_statistic_by_brute_force(normal):
    first, second = normal(9, 2), normal(6, 2) + 0.5
    found = EnergyTest(permutations=1)(first, second, seed=0).statistic
    assert found == pytest.approx(energy_distance(first.numpy(), second.numpy()), abs=1e-7)


def test_p_value_is_that_of_all_permutations(normal):
    first, second = normal(4, 1), normal(4, 1) + 1
    rows = torch.cat([first, second]).numpy()
    found, every = energy_distance(first.numpy(), second.numpy()), []
    for chosen in itertools.combinations(range(8), 4):
        rest = [i for i in range(8) if i not in chosen]
        every.append(energy_distance(rows[list(chosen)], rows[rest]) >= found - 1e-9)
    test = EnergyTest(permutations=4000)(first, second, seed=0)
    assert test.p_value == pytest.approx(np.mean(every), abs=0.035)
    assert "exact" in test.guarantee


def test_exact_under_the_null_and_strong_where_the_spread_differs(normal):
    p_values = [EnergyTest(99)(normal(24, 2), normal(16, 2), seed=k).p_value for k in range(80)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    assert EnergyTest()(normal(150, 2), 2 * normal(150, 2), seed=0).p_value <= 0.01


def test_groups_are_moved_whole(normal):
    groups = torch.arange(8).repeat_interleave(10)
    rejected = {None: 0, "groups": 0}
    for k in range(40):
        first, second = (normal(8, 1)[groups] + 0.05 * normal(80, 1) for _ in range(2))
        rejected[None] += EnergyTest(99)(first, second, seed=k).p_value <= 0.1
        rejected["groups"] += EnergyTest(99)(first, second, groups=(groups, groups), seed=k).p_value <= 0.1
    assert rejected[None] > 12 and rejected["groups"] <= stats.binom(40, 0.1).ppf(0.999)
    with pytest.raises(DataError, match="permutations"):
        EnergyTest(0)(normal(10, 2), normal(10, 2), seed=0)
