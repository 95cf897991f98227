import pytest
import torch
from scipy import stats

from bayesmol.applicability.subgroups import SubgroupDomain
from bayesmol.errors import ApplicabilityError, DataError, ShapeError

NAMES = ("density", "gap", "charge", "noise")


def planted(rows=800, seed=0):
    """Errors are five times smaller where density ≤ 0.6 and gap > 0.3."""
    source = torch.Generator().manual_seed(seed)
    features = torch.rand(rows, 4, generator=source, dtype=torch.float64)
    good = (features[:, 0] <= 0.6) & (features[:, 1] > 0.3)
    errors = torch.randn(rows, generator=source, dtype=torch.float64).abs() * torch.where(good, 0.2, 1.0)
    return features, errors, good


def test_planted_subgroup_is_recovered():
    features, errors, good = planted()
    found = SubgroupDomain().fit(features, errors, names=NAMES, units={"gap": "eV"}, seed=0)
    assert set(found.region.bounds) == {"density", "gap"} and len(found.conditions) == 2
    lower, upper = found.region.bounds["gap"][0], found.region.bounds["density"][1]
    assert lower == pytest.approx(0.3, abs=0.03) and upper == pytest.approx(0.6, abs=0.03)
    assert found.conditions[0].startswith("density ≤ 0.") and found.conditions[1].endswith(" eV")
    assert float((found.inside(features) == good).double().mean()) > 0.95
    assert found.coverage.lower < 0.42 < found.coverage.upper
    true = 0.2 / (0.2 * 0.42 + 0.58)
    assert found.relative_error.lower < true < found.relative_error.upper
    assert str(found).startswith("density ≤") and "not used in the search" in found.guarantee


def test_guarantee_holds_at_its_confidence():
    """The bound of the probability of a large error inside, against 20000 new rows."""
    new, errors, _ = planted(20_000, seed=999)
    spec, held = SubgroupDomain(conditions=2, width=3, tolerance=0.4, confidence=0.8), 0
    for seed in range(60):
        found = spec.fit(*planted(200, seed=seed)[:2], seed=seed)
        held += float((errors[found.inside(new)] > 0.4).double().mean()) <= found.exceedance
    assert held >= 40, "at least 80 % of the time: fewer than 40 of 60 has a chance of 1 %"


@pytest.mark.slow
def test_intervals_of_coverage_and_relative_error_hold():
    """Of the box that was found, whatever it is: against 20000 new rows, for rows and for groups of three."""
    new, errors, _ = planted(20_000, seed=999)
    draws, held = 60, {name: 0 for name in ("coverage", "relative_error", "grouped coverage", "grouped relative_error")}
    for seed in range(draws):
        features, own, _ = planted(240, seed=seed)
        source = torch.Generator().manual_seed(seed)
        many = torch.arange(240).repeat_interleave(3)
        noise = 1 + 0.1 * torch.rand(720, generator=source, dtype=torch.float64)
        spec = SubgroupDomain(conditions=2, width=3, confidence=0.9)
        alone = spec.fit(features, own, seed=seed)
        grouped = spec.fit(features[many], own[many] * noise, groups=many, seed=seed)
        for prefix, found in (("", alone), ("grouped ", grouped)):
            inside = found.inside(new)
            truth = {"coverage": float(inside.double().mean())}
            truth["relative_error"] = float(errors[inside].mean() / errors.mean())
            for name, value in truth.items():
                measure = getattr(found, name)
                held[prefix + name] += measure.lower <= value <= measure.upper
    for name, hits in held.items():
        assert hits >= stats.binom.ppf(0.001, draws, 0.88), (name, hits)
    assert min(held.values()) < draws, "an interval that always holds is too wide"


def test_the_seed_decides_search_and_bootstrap():
    features, errors, _ = planted(200)
    first, again = (SubgroupDomain(tolerance=0.5).fit(features, errors, seed=4) for _ in range(2))
    assert first.relative_error == again.relative_error and first.coverage.method == "Clopper-Pearson"
    stream = torch.Generator().manual_seed(4)
    assert SubgroupDomain(tolerance=0.5).fit(features, errors, seed=stream).relative_error == first.relative_error


def test_noise_gives_no_reduction_that_other_rows_confirm():
    source = torch.Generator().manual_seed(3)
    features = torch.rand(400, 6, generator=source, dtype=torch.float64)
    errors = torch.rand(400, generator=source, dtype=torch.float64)
    found = SubgroupDomain().fit(features, errors, seed=1)
    assert found.relative_error.lower < 1 < found.relative_error.upper * 1.05


def test_groups_stay_on_one_side_and_are_counted():
    features, errors, _ = planted(200)
    many = torch.arange(200).repeat_interleave(5)
    found = SubgroupDomain(tolerance=0.5).fit(features[many], errors[many], groups=many, seed=0)
    alone = SubgroupDomain(tolerance=0.5).fit(features, errors, seed=0)
    assert found.region == alone.region and found.judges == alone.judges and found.exceedance == alone.exceedance
    assert "groups" in found.guarantee and found.judges <= 100
    assert found.conditions[0].startswith("feature")
    again = SubgroupDomain(tolerance=0.5).fit(features, errors, seed=0)
    assert alone.region == again.region


def test_bad_input():
    features, errors, _ = planted(100)
    with pytest.raises(DataError, match="names"):
        SubgroupDomain().fit(features, errors, names=["a"] * 4, seed=0)
    with pytest.raises(ShapeError, match="errors"):
        SubgroupDomain().fit(features, errors[:5], seed=0)
    with pytest.raises(DataError, match="absolute"):
        SubgroupDomain().fit(features, -errors, seed=0)
    with pytest.raises(ApplicabilityError, match="20 groups"):
        SubgroupDomain().fit(features[:30], errors[:30], seed=0)
    with pytest.raises(ShapeError):
        SubgroupDomain().fit(features, errors, seed=0).inside(features[:, :2])
    for setting in ({"conditions": 0}, {"share": 1.0}, {"confidence": 0.0}, {"tolerance": -1.0}):
        with pytest.raises(DataError, match=next(iter(setting))):
            SubgroupDomain(**setting)
