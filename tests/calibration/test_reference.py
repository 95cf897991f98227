import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.calibration.reference import (
    binomial_band,
    bootstrap_standard_error,
    conformal_rank,
    coverage_band,
    resampled_counts,
    uniform_band,
)
from bayesmol.errors import DataError


@pytest.mark.parametrize(
    ("calibration", "test", "band"),
    [(200, 1000, (0.833, 0.951)), (1000, 1000, (0.863, 0.932)), (1000, 10_000, (0.873, 0.924))],
)
def test_coverage_band_published_values(calibration, test, band):
    assert coverage_band(calibration, test, 0.9, 0.99) == pytest.approx(band, abs=6e-4)


def test_coverage_band_holds_its_confidence():
    n, m, level = 50, 80, 0.8
    low, high = coverage_band(n, m, level, confidence=0.9)
    hits = stats.betabinom(m, 41, n + 1 - 41)
    inside = hits.cdf(high * m) - hits.cdf(low * m - 1)
    assert inside >= 0.9
    # one hit narrower on either side would not
    assert hits.cdf(high * m) - hits.cdf(low * m) < 0.95 + 1e-9
    assert hits.cdf(low * m - 1) < 0.05 <= hits.cdf(low * m)


def test_coverage_band_tends_to_the_binomial_band():
    wide = coverage_band(10**7 - 1, 500, 0.9)
    assert wide == pytest.approx(binomial_band(500, 0.9), abs=1e-9)


def test_conformal_rank_is_not_moved_by_rounding():
    # 100 · 0.55 is 55.00000000000001 in floating point
    assert conformal_rank(99, 0.55) == 55
    assert conformal_rank(199, 0.57) == 114
    assert conformal_rank(8, 0.9) == 9
    assert conformal_rank(9, 0.9) == 9


def test_resampled_counts_are_multinomial():
    counts = resampled_counts(10, 4000, seed=0)
    assert bool((counts.sum(1) == 10).all())
    assert torch.allclose(counts.mean(0), torch.ones(10, dtype=torch.float64), atol=0.08)
    assert torch.allclose(counts.var(0), torch.full((10,), 0.9, dtype=torch.float64), atol=0.12)
    assert torch.equal(counts, resampled_counts(10, 4000, seed=0))


def test_bootstrap_sees_that_entries_of_a_group_are_correlated():
    source = torch.Generator().manual_seed(0)
    values = torch.randn(100, generator=source, dtype=torch.float64).repeat_interleave(30)
    groups = torch.arange(100).repeat_interleave(30)

    def mean(weights):
        return (weights * values).sum() / weights.sum()

    by_group = bootstrap_standard_error(mean, groups, resamples=400)
    by_entry = bootstrap_standard_error(mean, torch.arange(3000), resamples=400)
    assert by_group == pytest.approx(float(values.std()) / 10, rel=0.2)
    assert by_entry == pytest.approx(by_group / math.sqrt(30), rel=0.3)
    assert bootstrap_standard_error(mean, torch.zeros(3000, dtype=torch.long)) == math.inf


def test_bad_input():
    with pytest.raises(DataError, match=r"at least 9 at level 0\.9, got 8"):
        coverage_band(8, 100, 0.9)
    with pytest.raises(DataError, match="level"):
        binomial_band(100, 1.0)
    with pytest.raises(DataError, match="confidence"):
        binomial_band(100, 0.9, 95)
    with pytest.raises(DataError, match="n_test"):
        coverage_band(100, 0, 0.9)


@pytest.mark.parametrize("count", [20, 300, 5000])
def test_the_band_holds_whole_distribution_functions(count):
    places, low, high = (part.numpy() for part in uniform_band(count))
    source = np.random.default_rng(1)
    held = 0
    for _ in range(1000):
        reached = np.searchsorted(np.sort(source.random(count)), places, side="right") / count
        held += bool(((low <= reached) & (reached <= high)).all())
    # binomial counts are discrete: with few the band is wider than it must be
    assert 930 <= held <= (1000 if count < 100 else 970)
