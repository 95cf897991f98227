"""Draws of a Boltzmann density: closed forms of Gaussians, and silence where an interval is not earned."""

import math
from types import SimpleNamespace

import pytest
import torch

from bayesmol.errors import ShapeError
from bayesmol.flows.weighted import BoltzmannDraws, tail_index
from bayesmol.flows.weighted_estimate import Untrusted
from bayesmol.inference.importance import log_partition, populations
from bayesmol.testing import check_posterior

GREEN = SimpleNamespace(verdict="green", reasons=())
AMBER = SimpleNamespace(verdict="amber", reasons=("a heavy tail",))
RED = SimpleNamespace(verdict="red", reasons=("a mode is missing",))


def draws(source, report=GREEN, width=1.2, size=4000):
    """A standard normal vector in the plane seen from a wider one."""
    x = width * torch.randn(1, size, 2, generator=source, dtype=torch.float64)
    square = x.square().sum(2)
    log_weights = -square / 2 + square / 2 / width**2 + 2 * math.log(width * math.sqrt(2 * math.pi))
    return BoltzmannDraws(x, log_weights, unit="Å", report=report)


def side(x):
    return (x[:, 0] > 1).long()


def test_it_is_a_posterior(source):
    check_posterior(draws(source, size=120), size=400)


def test_estimates_of_a_gaussian(source):
    found = draws(source)
    wanted = [
        (found.log_partition, math.log(2 * math.pi)),
        (found.expectation(lambda x: x.square().sum(1), "Å²"), 2.0),
        (found.expectation(lambda x: x[:, 0], "Å"), 0.0),
        (found.free_energy_difference(0, 1, side), math.log(0.841345 / 0.158655)),
    ]
    for estimate, truth in wanted:
        assert abs(float(estimate.value) - truth) < 4 * float(estimate.standard_error)
        assert "misses no region" in estimate.interval(0.95).guarantee
    assert found.verdict == ("green", ())


def test_errors_are_those_of_the_delta_method(source):
    found = draws(source)
    log_weights, labels = found.log_weights[0], side(found.values[0])
    other = populations(labels, log_weights, states=2)
    torch.testing.assert_close(found.populations(side).value, other.shares.value)
    torch.testing.assert_close(found.populations(side).standard_error, other.shares.standard_error, rtol=1e-3, atol=0)
    ours, theirs = found.free_energy_difference(0, 1, side), other.free_energy_difference(0, 1)
    torch.testing.assert_close(ours.standard_error, theirs.standard_error, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.log_partition.standard_error, log_partition(log_weights).standard_error)


def test_profile(source):
    profile = draws(source).profile(lambda x: x[:, 0], bins=6, span=(-1.5, 1.5))
    exact = profile.centres.square() / 2 + math.log(math.sqrt(2 * math.pi))
    assert bool(((profile.free_energy.value - exact).abs() < 0.1).all())


@pytest.mark.parametrize("report", [RED, None])
def test_a_red_report_silences_all(source, report):
    found = draws(source, report) if report else draws(source, GREEN, width=0.3)
    made = [
        found.expectation(),
        found.expectation(lambda x: x[:, 0], "Å"),
        found[0].expectation(),
        found.apply(lambda x: x.sum(1), "Å").expectation(),
        found.log_partition,
        found.populations(side),
        found.free_energy_difference(0, 1, side),
        found.profile(lambda x: x[:, 0]).free_energy,
    ]
    for estimate in made:
        assert isinstance(estimate, Untrusted)
        assert bool(torch.isinf(estimate.standard_error).all())
        assert ("mode is missing" if report else "k-hat") in str(estimate)


def test_amber_says_that_it_may_be_too_short(source):
    found = draws(source, AMBER)
    assert "too short" in found.log_partition.interval(0.9).guarantee
    assert "a heavy tail" in found.log_partition.interval(0.9).guarantee


def test_own_weights_can_be_worse_than_the_report(source):
    assert draws(source, GREEN, width=0.7).verdict[0] in ("amber", "red")
    assert draws(source, GREEN, size=60).verdict[0] == "amber"
    assert draws(source, GREEN, size=10).verdict[0] == "red"


def test_without_a_report_the_condition_is_said(source):
    assert "not diagnosed" in draws(source, None).log_partition.interval(0.9).guarantee


def test_a_state_without_draws(source):
    estimate = draws(source).free_energy_difference(0, 1, lambda x: (x[:, 0] > 100).long())
    assert isinstance(estimate, Untrusted)
    assert "state 1" in str(estimate)


def test_one_chain_only(source):
    with pytest.raises(ShapeError, match="one chain"):
        BoltzmannDraws(torch.zeros(2, 5, 1), torch.zeros(2, 5), unit="")
    with pytest.raises(ShapeError, match="one number"):
        draws(source).populations(lambda x: x.long())


def nearly_equal(source, size):
    return 0.05 * torch.randn(size, generator=source, dtype=torch.float64)


@pytest.mark.parametrize(("share", "factor"), [(0.2, 1.5), (0.01, 3.0), (0.003, 10.0)])
def test_a_starved_mode_is_no_tail(source, share, factor):
    """Its log Z has an interval, which holds: all that is random is how many draws are in the mode."""
    exact, held = 0.05**2 / 2 + math.log1p((factor - 1) * share), 0
    for _ in range(100):
        inside = torch.rand(10_000, generator=source) < share
        log_weights = nearly_equal(source, 10_000) + inside * math.log(factor)
        assert tail_index(log_weights) < 0.3
        found = BoltzmannDraws(torch.zeros(1, 10_000, 1), log_weights[None], unit="", report=GREEN).log_partition
        held += bool(found.interval(0.95).contains(torch.tensor(exact)))
    assert held >= 88, "of 100, where a true 95 % give fewer once in 700 times"


@pytest.mark.parametrize(("k", "most"), [(0.5, 6), (0.7, 2)])
def test_a_heavy_tail_is_seen_however_small_it_is(source, k, most):
    """Missed at most (1 − 1.5^(−1/k))⁹ of the time: two of 400, and a quarter of one."""
    missed, green = 0, 0
    for _ in range(400):
        tail = (torch.rand(1000, generator=source, dtype=torch.float64) ** -k - 1) / k
        k_hat = tail_index(torch.log1p(0.1 * tail))
        missed, green = missed + (k_hat == -math.inf), green + (k_hat <= 0.3)
    assert missed <= most and green < 60


def test_rounding_is_no_tail(source):
    rounded = 1e-7 * torch.randn(5000, generator=source).sign()
    assert tail_index(rounded) == -math.inf
    assert tail_index(torch.zeros(10)) == math.inf
    assert abs(tail_index(-0.5 * torch.rand(20_000, generator=source, dtype=torch.float64).log()) - 0.5) < 0.15
