import math

import mpmath
import pytest
import torch

from bayesmol.acquisition.improvement import (
    expected_improvement,
    log_expected_improvement,
    optimistic_value,
    probability_of_improvement,
    thompson,
)
from bayesmol.errors import DataError, ShapeError, UnitError
from bayesmol.posterior import Draws, Estimate, Gaussian, Mixture, StudentT


def gaussian(normal, count=6, unit="eV"):
    return Gaussian(normal(count), normal(count).square() + 0.1, unit=unit)


@pytest.mark.parametrize("goal", ["minimise", "maximise"])
def test_closed_form_is_the_mean_over_draws_to_a_thousandth(normal, goal):
    posterior = gaussian(normal)
    found = expected_improvement(posterior, 0.2, goal=goal)
    sign = 1 if goal == "maximise" else -1
    # stratified draws, so that the Monte-Carlo error is far below the tolerance
    p = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    draws = posterior.mean + posterior.stddev * torch.special.ndtri(p)[:, None]
    torch.testing.assert_close(found, (sign * (draws - 0.2)).clamp_min(0).mean(0), rtol=1e-3, atol=1e-6)
    chance = (sign * (draws - 0.2) > 0.1).double().mean(0)
    got = probability_of_improvement(posterior, 0.2, goal=goal, margin=0.1)
    torch.testing.assert_close(got, chance, rtol=0, atol=1e-5)


def test_logarithm_is_exact_from_sure_to_hopeless():
    z = torch.tensor([30.0, 3.0, 0.0, -0.999, -1.001, -5.0, -37.0, -199.9, -200.1, -1e4, -1e8], dtype=torch.float64)
    posterior = Gaussian(0.5 * z, torch.full_like(z, 0.25), unit="eV")
    found = log_expected_improvement(posterior, 0.0, goal="maximise")
    with mpmath.workdps(400):
        for place, value in zip(found.tolist(), z.tolist(), strict=True):
            x = mpmath.mpf(value)
            if value > -1e5:
                gain = mpmath.npdf(x) + x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2
                want = float(mpmath.log(gain / 2))
            else:
                want = -0.5 * value**2 - 0.5 * math.log(2 * math.pi) - 2 * math.log(-value) - math.log(2)
            assert place == pytest.approx(want, rel=1e-9, abs=1e-9)
    direct = expected_improvement(posterior, 0.0, goal="maximise")
    torch.testing.assert_close(direct, found.exp())
    assert bool((found.diff() < 0).all())


def test_minimising_is_maximising_the_negative(normal):
    posterior = gaussian(normal)
    turned = Gaussian(-posterior.mean, posterior.variance, unit="eV")
    for function in (expected_improvement, log_expected_improvement, probability_of_improvement):
        low, high = function(posterior, 0.3, goal="minimise"), function(turned, -0.3, goal="maximise")
        torch.testing.assert_close(low, high)
    low, high = optimistic_value(posterior, goal="minimise"), optimistic_value(turned, goal="maximise")
    torch.testing.assert_close(low, high)
    want = posterior.mean - 1.959963984540054 * posterior.stddev
    torch.testing.assert_close(-low, want)


def test_any_posterior_by_its_draws(normal):
    posterior = gaussian(normal)
    exact = expected_improvement(posterior, 0.1, goal="minimise")
    draws = Draws(posterior.sample(40_000, seed=1).unsqueeze(0), unit="eV")
    torch.testing.assert_close(expected_improvement(draws, 0.1, goal="minimise"), exact, rtol=0.05, atol=5e-3)
    chance = probability_of_improvement(draws, 0.1, goal="minimise")
    torch.testing.assert_close(chance, probability_of_improvement(posterior, 0.1, goal="minimise"), rtol=0, atol=0.015)
    heavy = StudentT(posterior.mean, posterior.stddev, 5.0, unit="eV")
    grid = torch.linspace(-60.0, 0.1, 20_001, dtype=torch.float64)
    want = torch.trapezoid(heavy.cdf(grid[:, None].expand(-1, 6).contiguous()), grid, dim=0)
    found = expected_improvement(heavy, 0.1, goal="minimise", size=40_000)
    torch.testing.assert_close(found, want, rtol=0.05, atol=0.01)


