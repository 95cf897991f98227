"""Estimates of weighted islands: closed forms, spread, coverage."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.inference.particles import Particles, Schedule, family_mean
from bayesmol.testing import assert_calibrated


def schedule(*ladder):
    return Schedule(torch.tensor(ladder).double(), torch.ones(len(ladder)), torch.ones(len(ladder), 1))


def particles(rows, log_weights, *, fixed=True):
    one = torch.ones(1).double()
    return Particles(rows, log_weights, schedule(1.0), one, one, 7, fixed)


def gaussian(source, islands, size, scale=1.5):
    """Draws of a wide normal law with weights for the standard normal one, whose partition function is √(2π)."""
    x = scale * torch.randn(islands, size, 1, generator=source, dtype=torch.float64)
    log_weights = (-x.square() / 2 + x.square() / (2 * scale**2)).squeeze(2) + math.log(scale * math.sqrt(2 * math.pi))
    return particles(x, log_weights)


def test_estimates(source):
    found = gaussian(source, 32, 500)
    exact = math.log(2 * math.pi) / 2
    assert abs(float(found.log_partition.value) - exact) < 3.5 * float(found.log_partition.standard_error)
    square = found.expectation(lambda x: x.square())
    assert abs(float(square.value) - 1) < 3.5 * float(square.standard_error) and square.value.shape == (1,)
    assert "unbiased" in found.guarantee
    assert "chosen by the same" in particles(found.rows, found.log_weights, fixed=False).guarantee


def test_islands_of_one_are_independent_draws(source):
    """The delta method of importance sampling, up to the factor of Student's law, which is next to one."""
    found = gaussian(source, 4000, 1)
    draws = found.draws()
    assert draws.values.shape == (1, 4000, 1)
    want, got = draws.expectation(), found.expectation(lambda x: x)
    torch.testing.assert_close(got.value, want.value)
    weights = found.log_weights.flatten().softmax(0)
    delta = (weights.square() * (found.rows.flatten() - got.value).square()).sum().sqrt()
    assert float(got.standard_error) == pytest.approx(float(delta), rel=1e-3)


def test_islands_that_agree_have_no_error():
    rows = torch.arange(3.0).double().reshape(1, 3, 1).repeat(8, 1, 1)
    found = particles(rows, torch.full((8, 3), 2.0).double())
    assert float(found.log_partition.value) == pytest.approx(2.0)
    assert float(found.log_partition.standard_error) < 1e-12
    assert float(found.expectation(lambda x: x[:, 0]).standard_error) < 1e-12
    assert found.draws().values.shape == (8, 3, 1)
    assert found.effective_sample_size == pytest.approx(24)


def test_an_island_without_weight_counts(source):
    found = gaussian(source, 8, 100)
    dead = found.log_weights.clone()
    dead[0] = -math.inf
    less = particles(found.rows, dead).log_partition
    assert float(less.value) == pytest.approx(float(found.log_partition.value) - math.log(8 / 7), abs=0.05)
    assert float(less.standard_error) > float(found.log_partition.standard_error)


@pytest.mark.parametrize("kept", [0.95, 0.5, 0.0])
def test_families_know_how_far_their_members_have_moved(source, kept):
    """Resampled from a wide proposal, then moved by autoregressive steps that leave the target as it is."""
    trials, size, hits, count = 600, 400, 0, 0.0
    for _ in range(trials):
        x = 3 * torch.randn(size, generator=source, dtype=torch.float64)
        log_w = -x.square() / 2 + x.square() / 18
        families = torch.multinomial(log_w.softmax(0), size, replacement=True, generator=source)
        noise = torch.randn(size, generator=source, dtype=torch.float64)
        found = family_mean(kept * x[families] + (1 - kept**2) ** 0.5 * noise, torch.zeros_like(x), families, "")
        hits += bool(found.interval(0.95).contains(torch.tensor(0.0)))
        count += float(found.effective_sample_size) / size / trials
    assert_calibrated(hits, trials, 0.95)
    # Of the variance the part kept² is that of importance sampling, and all of it has that of the new draws.
    weight = 9 / 17**0.5 * (9 / 17)  # mean of w² x² over that of w, of the proposal
    assert count == pytest.approx(1 / (1 + kept**2 * weight), rel=0.12)


@pytest.mark.parametrize("ladder", [(), (0.5,), (0.5, 0.4, 1.0), (0.0, 1.0)])
def test_bad_ladders(ladder):
    with pytest.raises(DataError, match="ladder"):
        schedule(*ladder)


@pytest.mark.slow
def test_intervals_of_few_islands_cover(source):
    trials, hits, means, exact = 1000, 0, 0, math.log(2 * math.pi) / 2
    for _ in range(trials):
        found = gaussian(source, 16, 200)
        z = found.log_partition
        hits += bool(abs(float(z.value) - exact) < 1.96 * float(z.standard_error))
        mean = found.expectation(lambda x: x[:, 0])
        means += bool(abs(float(mean.value)) < 1.96 * float(mean.standard_error))
    assert_calibrated(hits, trials, 0.95)
    assert_calibrated(means, trials, 0.95)
