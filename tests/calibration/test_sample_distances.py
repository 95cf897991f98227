import math

import pytest
import torch

from bayesmol.calibration.compared import Replicates, replicated
from bayesmol.calibration.divergences import Bins, jensen_shannon, wasserstein_circle, wasserstein_line
from bayesmol.calibration.sample_distances import distances_of, embedded


def test_first_replicate_is_the_distance_of_the_samples(normal):
    first, second = normal(40, 2), 1 + 2 * normal(50, 2)
    weights, periodic = normal(40).exp(), torch.tensor([False, True])
    replicates = replicated((40, 50), weights, None, resamples=10, seed=0)
    found = distances_of(first, second, replicates, periodic=periodic, pairs=[(0, 1)], seed=0)
    line = wasserstein_line(first[:, 0], second[:, 0], weights=weights) / second[:, 0].std()
    circle = wasserstein_circle(first[:, 1], second[:, 1], weights=weights)
    assert found["Wasserstein, mean of features"].value == pytest.approx(float(line + circle) / 2)
    assert found["Wasserstein, largest of features"].value == pytest.approx(float(torch.maximum(line, circle)))
    bins = Bins.of(second, 64, periodic=periodic)
    pair = jensen_shannon(bins.shares(first, weights), bins.shares(second))
    assert found["Jensen-Shannon of features 0 and 1"].value == pytest.approx(float(pair))


def test_equal_samples_have_no_distance(normal):
    rows = normal(30, 2)
    replicates = replicated((30, 30), None, None, resamples=5, seed=0)
    found = distances_of(rows, rows, replicates, periodic=torch.zeros(2).bool(), seed=0)
    for name, one in found.items():
        assert one.p_value == 1 and one.value < one.ideal, name


def test_all_replicates_agree_with_one_at_a_time(normal):
    first, second = normal(20, 1), normal(25, 1)
    many = replicated((20, 25), None, None, resamples=3, seed=0)
    found = distances_of(first, second, many, periodic=torch.zeros(1).bool(), seed=0)
    values = torch.cat([first, second])[:, 0] / second.std()
    each = [
        wasserstein_line(values, values, weights=p, second_weights=q)
        for p, q in zip(many.first[4:], many.second[4:], strict=True)
    ]
    assert found["Wasserstein, mean of features"].ideal == pytest.approx(float(torch.stack(each).median()))
    assert isinstance(many, Replicates)


def test_embedding():
    rows = torch.tensor([[2.0, 0.0, 5.0], [4.0, math.pi / 2, 5.0]]).double()
    found = embedded(rows, torch.tensor([False, True, False]), torch.tensor([2.0, 1.0, 0.0]).double())
    torch.testing.assert_close(found, torch.tensor([[1.0, 5, 1, 0], [2, 5, 0, 1]]).double())