def test_noise_of_labels_attracts_nobody():
    mean = torch.zeros(2, dtype=torch.float64)
    quiet, loud = torch.tensor([0.04, 9.0], dtype=torch.float64)
    variance, known = torch.stack([quiet, loud]), torch.tensor([0.04, 0.01], dtype=torch.float64)
    posterior = Gaussian(mean, variance, unit="eV", epistemic_variance=known)
    for value in (
        expected_improvement(posterior, 0.0, goal="minimise"),
        optimistic_value(posterior, goal="minimise"),
        probability_of_improvement(posterior, -0.1, goal="minimise"),
    ):
        assert float(value[0]) > float(value[1])
    means, variances = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.1, 99.0], [0.1, 99.0]])
    ensemble = Mixture(means.double(), variances.double(), unit="")
    assert expected_improvement(ensemble, 0.0, goal="maximise").tolist() == [0.5, 0.0]


def test_units_are_converted_or_refused(normal):
    posterior = gaussian(normal)
    one = torch.tensor(1.0, dtype=torch.float64)
    best = Estimate(200 * one, 0 * one, one, "meV")
    for function in (expected_improvement, probability_of_improvement):
        found = function(posterior, best, goal="minimise")
        torch.testing.assert_close(found, function(posterior, 0.2, goal="minimise"))
    with pytest.raises(UnitError, match="eV"):
        expected_improvement(posterior, Estimate(one, 0 * one, one, "eV/Å"), goal="minimise")
    # a change of unit changes the improvement like a length, and no ranking
    fine = Gaussian(1000 * posterior.mean, 1e6 * posterior.variance, unit="meV")
    torch.testing.assert_close(
        expected_improvement(fine, best, goal="minimise"), 1000 * expected_improvement(posterior, 0.2, goal="minimise")
    )


def test_certain_outputs():
    posterior = Gaussian(torch.tensor([1.0, -1.0]).double(), torch.zeros(2).double(), unit="")
    assert expected_improvement(posterior, 0.0, goal="minimise").tolist() == [0.0, 1.0]
    assert log_expected_improvement(posterior, 0.0, goal="minimise").tolist() == [-math.inf, 0.0]


def test_thompson_draws_each_with_its_probability_to_be_best(normal):
    mean, root = torch.tensor([0.0, 0.1, -3.0]).double(), normal(3, 3)
    covariance = root @ root.T
    posterior = Gaussian(mean, covariance.diagonal().clone(), unit="eV", covariance=covariance)
    chosen = thompson(posterior, 20_000, goal="maximise", seed=3)
    best = posterior.sample(20_000, seed=4).argmax(1)
    share, want = (torch.bincount(x, minlength=3) / 20_000 for x in (chosen, best))
    torch.testing.assert_close(share, want, rtol=0, atol=0.02)
    assert torch.equal(chosen, thompson(posterior, 20_000, goal="maximise", seed=3))
    with pytest.raises(ShapeError, match="one output"):
        thompson(Gaussian(normal(2, 2), torch.ones(2, 2).double(), unit=""), 3, goal="maximise")


def test_bad_input(normal):
    posterior = gaussian(normal)
    with pytest.raises(DataError, match="goal"):
        expected_improvement(posterior, 0.0, goal="upwards")
    with pytest.raises(DataError, match="finite"):
        expected_improvement(posterior, math.inf, goal="minimise")
    with pytest.raises(ShapeError, match="best"):
        expected_improvement(posterior, torch.zeros(2).double(), goal="minimise")
    with pytest.raises(DataError, match="Gaussian"):
        log_expected_improvement(Draws(normal(1, 9, 2), unit="eV"), 0.0, goal="minimise")
