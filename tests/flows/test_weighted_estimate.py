"""Intervals from influences: limits, skewness, heavy tails, coverage, and what cannot be known."""

import math

import torch
from scipy import stats

from bayesmol.flows.weighted_estimate import Untrusted, WeightedEstimate, influenced

ONE = torch.tensor(1.0, dtype=torch.float64)


def test_normal_influences_give_the_normal_interval(normal):
    z = normal(200_000)
    z = torch.cat([z, -z])
    estimate = influenced(ONE, z, ONE, "eV", "a sentence")
    interval = estimate.interval(0.95)
    assert interval.guarantee == "a sentence"
    torch.testing.assert_close(interval.width, 2 * 1.959964 * estimate.standard_error, rtol=1e-4, atol=0)
    torch.testing.assert_close(estimate.standard_error, z.std() / math.sqrt(len(z)))


def test_skewed_influences_reach_further_to_the_side_of_the_rare(source):
    z = torch.empty(200, dtype=torch.float64).exponential_(generator=source)
    interval = influenced(z.mean(), z - z.mean(), ONE, "", "").interval(0.95)
    assert interval.upper - z.mean() > 1.1 * (z.mean() - interval.lower)


def test_transformation_has_its_inverse():
    a, y = torch.tensor(0.4, dtype=torch.float64), torch.linspace(-2, 2, 9, dtype=torch.float64)
    numbers = [torch.full_like(y, v) for v in (0.0, 1.0, 1.0)]
    t = WeightedEstimate(*numbers, "", torch.full_like(y, 50.0), torch.full_like(y, 0.4), "")._studentised(y)
    torch.testing.assert_close(t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6, y)


def test_coverage_of_a_rare_heavy_mean(source):
    """Means of 100 log-normal numbers of unit log-deviation: the normal interval covers about 88 %."""
    truth, hits, plain, trials = math.exp(0.5), 0, 0, 600
    x = torch.randn(trials, 100, generator=source, dtype=torch.float64).exp()
    for row in x:
        estimate = influenced(row.mean(), row - row.mean(), ONE, "", "")
        hits += bool(estimate.interval(0.95).contains(torch.tensor(truth, dtype=torch.float64)))
        plain += bool((row.mean() - truth).abs() <= 1.96 * estimate.standard_error)
    assert 0.93 < hits / trials < 0.98
    assert plain / trials < 0.92


def test_degrees_of_freedom_of_rare_events():
    z = torch.cat([torch.full((10,), 0.99), torch.full((990,), -0.01)]).double()
    estimate = influenced(0.01 * ONE, z, ONE, "", "")
    kurtosis = float((z**4).mean() / (z**2).mean() ** 2)
    torch.testing.assert_close(float(estimate.degrees_of_freedom), 1000 / (kurtosis - 1))
    assert estimate.interval(0.95).width > 2 * stats.norm.ppf(0.975) * estimate.standard_error


def test_an_exact_proposal_has_the_error_of_rounding():
    estimate = influenced(ONE, torch.zeros(10, dtype=torch.float64), ONE, "", "")
    assert 0 < float(estimate.standard_error) < 1e-12
    assert bool(estimate.interval(0.5).contains(ONE))


def test_what_has_an_infinite_error_has_an_infinite_interval():
    numbers = torch.tensor([1.0, math.inf]), torch.tensor([0.1, math.inf]), torch.ones(2)
    interval = WeightedEstimate(*numbers, "", torch.full((2,), 9.0), torch.zeros(2), "").interval(0.9)
    assert math.isfinite(interval.width[0])
    assert interval.width[1] == math.inf


def test_untrusted_says_why():
    estimate = Untrusted.like(torch.zeros(2), "eV", "no draws there")
    assert bool(estimate.value.isnan().all())
    assert "no draws there" in str(estimate)
    assert "no draws there" in estimate.interval(0.95).guarantee
    assert bool(estimate.interval(0.95).contains(torch.tensor([1e9, -1e9])).all())
