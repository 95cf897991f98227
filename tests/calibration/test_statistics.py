import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.calibration.claim import Claim
from bayesmol.calibration.metrics import miscalibration_area
from bayesmol.calibration.statistics import (
    STATISTICS,
    average,
    clustered_error,
    confidence_interval,
    design_effect,
)
from bayesmol.posterior import Gaussian


def source(seed):
    return torch.Generator().manual_seed(seed)


def scored(count, scale=1.0, spread=0.5, seed=0):
    """Scores of labels that are ``scale`` times as wide as claimed."""
    made = source(seed) if isinstance(seed, int) else seed
    stddev = (spread * torch.randn(count, generator=made, dtype=torch.float64)).exp()
    values = scale * stddev * torch.randn(count, generator=made, dtype=torch.float64)
    return Claim(Gaussian(torch.zeros(count, dtype=torch.float64), stddev.square(), unit="eV")).scores(values)


def value(name, scores):
    return STATISTICS[name].function(scores).value


def test_values_agree_with_their_definitions_and_with_scipy():
    scores = scored(400, 1.2)
    z, error, stddev = scores.z, scores.error.abs(), scores.claim.stddev
    assert value("z_mean_square", scores) == pytest.approx(float(z.square().mean()))
    assert value("rmse", scores) == pytest.approx(float(error.square().mean().sqrt()))
    assert value("coverage_90", scores) == pytest.approx(float((z.abs() < stats.norm.ppf(0.95)).double().mean()))
    assert value("pit_distance", scores) == pytest.approx(stats.kstest(scores.pit.numpy(), "uniform").statistic)
    assert value("rank_correlation", scores) == pytest.approx(stats.spearmanr(error, stddev).statistic)
    posterior = scores.claim.posterior
    assert value("miscalibration_area", scores) == pytest.approx(float(miscalibration_area(posterior, scores.values)))


def test_calibration_error_agrees_with_bins_by_hand():
    scores = scored(400, 1.2)
    parts = zip(
        *(np.array_split(x[scores.claim.order].numpy(), 20) for x in (scores.claim.stddev**2, scores.error**2)),
        strict=True,
    )
    gaps = [abs(math.sqrt(e.mean()) - math.sqrt(v.mean())) / math.sqrt(v.mean()) for v, e in parts]
    assert value("calibration_error", scores) == pytest.approx(np.mean(gaps))


def test_sparsification_agrees_with_the_areas_under_the_curves():
    scores = scored(300)
    error = scores.error.abs()

    def area(order):
        return float((error[order].cumsum(0) / torch.arange(1, 301)).mean() / error.mean())

    by_stddev, oracle = area(scores.claim.stddev.argsort()), area(error.argsort())
    assert value("sparsification", scores) == pytest.approx((1 - by_stddev) / (1 - oracle))
    perfect = Claim(Gaussian(torch.zeros(300, dtype=torch.float64), error.square(), unit="eV")).scores(scores.values)
    assert value("sparsification", perfect) == pytest.approx(1.0)


def test_equal_deviations_have_no_rank_correlation_and_one_bin():
    claim = Claim(Gaussian(torch.zeros(100, dtype=torch.float64), torch.ones(100, dtype=torch.float64), unit="eV"))
    values = torch.randn(100, generator=source(0), dtype=torch.float64)
    scores = claim.scores(values)
    assert value("rank_correlation", scores) == 0.0
    rmse = float(values.square().mean().sqrt())
    assert value("calibration_error", scores) == pytest.approx(abs(rmse - 1))


@pytest.mark.parametrize("name", STATISTICS)
def test_influences_are_the_derivatives_of_the_statistic(name):
    """A copy of one entry among many changes the statistic by its influence over n."""
    count, copied = 20_000, 7
    scores = scored(count, 1.3, seed=3)
    found = STATISTICS[name].function(scores)
    assert float(found.influence.mean()) == pytest.approx(0.0, abs=1e-9 * (1 + float(found.influence.abs().max())))
    copies = 200
    index = torch.cat([torch.arange(count), torch.full((copies,), copied)])
    posterior = scores.claim.posterior
    more = Claim(Gaussian(posterior.mean[index], posterior.variance[index], unit="eV")).scores(scores.values[index])
    change = STATISTICS[name].function(more).value - found.value
    scale = float(found.influence.std())
    assert change * (count + copies) / copies == pytest.approx(float(found.influence[copied]), abs=0.25 * scale)


@pytest.mark.parametrize("name", STATISTICS)
def test_standard_errors_agree_with_the_spread_over_replications(name):
    made, found = source(11), []
    for _ in range(120):
        scores = scored(500, 1.3, seed=made)
        one = STATISTICS[name].function(scores)
        found.append((one.value, clustered_error(one.influence, torch.arange(500))))
    values, errors = torch.tensor(found).T
    # Absolute gaps of bins and the place of the largest distance are not smooth: their error is on the safe side.
    low, high = (0.8, 1.7) if name in {"calibration_error", "pit_distance"} else (0.8, 1.25)
    assert low < float(errors.mean() / values.std()) < high


REACH = 100  # replications of a true claim that say how far a distance lies from zero by chance


@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_every_interval_covers_what_the_statistic_is_of_infinitely_many_labels(scale):
    size, trials, made = 500, 150, source(5)
    big = scored(500_000, scale, seed=6)
    limits = {name: kind.function(big).value for name, kind in STATISTICS.items()}
    null = [{name: value(name, scored(size, seed=made)) for name in STATISTICS} for _ in range(REACH)]
    reach = {name: float(np.quantile([one[name] for one in null], 0.975)) for name in STATISTICS}
    hits = dict.fromkeys(STATISTICS, 0)
    for _ in range(trials):
        scores = scored(size, scale, seed=made)
        for name, kind in STATISTICS.items():
            low, high = confidence_interval(kind.function(scores), torch.arange(size), reach[name])
            hits[name] += low <= limits[name] <= high
    for name, count in hits.items():
        # of 95 %, with log-normal standard deviations, whose squares have a tail: 91 to 96 % at this size
        assert count >= stats.binom(trials, 0.92).ppf(1e-3), (name, count / trials)
        if STATISTICS[name].function(big).kind != "distance":
            assert count < trials, f"{name}: an interval that always holds says nothing"


def test_coverage_intervals_never_leave_the_unit_interval_nor_shrink_to_a_point():
    for hits in (torch.ones(20), torch.zeros(20), torch.arange(20) < 19):
        found = average(hits.double(), "proportion")
        low, high = confidence_interval(found, torch.arange(20), 0.0)
        assert 0 <= low < high <= 1 and high - low > 0.1


def test_dependence_within_structures_widens_by_the_root_of_the_design_effect():
    owner = torch.arange(1000).repeat_interleave(9)
    same = torch.randn(1000, generator=source(0), dtype=torch.float64)[owner]
    found = average(same)
    assert clustered_error(found.influence, owner) == pytest.approx(float(same[::9].std()) / 1000**0.5, rel=1e-3)
    assert design_effect(found, owner) == pytest.approx(3.0, rel=1e-3)
    assert design_effect(found, torch.arange(9000)) == 1.0
    assert clustered_error(found.influence, torch.zeros(9000, dtype=torch.long)) == math.inf
    assert confidence_interval(found, torch.zeros(9000, dtype=torch.long), 0.0) == (-math.inf, math.inf)
