"""Three standard errors against closed forms, and the coverage of the interval they make."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.signal import lfilter

from bayesmol.errors import ShapeError
from bayesmol.posterior.estimate import blocking, effective_sample_size
from bayesmol.testing import assert_calibrated
from bayesmol.wavefunctions.energy_errors import StandardError, clipped, error_estimates, kinetic_gap


def chains(source, walkers, draws, tau=1.0, heavy=False):
    """AR(1) chains of unit variance (three degrees of freedom if heavy) with the autocorrelation time tau."""
    phi = (tau - 1) / (tau + 1)
    burn = int(10 * tau)
    noise = source.standard_t(3, (walkers, draws + burn)) / math.sqrt(3)
    if not heavy:
        noise = source.standard_normal((walkers, draws + burn))
    return torch.from_numpy(math.sqrt(1 - phi**2) * lfilter([1], [1, -phi], noise, axis=1)[:, burn:])


def test_definitions():
    values = chains(np.random.default_rng(0), 20, 128, 3.0)
    found = error_estimates(values)
    assert found.between_walkers == pytest.approx((float(values.mean(1).std()) / math.sqrt(20), 19))
    pooled = math.sqrt(float(values.var() / effective_sample_size(values)))
    assert found.effective_sample_size.value == pytest.approx(pooled)
    assert found.reblocking.value == pytest.approx(float(blocking(values.mean(0), unit="").standard_error))
    assert found.largest.value == max(found.known).value


@pytest.mark.parametrize("tau", [1.0, 3.0, 10.0])
def test_all_three_meet_the_error_of_autoregressive_chains(tau):
    walkers, draws = 64, 4096
    found = error_estimates(chains(np.random.default_rng(1), walkers, draws, tau))
    exact = math.sqrt(tau / (walkers * draws))
    for one in found.known:
        assert one.value == pytest.approx(exact, rel=4 / math.sqrt(2 * one.degrees_of_freedom))


def test_walkers_that_share_a_drift_are_seen_by_reblocking_alone():
    source = np.random.default_rng(2)
    found = error_estimates(0.1 * chains(source, 64, 1000) + chains(source, 1, 1000))
    assert found.reblocking.exceeds(found.between_walkers, 0.999)
    assert found.largest == found.reblocking


def test_walkers_that_sit_apart_are_seen_between_walkers():
    source = np.random.default_rng(3)
    found = error_estimates(chains(source, 64, 1000) + chains(source, 64, 4)[:, :1])
    assert found.between_walkers.exceeds(found.reblocking, 0.999)
    assert found.largest.value >= found.between_walkers.value


def test_what_cannot_be_estimated_is_nan():
    values = chains(np.random.default_rng(4), 1, 1000)
    found = error_estimates(values)
    assert math.isnan(found.between_walkers.value) and len(found.known) == 2
    ramp = torch.arange(16.0).expand(2, 16)
    assert math.isnan(error_estimates(ramp).reblocking.value)
    with pytest.raises(ShapeError, match="at least 4 draws"):
        error_estimates(values[:, :3])


def test_degrees_of_freedom():
    white = chains(np.random.default_rng(5), 8, 1024)
    # The first power of two whose cube exceeds 2 · 1024, give or take the noise of the ratio of the errors.
    assert error_estimates(white).reblocking.degrees_of_freedom in (127, 63, 31)
    first, second = StandardError(1.2, 1000.0), StandardError(1.0, 1000.0)
    assert first.exceeds(second, 0.95) and not second.exceeds(first, 0.95)
    assert not StandardError(1.2, 5.0).exceeds(second, 0.95)


@pytest.mark.parametrize(("walkers", "draws", "tau", "heavy"), [(64, 200, 1, True), (32, 400, 8, False)])
def test_coverage(walkers, draws, tau, heavy):
    source, trials = np.random.default_rng(6), 200
    assert_calibrated(_hits(source, walkers, draws, tau, heavy, trials), trials, 0.95, confidence=0.999)


def _hits(source, walkers, draws, tau, heavy, trials):
    hits = 0
    for _ in range(trials):
        values = chains(source, walkers, draws, tau, heavy)
        largest = error_estimates(values).largest
        hits += abs(float(values.mean())) <= largest.value * stats.t.ppf(0.975, largest.degrees_of_freedom)
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [False, True])
def test_coverage_of_many_shapes(heavy):
    """Each within its binomial band, all together from 93 to 97 %."""
    source, trials, found = np.random.default_rng(7), 300, []
    for walkers, draws in ((512, 100), (128, 400), (16, 1000), (4, 10_000)):
        for tau in (1, 3, 10, 25, 50):
            if draws >= 10 * tau:
                hits = _hits(source, walkers, draws, tau, heavy, trials)
                print(walkers, draws, tau, heavy, hits / trials)
                found.append(hits)
    assert 0.93 <= sum(found) / (trials * len(found)) <= 0.97
    # The nominal level is 95 %; the largest of three may err upwards by a point and a half.
    assert min(found) >= stats.binom(trials, 0.95).ppf(0.001)
    assert max(found) <= stats.binom(trials, 0.965).ppf(0.999)


def test_clipped():
    values = chains(np.random.default_rng(8), 16, 100)
    plain = clipped(values, unit="Ha")
    assert plain.mean + float(plain.difference.value) == pytest.approx(float(values.mean()))
    assert plain.share < 0.001
    values[3, 7] = 1000.0
    found = clipped(values, unit="Ha")
    assert found.share == pytest.approx(1 / 1600) and abs(found.mean) < 0.1
    assert float(found.difference.value) == pytest.approx(0.62, abs=0.02)
    values[0, 0] = math.nan
    assert math.isinf(float(clipped(values, unit="Ha").difference.standard_error))


def test_kinetic_gap_of_tails_at_nodes_rarely_passes_four():
    """P(T > x) = x^(-3/2), mean 3, no variance: 5 % of plain t statistics are beyond 4."""
    source, plain, found = np.random.default_rng(9), [], []
    for _ in range(300):
        tail = torch.from_numpy(source.random((10, 100)) ** (-2 / 3))
        plain.append(float((tail.mean() - 3) / tail.std() * math.sqrt(1000)))
        found.append(kinetic_gap(tail, torch.full_like(tail, 3.0), unit="Ha").z)
    assert np.mean(np.abs(plain) > 4) > 0.02
    assert np.mean(np.abs(found) > 4) < 0.02


def test_kinetic_gap_finds_wrong_derivatives():
    source = np.random.default_rng(10)
    kinetic = torch.from_numpy(source.gamma(2.0, 1.0, (2560, 20)))
    other = kinetic + chains(source, 2560, 20)
    assert abs(kinetic_gap(kinetic, other, unit="Ha").z) < 4
    other[2048:] -= 0.2  # what float32 has done beyond 2048 walkers
    found = kinetic_gap(kinetic, other, unit="Ha")
    assert found.z > 4 and float(found.difference.value) == pytest.approx(0.04, abs=0.02)
    other[0, 0] = math.inf
    assert kinetic_gap(kinetic, other, unit="Ha").z == math.inf
