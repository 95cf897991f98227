import pytest
import torch
from scipy import stats

from bayesmol.applicability.measures import Intervals, Measure, clopper_pearson
from bayesmol.calibration.metrics import separation
from bayesmol.errors import DataError
from bayesmol.testing import assert_calibrated


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_clopper_pearson_covers_exactly():
    for rate in (0.01, 0.1, 0.5):
        law = stats.binom(60, rate)
        held = sum(law.pmf(k) for k in range(61) if clopper_pearson(k, 60)[0] <= rate <= clopper_pearson(k, 60)[1])
        assert held >= 0.95
    assert clopper_pearson(0, 10)[0] == 0 and clopper_pearson(10, 10)[1] == 1
    with pytest.raises(DataError, match="hits"):
        clopper_pearson(3, 2)


def test_separation_has_the_standard_error_of_delong():
    scores, strange = (3 * normal(300)).round(), torch.arange(300) % 3 == 0
    scores = scores + strange
    found = Intervals(None, 0.95).separation(scores, strange)
    delong = separation(scores[strange], scores[~strange])
    error = float(delong.standard_error)
    assert found.value == pytest.approx(float(delong.value)) and found.method == "DeLong"
    assert (found.upper - found.lower) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)


def test_perfect_separation_is_not_certain():
    found = Intervals(None, 0.95).separation(torch.arange(40.0).double(), torch.arange(40) >= 30)
    assert found.value == 1 and found.upper == 1 and 0.8 < found.lower < 0.95


def test_bootstrap_covers_the_mean_of_groups():
    hits = 0
    for seed in range(60):
        groups = torch.arange(40).repeat_interleave(3)
        values = normal(40, seed=seed)[groups] + 0.1 * normal(120, seed=seed + 500)
        intervals = Intervals(groups, 0.95)
        (found,) = intervals.resampled(lambda rows, v=values: [float(v[rows].mean())], 120, seed=seed)
        hits += found.lower <= 0 <= found.upper
    assert_calibrated(hits, 60, 0.94, confidence=0.999)


def test_a_rate_over_groups_and_without_rows():
    hits = torch.arange(60) % 6 == 0
    every = torch.ones(60, dtype=torch.bool)
    alone, grouped = (Intervals(g, 0.95).rate(hits, every) for g in (None, torch.arange(60) // 6))
    assert alone.value == grouped.value == pytest.approx(1 / 6)
    assert alone.method == "Clopper-Pearson" and grouped.lower < 1 / 6 < grouped.upper
    none = Intervals(None, 0.95).rate(hits, ~every)
    assert (none.lower, none.upper) == (0, 1)
    assert str(Measure(0.5, 0.25, 0.75, "exact")) == "0.5 [0.25, 0.75]"
