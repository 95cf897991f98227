"""Conformity scores: their definitions, the intervals of a radius, and the floor that bounds the width."""

import math

import pytest
import torch

from bayesmol.calibration.scores import Absolute, Central, Normalised, automatic_floor
from bayesmol.errors import DataError
from bayesmol.posterior import Draws, Gaussian


@pytest.fixture
def case(normal):
    stddev = (0.7 * normal(40, 3)).exp()
    return Gaussian(normal(40, 3), stddev.square(), unit="eV/Å"), normal(40, 3)


@pytest.mark.parametrize("score", [Absolute(), Normalised(), Normalised(0.8), Central(0.9)])
def test_a_label_is_inside_exactly_if_its_score_is_at_most_the_radius(case, score):
    posterior, truth = case
    scores = score.scores(posterior, truth)
    for radius in (0.05, 0.3, 1.0, 2.0):
        lower, upper = score.ends(posterior, torch.full_like(truth, radius))
        assert torch.equal((lower <= truth) & (truth <= upper), scores <= radius)


def test_definitions(case):
    posterior, truth = case
    gap = (truth - posterior.mean).abs()
    assert torch.equal(Absolute().scores(posterior, truth), gap)
    assert torch.equal(Normalised(0.8).scores(posterior, truth), gap / posterior.stddev.clamp_min(0.8))
    # |y − μ| − z σ for a normal distribution
    want = gap - 1.6448536269514722 * posterior.stddev
    torch.testing.assert_close(Central(0.9).scores(posterior, truth), want)


def test_negative_radii_narrow_down_to_the_middle(case):
    posterior, _ = case
    half = 1.6448536269514722 * posterior.stddev
    lower, upper = Central(0.9).ends(posterior, torch.full_like(half, -1.0))
    torch.testing.assert_close(upper - lower, 2 * (half - 1).clamp_min(0.0))
    torch.testing.assert_close((upper + lower) / 2, posterior.mean)


def test_quantile_scores_use_the_own_quantiles_of_a_skewed_posterior(normal):
    draws = Draws(normal(1, 500, 8).exp(), unit="eV")
    zero = torch.zeros(8, dtype=torch.float64)
    lower, upper = Central(0.8).ends(draws, zero)
    assert torch.equal(lower, draws.quantile(0.1)) and torch.equal(upper, draws.quantile(0.9))
    assert bool((upper - draws.mean > draws.mean - lower).all())


def test_infinite_radii_of_certain_entries():
    certain = Gaussian(torch.zeros(2), torch.zeros(2), unit="eV")
    for score in (Absolute(), Normalised(), Central(0.9)):
        lower, upper = score.ends(certain, torch.full((2,), math.inf))
        assert bool((upper == math.inf).all()) and bool((lower == -math.inf).all())
    with pytest.raises(DataError, match="give a floor"):
        Normalised().scores(certain, torch.ones(2))


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("count", [1, 2, 37])
def test_floors_solve_their_equations(spread, count, normal):
    stddev = (spread * normal(count)).exp()
    low, high = automatic_floor(stddev)
    assert float(stddev.clamp_min(low).sum()) == pytest.approx((3 * count - 1) * low)
    assert float(stddev.clamp_min(high).sum()) == pytest.approx(3 * count**2 / (count + 1) * high)
    assert low <= high * (1 + 1e-12) and high <= low * (count + 1) / count * (1 + 1e-12)


def test_floor_changes_nothing_without_tiny_standard_deviations(normal):
    stddev = 1 + normal(100).abs()
    assert automatic_floor(stddev)[1] < float(stddev.min())


def test_floor_bounds_the_width_for_any_labels(source, normal):
    """Worst case: the errors are largest where the standard deviations are smallest, here for any rank."""
    for spread in (1.0, 3.0):
        stddev = (spread * normal(60)).exp().sort().values
        for errors in (1 / stddev, normal(60).abs(), stddev, normal(60).abs().sort(descending=True).values):
            low, high = automatic_floor(stddev)
            ratio = (errors / stddev.clamp_min(low)).sort().values / errors.sort().values
            assert bool((ratio * stddev.clamp_min(high).mean() <= 3 * (1 + 1e-12)).all())


def test_floors_enclose_that_of_the_new_entry_too(normal):
    """The exact floor of n + 1 entries, by bisection, whatever the standard deviation of the new entry."""
    stddev = (2 * normal(25)).exp()
    low, high = automatic_floor(stddev)
    for new in (0.0, 0.1, 1.0, 10.0, 3 * high, 1e6):
        together = torch.cat([stddev, torch.tensor([new], dtype=torch.float64)])
        a, b = 0.0, 1e7
        for _ in range(200):
            middle = (a + b) / 2
            a, b = (middle, b) if float(together.clamp_min(middle).sum()) > 3 * 25 * middle else (a, middle)
        # A larger floor only if the new entry is so uncertain that no floor touches it.
        assert low * (1 - 1e-9) <= a and (a <= high * (1 + 1e-9) or new > a)
