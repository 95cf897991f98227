"""Intervals of exponents, modes and forecasts: exact without noise, calibrated with it, honest where they cannot be."""

import math

import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.dmd_posterior import DMD
from bayesmol.errors import ConvergenceError, DataError
from bayesmol.inference.random import generator
from bayesmol.testing import assert_calibrated, check_posterior

TIMES = torch.linspace(0, 12, 61, dtype=torch.float64)
EXPONENTS = torch.tensor([-0.05 + 2.3j, -0.02 + 2.8j], dtype=torch.complex128)
MODES = torch.randn(2, 6, dtype=torch.complex128, generator=generator(1))


def field(times=TIMES, *, real=True):
    clean = (EXPONENTS * times[:, None]).exp() @ MODES
    return clean.real if real else clean


def noisy(sigma, source, times=TIMES, *, real=True):
    clean = field(times, real=real)
    noise = torch.randn(clean.shape, generator=source, dtype=clean.dtype)
    return clean + sigma * (1 if real else math.sqrt(2)) * noise


@pytest.mark.parametrize("real", [True, False])
def test_exact_without_noise(real):
    fit = DMD(rank=4 if real else 2, draws=50).fit(field(real=real), times=TIMES, unit="ps")
    order = fit.estimate.imag.argsort()
    torch.testing.assert_close(fit.estimate[order], EXPONENTS, rtol=1e-10, atol=1e-10)
    modes = torch.view_as_complex(fit.modes.mean.contiguous())[order]
    torch.testing.assert_close(modes, MODES / (2 if real else 1), rtol=1e-8, atol=1e-8)
    assert float(fit.exponents.stddev.max()) < 1e-9
    later = TIMES + 12
    forecast = fit.forecast(later).mean
    forecast = forecast if real else torch.view_as_complex(forecast.contiguous())
    torch.testing.assert_close(forecast, field(later, real=real), rtol=0, atol=1e-7)
    assert fit.frequencies.unit == "1/ps"


def covered(kind, repeats, **options):
    source, hits, trials = generator(11), 0, 0
    for k in range(repeats):
        interval, truth = kind(source, k, **options)
        hits += int(((interval.lower <= truth) & (truth <= interval.upper)).sum())
        trials += truth.numel()
    return hits, trials


def exponents_case(source, k, *, real=True, gaps=False, uneven=False, block=None):
    times = TIMES
    if uneven:
        times = (12 * torch.rand(61, generator=source, dtype=torch.float64)).sort().values
    data = noisy(0.3, source, times, real=real)
    if gaps:
        data = torch.where(torch.rand(data.shape, generator=source) < 0.25, torch.nan, data)
    fit = DMD(rank=4 if real else 2, block=block, draws=400).fit(data, times=times, seed=k)
    interval = fit.exponents.interval(0.9)
    order = fit.estimate.imag.argsort()
    interval = type(interval)(interval.lower[order], interval.upper[order], 0.9, interval.unit, interval.guarantee)
    return interval, torch.view_as_real(EXPONENTS)


@pytest.mark.parametrize("options", [{}, {"gaps": True}, {"uneven": True}, {"real": False}])
def test_intervals_cover(options):
    # Four intervals of one fit are correlated: the band is that of twice the repeats.
    hits, trials = covered(exponents_case, 15, **options)
    assert_calibrated(round(hits / trials * 30), 30, 0.9, confidence=0.999)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"gaps": True}, {"real": False}, {"block": 1}])
def test_intervals_cover_in_many_repeats(options):
    hits, trials = covered(exponents_case, 300, **options)
    assert_calibrated(round(hits / trials * 600), 600, 0.9, confidence=0.999)


def red_case(source, k, *, block):
    noise = torch.randn(300, generator=source, dtype=torch.float64)
    level = [0.0]
    for kick in noise[1:].tolist():
        level.append(0.8 * level[-1] + 0.6 * kick)
    times = torch.arange(300, dtype=torch.float64)
    data = 2 * torch.cos(0.2 * times) + torch.tensor(level, dtype=torch.float64)
    fit = DMD(rank=2, block=block, draws=400).fit(data[:, None], seed=k)
    return fit.frequencies.interval(0.9), torch.tensor([0.2 / math.tau], dtype=torch.float64)


