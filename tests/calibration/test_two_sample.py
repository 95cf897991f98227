import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.calibration.two_sample import ClassifierTest, KernelTest
from bayesmol.errors import DataError, ShapeError

TESTS = [KernelTest(permutations=99), ClassifierTest("logistic", permutations=99)]


def kernel_discrepancy(first, second):
    """By the definition, in loops."""
    rows = np.concatenate([first, second])
    rows = rows / rows.std(0)
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(rows, 2)]
    width = np.sort(distances)[(len(distances) - 1) // 2]  # as torch.median
    kernel = [[np.exp(-np.sum((a - b) ** 2) / 2 / width**2) for b in rows] for a in rows]
    kernel, n = np.array(kernel), len(first)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()


def test_kernel_statistic_by_brute_force(normal):
    first, second = normal(9, 2), normal(6, 2) + 0.5
    found = KernelTest(permutations=1)(first, second, seed=0).statistic
    assert found == pytest.approx(kernel_discrepancy(first.numpy(), second.numpy()), abs=1e-12)


def test_kernel_p_value_is_that_of_all_permutations(normal):
    first, second = normal(4, 1), normal(4, 1) + 1
    rows = torch.cat([first, second]).numpy()
    found = kernel_discrepancy(first.numpy(), second.numpy())
    every = []
    for chosen in itertools.combinations(range(8), 4):
        rest = [i for i in range(8) if i not in chosen]
        every.append(kernel_discrepancy(rows[list(chosen)], rows[rest]) >= found - 1e-12)
    test = KernelTest(permutations=4000)(first, second, seed=0)
    assert test.p_value == pytest.approx(np.mean(every), abs=0.035)
    assert "exact" in test.guarantee


def test_area_under_the_curve_of_the_classifier(normal):
    test = ClassifierTest("logistic")(normal(400, 2), normal(400, 2) + 1, seed=0)
    # the best direction separates by √2 standard deviations
    assert test.statistic == pytest.approx(stats.norm.cdf(1.0), abs=0.04)
    assert test.p_value == pytest.approx(2 / 1000)
    assert ClassifierTest("logistic")(normal(200, 2), normal(200, 2), seed=0).statistic == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("test", TESTS, ids=repr)
def test_p_values_under_the_null(test, normal):
    p_values = torch.tensor([test(normal(24, 2), normal(16, 2), seed=k).p_value for k in range(80)])
    for level in (0.05, 0.2, 0.5):
        assert int((p_values <= level).sum()) <= stats.binom(80, level).ppf(0.999)
    if isinstance(test, KernelTest):  # exact: uniform
        assert stats.kstest(p_values.numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize("test", TESTS, ids=repr)
def test_power(test, normal):
    p_values = [test(normal(40, 2), normal(40, 2) + 1, seed=k).p_value for k in range(20)]
    assert max(p_values) <= 0.05


def test_quadratic_and_kernel_see_a_change_of_spread(normal):
    first, second = normal(150, 2), 2 * normal(150, 2)
    assert KernelTest()(first, second, seed=0).p_value <= 0.01
    assert ClassifierTest("quadratic")(first, second, seed=0).p_value <= 0.01


@pytest.mark.parametrize("test", TESTS, ids=repr)
def test_groups_are_moved_whole(test, normal):
    # Rows of a group are nearly equal: as single rows two samples often differ, as groups they do not.
    groups = torch.arange(8).repeat_interleave(10)
    rejected = {None: 0, "groups": 0}
    for k in range(40):
        first, second = (normal(8, 1)[groups] + 0.05 * normal(80, 1) for _ in range(2))
        rejected[None] += test(first, second, seed=k).p_value <= 0.1
        found = test(first, second, groups=(groups, groups), seed=k)
        rejected["groups"] += found.p_value <= 0.1
    assert rejected[None] > 12 and rejected["groups"] <= stats.binom(40, 0.1).ppf(0.999)
    assert "groups" in found.guarantee


def test_unequal_groups_and_labels(normal):
    groups = torch.tensor([7, 7, 3, 9, 9, 9, 3, 1]), torch.tensor([0, 0, 4, 4, 4, 2])
    first, second = normal(8, 2), normal(6, 2)
    same = tuple(part.unique(return_inverse=True)[1] for part in groups)
    found, again = (KernelTest(99)(first, second, groups=g, seed=0) for g in (groups, same))
    assert found == again


def test_constant_features_and_many_rows(normal):
    first = torch.cat([normal(1500, 1), torch.ones(1500, 1)], 1)
    assert KernelTest(99)(first, first.flip(0), seed=0).p_value > 0.5
    assert KernelTest(99)(torch.ones(5, 1), torch.ones(6, 1), seed=0).p_value == 1


def test_bad_input(normal):
    for test in TESTS:
        with pytest.raises(ShapeError, match="two samples"):
            test(normal(10, 2), normal(10, 3), seed=0)
        with pytest.raises(ShapeError, match="groups"):
            test(normal(10, 2), normal(10, 2), groups=(torch.arange(9), torch.arange(10)), seed=0)
        with pytest.raises(DataError, match="at least 2 groups"):
            test(normal(10, 2), normal(10, 2), groups=(torch.zeros(10).long(), torch.arange(10)), seed=0)
    with pytest.raises(DataError, match="at least 3 groups"):
        three = torch.arange(10) % 3
        ClassifierTest("logistic", folds=3)(normal(10, 2), normal(10, 2), groups=(three, three.clamp_max(1)), seed=0)
    with pytest.raises(DataError, match="permutations"):
        KernelTest(0)(normal(10, 2), normal(10, 2), seed=0)
