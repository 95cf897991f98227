import pytest
import torch
from scipy import stats

from bayesmol.calibration.local import local, parts, worst_slab_coverage
from bayesmol.errors import DataError, ShapeError
from bayesmol.testing import assert_calibrated


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=source(seed), dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=source(seed), dtype=torch.float64)


def test_parts_of_equal_size_keep_equal_values_together():
    found = parts("stddev", uniform(1000))
    assert found.place.bincount().tolist() == [50] * 20 and not found.categories
    tied = torch.cat([torch.zeros(700, dtype=torch.float64), uniform(300) + 1])
    assert int(parts("x", tied).place[:700].unique().numel()) == 1
    assert len(parts("x", uniform(1000), 120).labels) == 2, "at least 50 structures each"
    assert len(parts("x", uniform(30)).labels) == 1


def test_whole_numbers_of_few_kinds_are_categories_and_the_rare_are_joined():
    species = torch.tensor([1] * 90 + [6] * 60 + [8] * 5 + [7] * 3)
    found = parts("species", species)
    assert found.labels == ("H", "C", "others") and found.categories
    assert found.place.bincount().tolist() == [90, 60, 8]
    assert parts("n", torch.tensor([3, 3, 3, 4])).labels == ("3", "others")


def test_scale_bias_and_coverage_of_each_part():
    kinds = torch.arange(2).repeat(500)
    z = torch.where(kinds == 1, 2.0, 1.0) * normal(1000) + kinds
    found = local(parts("kind", kinds), z, torch.arange(1000), z.abs() < 1.6)
    for k in range(2):
        own = z[kinds == k]
        assert float(found.scale[k]) == pytest.approx(float(own.square().mean().sqrt()))
        assert float(found.bias[k]) == pytest.approx(float(own.mean()))
        assert float(found.coverage[k]) == pytest.approx(float((own.abs() < 1.6).double().mean()))
    low, high = found.scale_interval
    assert float(low[0]) < 1 < float(high[0]) < float(low[1])
    valid, least, most = found.fraction_valid
    assert valid == 0.5 and least == pytest.approx(stats.beta.ppf(0.025, 1, 2)) and most == pytest.approx(1 - least)


def test_fraction_of_valid_parts_is_about_its_level_if_true():
    hits = trials = 0
    for seed in range(60):
        z = normal(2000, seed=seed)
        found = local(parts("x", uniform(2000, seed=seed + 100)), z, torch.arange(2000), z.abs() < 1.6)
        hits, trials = hits + round(found.fraction_valid[0] * 20), trials + 20
    assert 0.92 * trials < hits <= 0.98 * trials


def test_the_interval_of_the_worst_part_holds_although_it_is_chosen():
    hits = 0
    for seed in range(300):
        z = normal(1000, seed=seed)
        found = local(parts("x", uniform(1000, seed=seed + 999)), z, torch.arange(1000), z.abs() < 1.6)
        low, high = found.worst[1]
        hits += low <= 1 <= high
    assert_calibrated(hits, 300, 0.94, confidence=0.999)


def test_intervals_hold_for_dependent_entries():
    hits = 0
    for seed in range(300):
        owner = torch.arange(100).repeat_interleave(10)
        z = (0.9**0.5) * normal(100, seed=seed)[owner] + (0.1**0.5) * normal(1000, seed=seed + 1000)
        found = local(parts("all", torch.zeros(1000, dtype=torch.long)), z, owner, z.abs() < 1.6)
        low, high = found.scale_interval
        hits += float(low) <= 1 <= float(high)
    assert_calibrated(hits, 300, 0.94, confidence=0.999)


def test_worst_slab_finds_the_region_without_coverage_and_is_honest_where_there_is_none():
    features = normal(8000, 3)
    good = uniform(8000, seed=1) < 0.9
    assert 0.87 < worst_slab_coverage(features, good, seed=0) < 0.93
    bad = good & ~((features[:, 0] > 0.8) & (uniform(8000, seed=2) < 0.7))
    assert worst_slab_coverage(features, bad, seed=0) < 0.6
    assert worst_slab_coverage(features, bad, seed=0) == worst_slab_coverage(features, bad, seed=0)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="'x'"):
        parts("x", torch.tensor([0.0, float("nan")]))
    with pytest.raises(ShapeError, match="features"):
        worst_slab_coverage(normal(10, 2), torch.ones(10, dtype=torch.bool), seed=0)
    for options in ({"directions": 0}, {"mass": 1.5}):
        with pytest.raises(DataError, match="mass, directions"):
            worst_slab_coverage(normal(200, 2), torch.ones(200, dtype=torch.bool), seed=0, **options)
