import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.calibration.local import local, parts
from bayesmol.calibration.verdict import normality, verdict
from bayesmol.errors import DataError
from bayesmol.testing import assert_calibrated

LAWS = {"normal": stats.norm(), "t4": stats.t(4), "laplace": stats.laplace()}


def normal_scores(law, count, source, scale=1.0):
    """Normal scores of labels that are ``scale`` times as wide as a true claim of this law."""
    values = scale * LAWS[law].rvs(count, random_state=source)
    return torch.from_numpy(stats.norm.ppf(LAWS[law].cdf(values)))


def judged(z, source, owner=None):
    owner = torch.arange(len(z)) if owner is None else owner
    condition = torch.from_numpy(source.random(len(z)))
    along = local(parts("x", condition, int(owner.max()) + 1), z, owner, z.abs() < 1.6449)
    return verdict(z, owner, (along,))


def false_alarms(law, count, replications, seed=0):
    source = np.random.default_rng(seed)
    return sum(not judged(normal_scores(law, count, source), source).consistent for _ in range(replications))


@pytest.mark.parametrize("law", LAWS)
def test_false_alarms_are_at_their_level(law):
    assert_calibrated(false_alarms(law, 200, 250), 250, 0.05, confidence=0.999)


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("count", [200, 1000, 10_000])
def test_false_alarms_are_five_percent_within_one(law, count):
    replications = 4000 if count < 10_000 else 2000
    rate = false_alarms(law, count, replications, seed=1) / replications
    # 5 ± 1 %, and two standard errors of these replications
    assert rate == pytest.approx(0.05, abs=0.01 + 2 * (0.05 * 0.95 / replications) ** 0.5)


@pytest.mark.parametrize("scale", [1.1, 1 / 1.1])
def test_a_wrong_scale_of_ten_percent_is_found_in_a_thousand_labels(scale):
    source = np.random.default_rng(0)
    found = sum(not judged(normal_scores("normal", 1000, source, scale), source).consistent for _ in range(200))
    assert found >= 0.9 * 200


def test_what_is_wrong_is_named():
    source = np.random.default_rng(0)
    z = torch.from_numpy(source.standard_normal(2000))
    wide = judged(1.3 * z, source)
    assert wide.findings[0].aspect == "scale" and "over-confident by a factor 1.3" in str(wide)
    assert wide.factor == pytest.approx(1.3, abs=0.06) and wide.factor_interval[0] < 1.3 < wide.factor_interval[1]
    assert "under-confident" in str(judged(z / 1.3, source))
    assert judged(z + 0.2, source).findings[0].aspect == "bias"
    heavy = judged(torch.from_numpy(source.standard_t(3, 2000) / 3**0.5), source)
    assert "heavier" in next(f.text for f in heavy.findings if f.aspect == "shape")
    skew = judged(torch.from_numpy(source.exponential(size=2000) - 1), source)
    assert "skewed to the right" in next(f.text for f in skew.findings if f.aspect == "shape")


@pytest.mark.parametrize("degrees", [5, np.inf])
@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_of_the_factor_covers_whatever_the_shape(degrees, grouped):
    source, hits = np.random.default_rng(0), 0
    for _ in range(300):
        owner = torch.from_numpy(np.repeat(np.arange(300), 3)) if grouped else torch.arange(300)
        scale = (degrees / (degrees - 2)) ** 0.5 if np.isfinite(degrees) else 1.0
        values = (
            source.standard_t(degrees, len(owner)) / scale
            if np.isfinite(degrees)
            else source.standard_normal(len(owner))
        )
        low, high = verdict(1.2 * torch.from_numpy(values), owner).factor_interval
        hits += low <= 1.2 <= high
    # heavy tails are slow: 93 % at this size
    assert hits >= stats.binom(300, 0.92).ppf(1e-3) and hits < 300


def test_a_wrong_scale_in_one_species_is_found_where_the_average_is_right():
    source = np.random.default_rng(0)
    species = torch.from_numpy(source.choice([1, 6], 3000))
    z = torch.from_numpy(source.standard_normal(3000)) * torch.where(species == 1, 1.15, 0.82)
    z = z / z.square().mean().sqrt()
    along = local(parts("species", species), z, torch.arange(3000), z.abs() < 1.6)
    found = verdict(z, torch.arange(3000), (along,))
    assert found.findings[0].aspect == "scale along species" and not found.consistent
    assert "species H" in str(found) or "species C" in str(found)


def test_a_sentence_for_what_is_consistent_says_what_would_have_been_found():
    z = torch.from_numpy(stats.norm.ppf((np.arange(1000) + 0.5) / 1000))
    found = verdict(z, torch.arange(1000))
    assert found.consistent and str(found).startswith("nothing speaks against")
    # power 0.9 of a two-sided chi squared test at about 0.025 · 5/7: (2.4 + 1.28)/sqrt(2n)
    assert 0.06 < found.detectable < 0.1


def test_dependence_within_structures_is_no_alarm():
    source, alarms = np.random.default_rng(3), 0
    for _ in range(200):
        owner = torch.from_numpy(np.repeat(np.arange(150), 12))
        common = torch.from_numpy(source.standard_normal(150))[owner]
        z = 0.7**0.5 * common + 0.3**0.5 * torch.from_numpy(source.standard_normal(len(owner)))
        alarms += not judged(z, source, owner).consistent
    assert_calibrated(alarms, 200, 0.06, confidence=0.999)


def test_normality_is_uniform_under_normality_and_small_otherwise():
    source = np.random.default_rng(0)
    found = [normality(torch.from_numpy(3 + 7 * source.standard_normal(100))) for _ in range(1000)]
    assert stats.kstest(found, "uniform").pvalue > 1e-3
    assert normality(torch.from_numpy(source.standard_t(2, 500))) < 1e-6
    assert normality(torch.from_numpy(1e6 * source.standard_normal(50) ** 5)) < 1e-6


def test_few_structures_are_refused():
    with pytest.raises(DataError, match="at least 8"):
        verdict(torch.zeros(20, dtype=torch.float64), torch.zeros(20, dtype=torch.long))


def test_the_family_has_its_level():
    source = np.random.default_rng(0)
    found = judged(torch.from_numpy(source.standard_normal(500)), source)
    assert [f.aspect for f in sorted(found.findings, key=lambda f: f.aspect)] == [
        "bias",
        "bias along x",
        "scale",
        "scale along x",
        "shape",
    ]
    assert all(0 <= f.p_value <= f.adjusted <= 1 for f in found.findings)
    assert found.p_value == found.findings[0].adjusted
    scale = next(f for f in found.findings if f.aspect == "scale")
    assert 1 - scale.adjusted == pytest.approx((1 - scale.p_value) ** 2, rel=1e-6), "half of the weight"
    assert math.isfinite(found.detectable)