@pytest.mark.slow
def test_blocks_hold_in_red_noise_where_white_intervals_do_not():
    white, trials = covered(red_case, 150, block=None)
    blocks, _ = covered(red_case, 150, block=15)
    assert white < 0.75 * trials
    assert blocks > 0.82 * trials


def test_posterior_contract_and_forecast_bands():
    fit = DMD(rank=4).fit(noisy(0.3, generator(3)), times=TIMES, seed=0)
    for posterior in (fit.exponents, fit.growth_rates, fit.frequencies, fit.modes):
        check_posterior(posterior)
    later = torch.tensor([13.0, 15.0], dtype=torch.float64)
    band, new = fit.forecast(later, noise=False), fit.forecast(later)
    assert band.shape == new.shape == (2, 6)
    torch.testing.assert_close(new.variance.mean(), (band.variance + 0.09).mean(), rtol=0.15, atol=0)
    assert bool(((band.mean - field(later)).abs() < 5 * band.stddev).all())
    assert fit.noise_stddev == pytest.approx(0.3, rel=0.15)
    assert abs(fit.residual_correlation) < 0.2
    assert fit.degrees_of_freedom == 61 * 6 - 4 - 4 * 6


def test_evidence_finds_the_rank():
    data = noisy(0.3, generator(4))
    evidence = {rank: DMD(rank=rank).fit(data, times=TIMES).log_evidence for rank in (2, 4)}
    assert evidence[4] > evidence[2] + 10
    assert DMD().fit(data, times=TIMES).log_evidence > evidence[4] - 1e-6


def test_standing_waves_have_twice_the_rank_of_their_snapshots():
    waves = torch.cos(2.3 * TIMES)[:, None] * MODES[0].real + torch.cos(2.8 * TIMES + 1)[:, None] * MODES[1].real
    data = waves + 0.1 * torch.randn(waves.shape, generator=generator(8), dtype=torch.float64)
    fit = DMD().fit(data, times=TIMES)
    torch.testing.assert_close(
        fit.estimate.imag.sort().values, torch.tensor([2.3, 2.8], dtype=torch.float64), atol=0.02, rtol=0
    )
    assert fit.exponents.shape == (2, 2)


def test_trajectories_and_seed():
    data = Trajectories.of(noisy(0.3, generator(5)), time_step=0.2, unit="ns")
    one, two, other = (DMD(rank=4).fit(data, seed=k) for k in (1, 1, 2))
    assert torch.equal(one.exponents.values, two.exponents.values)
    assert torch.equal(one.modes.values, two.modes.values)
    assert not torch.equal(one.exponents.values, other.exponents.values)
    assert one.growth_rates.unit == "1/ns"


@pytest.mark.parametrize(
    ("spec", "data", "options", "word"),
    [
        (lambda: DMD(rank=0), field(), {}, "rank"),
        (lambda: DMD(draws=1), field(), {}, "draws"),
        (lambda: DMD(), field()[0], {}, "time, space"),
        (lambda: DMD(), field() * math.inf, {}, "finite"),
        (lambda: DMD(), field(), {"times": TIMES.flip(0)}, "increasing"),
        (lambda: DMD(), field(), {"times": TIMES[:5]}, "times"),
        (lambda: DMD(rank=4), torch.full((61, 1), torch.nan), {}, "column"),
        (lambda: DMD(rank=4, block=40), field(), {}, "block"),
        (lambda: DMD(), Trajectories.of([field(), field()]), {}, "fit each"),
    ],
)
def test_bad_input(spec, data, options, word):
    with pytest.raises(DataError, match=word):
        spec().fit(data, **options)


def test_noise_alone_is_no_oscillation_to_trust():
    """Exponents of noise are undetermined: an error, or a decay that is not told from many."""
    data = torch.randn(61, 1, dtype=torch.float64, generator=generator(6))
    try:
        fit = DMD(rank=2).fit(data)
    except ConvergenceError:
        return
    assert float(fit.mean_squares.max()) < 0.4 * float(data.square().mean())
