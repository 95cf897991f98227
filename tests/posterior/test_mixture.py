import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian, Mixture
from bayesmol.testing import assert_calibrated, check_posterior


@pytest.fixture
def mixture(normal):
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    return Mixture(normal(3, 4), normal(3, 4).square(), weights, unit="eV")


def test_contract(mixture):
    check_posterior(mixture)


def test_law_of_total_variance_is_exact(mixture):
    w = mixture.weights[:, None]
    mean = (w * mixture.means).sum(0)
    between, within = (w * (mixture.means - mean) ** 2).sum(0), (w * mixture.variances).sum(0)
    torch.testing.assert_close(mixture.epistemic.variance, between, rtol=1e-13, atol=0)
    torch.testing.assert_close(mixture.aleatoric.variance, within, rtol=1e-13, atol=0)
    torch.testing.assert_close(mixture.variance, between + within, rtol=1e-13, atol=0)


def test_one_member_is_the_gaussian(normal):
    mean, variance, value = normal(3), normal(3).square(), normal(3)
    one, gaussian = Mixture(mean[None], variance[None], unit="eV"), Gaussian(mean, variance, unit="eV")
    torch.testing.assert_close(one.quantile(0.9), gaussian.quantile(0.9))
    torch.testing.assert_close(one.cdf(value), gaussian.cdf(value))
    torch.testing.assert_close(one.log_prob(value), gaussian.log_prob(value))


def test_the_density_is_the_slope_of_the_distribution_function(mixture):
    value, step = mixture.mean, 1e-5
    slope = (mixture.cdf(value + step) - mixture.cdf(value - step)) / (2 * step)
    torch.testing.assert_close(mixture.log_prob(value).exp(), slope, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(mixture.cdf(mixture.quantile(0.3)), torch.full((4,), 0.3, dtype=torch.float64))


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_interval_covers_new_values(normal, source, level):
    means, variances = 3 * normal(3, 2000), normal(3, 2000).square()
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    member = torch.multinomial(weights, 2000, replacement=True, generator=source)
    pick = torch.arange(2000)
    values = means[member, pick] + variances[member, pick].sqrt() * normal(2000)
    inside = Mixture(means, variances, weights, unit="eV").interval(level).contains(values)
    assert_calibrated(int(inside.sum()), 2000, level)


def test_a_member_without_weight_does_not_matter(normal):
    means, variances = normal(2, 3), torch.ones(2, 3, dtype=torch.float64)
    means[1] = 1e6
    mixture = Mixture(means, variances, torch.tensor([1.0, 0.0], dtype=torch.float64), unit="eV")
    torch.testing.assert_close(mixture.quantile(0.9), Gaussian(means[0], variances[0], unit="eV").quantile(0.9))
    assert torch.equal(mixture.epistemic.variance, torch.zeros(3, dtype=torch.float64))


def test_selection(mixture):
    torch.testing.assert_close(mixture[1:].mean, mixture.mean[1:])
    torch.testing.assert_close(mixture[torch.tensor([3, 0])].quantile(0.2), mixture.quantile(0.2)[[3, 0]])
    with pytest.raises(ShapeError, match="scalar"):
        mixture[0][0]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((torch.zeros(2, 3), torch.ones(3)), ShapeError, "variance"),
        ((torch.zeros(2, 3), -torch.ones(2, 3)), DataError, "variance"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), ShapeError, "means"),
        ((torch.zeros(2, 3), torch.ones(2, 3), torch.ones(3) / 3), ShapeError, "weights"),
        ((torch.zeros(2, 3), torch.ones(2, 3), torch.ones(2)), DataError, "weights"),
        ((torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([1.5, -0.5])), DataError, "weights"),
        ((torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([math.nan, 1.0])), DataError, "weights"),
    ],
)
def test_bad_input_is_refused(arguments, error, match):
    with pytest.raises(error, match=match):
        Mixture(*arguments, unit="eV")
