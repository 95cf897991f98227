import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian, Interval, Posterior


class Ten:
    """Rule: ten on both sides."""

    def interval(self, posterior, level):
        return Interval(posterior.mean - 10, posterior.mean + 10, level, posterior.unit, "ten")


@pytest.fixture
def gaussian(normal):
    return Gaussian(normal(3, 2), normal(3, 2).square(), unit="eV/Å")


def test_abstract_members_are_three_and_the_marginals():
    assert Posterior.__abstractmethods__ == {"mean", "variance", "sample", "__getitem__", "_cdf", "_quantile"}


def test_quantiles_of_several_levels_come_in_front(gaussian):
    levels = torch.tensor([[0.1, 0.5], [0.9, 0.99]], dtype=torch.float64)
    quantiles = gaussian.quantile(levels)
    assert quantiles.shape == (2, 2, 3, 2)
    torch.testing.assert_close(quantiles[1, 0], gaussian.quantile(0.9))
    torch.testing.assert_close(gaussian.cdf(quantiles[0, 0]), torch.full((3, 2), 0.1, dtype=torch.float64))


def test_a_rule_makes_the_interval_and_survives_selection(gaussian):
    ruled = gaussian.with_rule(Ten())
    assert gaussian.rule is None and gaussian.interval(0.9).guarantee == "exact if the model is true"
    assert ruled[1:].interval(0.9).guarantee == "ten"
    torch.testing.assert_close(ruled.interval(0.9).width, torch.full((3, 2), 20.0, dtype=torch.float64))
    with pytest.raises(DataError, match="level"):
        ruled.interval(1.0)


def test_apply_gives_the_law_of_a_function(gaussian):
    square = gaussian.apply(torch.square, "(eV/Å)²", size=20000, seed=1)
    assert isinstance(square, Draws) and square.unit == "(eV/Å)²"
    mean, variance = gaussian.mean, gaussian.variance
    spread = (2 * variance**2 + 4 * mean**2 * variance).sqrt() / math.sqrt(20000)
    assert bool(((square.mean - mean**2 - variance).abs() < 5 * spread).all())


def test_apply_is_joint(normal):
    covariance = torch.tensor([[1.0, 1.0 - 1e-9], [1.0 - 1e-9, 1.0]], dtype=torch.float64)
    pair = Gaussian(torch.zeros(2, dtype=torch.float64), covariance.diagonal(), unit="eV", covariance=covariance)
    gap = pair.apply(lambda x: x[:, 0] - x[:, 1], "eV")
    assert gap.shape == () and float(gap.stddev) < 1e-3


def test_values_of_another_shape_are_refused(gaussian):
    for value in (torch.zeros(2), torch.zeros(2, 3), torch.zeros(3, 1)):
        with pytest.raises(ShapeError, match="value"):
            gaussian.cdf(value)
    assert gaussian.cdf(torch.zeros(5, 3, 2)).shape == (5, 3, 2)
    assert gaussian.cdf(0.0).shape == (3, 2)


def test_length_and_representation(gaussian):
    assert len(gaussian) == 3
    assert repr(gaussian) == "Gaussian(shape=(3, 2), unit='eV/Å')"
