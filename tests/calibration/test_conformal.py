import itertools
import math

import pytest
import torch

from bayesmol.calibration import ConformalRule, SplitConformal, StructureConformal, coverage_band
from bayesmol.errors import DataError, FormatError, ShapeError
from bayesmol.posterior import Gaussian


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def posterior_of(mean, stddev=1.0, unit="eV"):
    return Gaussian(mean, torch.as_tensor(stddev, dtype=torch.float64).square().expand_as(mean), unit=unit)


def structures_of_two_kinds(count, source):
    """Residuals of dimers and of 30-atom clusters; their size is common to a structure and larger in dimers."""
    small = torch.rand(count, generator=source) < 0.5
    atoms = torch.where(small, 2, 30)
    size = torch.where(small, 3.0, 1.0) * (0.5 * torch.randn(count, generator=source)).exp()
    scale = size.double().repeat_interleave(atoms).unsqueeze(1)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), atoms.cumsum(0)])
    return scale * torch.randn(int(atoms.sum()), 3, generator=source, dtype=torch.float64), pointer


@pytest.mark.parametrize("count", [9, 10, 57, 99, 199, 500])
@pytest.mark.parametrize("level", [0.5, 0.55, 0.57, 2 / 3, 0.9])
def test_split_factor_is_the_textbook_order_statistic(count, level):
    truth = normal(count, seed=count)
    rule = SplitConformal().fit(posterior_of(torch.zeros(count, dtype=torch.float64), 0.3), truth)
    rank = math.ceil(round((count + 1) * level, 9))
    assert rule.factor(level) == pytest.approx(float((truth.abs() / 0.3).sort().values[rank - 1]), abs=1e-10)


def test_split_interval_scales_with_the_standard_deviation():
    rule = SplitConformal().fit(posterior_of(torch.zeros(99, dtype=torch.float64)), normal(99, seed=0))
    posterior = Gaussian(torch.tensor([1.0, 2.0]), torch.tensor([0.01, 4.0]), unit="eV").with_rule(rule)
    interval = posterior.interval(0.9)
    factor = rule.factor(0.9)
    assert torch.allclose(interval.upper, torch.tensor([1.0 + 0.1 * factor, 2.0 + 2.0 * factor]))
    assert torch.allclose(interval.lower + interval.upper, 2 * posterior.mean)
    assert interval.unit == "eV" and interval.level == 0.9
    assert "≥ 0.9" in interval.guarantee and "n = 99" in interval.guarantee and "needs n ≥ 9" in interval.guarantee


def test_split_coverage_lies_in_the_exact_band():
    # Standard deviations that are wrong everywhere: conformal does not care.
    low, high = coverage_band(60, 2000, 0.8, confidence=0.99)
    missed = 0
    for seed in range(150):
        residual = normal(2060, seed=seed) ** 3
        rule = SplitConformal().fit(posterior_of(torch.zeros(60, dtype=torch.float64), 0.2), residual[:60])
        interval = rule.interval(posterior_of(torch.zeros(2000, dtype=torch.float64), 0.2), 0.8)
        missed += not low <= interval.covered(residual[60:]) <= high
    # 150 bands of 99 %: more than 6 misses happen once in a thousand sets
    assert missed <= 6


def test_small_samples_give_infinite_intervals_that_say_so():
    truth = normal(8, seed=0)
    rule = SplitConformal().fit(posterior_of(torch.zeros_like(truth)), truth)
    interval = rule.interval(posterior_of(torch.zeros(3, dtype=torch.float64)), 0.9)
    assert bool(interval.width.isinf().all())
    assert "needs n ≥ 9" in interval.guarantee and "got 8" in interval.guarantee
    assert math.isfinite(rule.factor(0.8))
    pointer = torch.arange(0, 9, 2)
    for simultaneous in (False, True):
        spec = StructureConformal(simultaneous=simultaneous)
        rule = spec.fit(posterior_of(torch.zeros_like(truth)), truth, pointer)
        assert rule.count == 4
        assert math.isinf(rule.factor(0.9)) and math.isfinite(rule.factor(0.8))


def test_hierarchical_factor_is_the_weighted_quantile_by_brute_force():
    source = torch.Generator().manual_seed(5)
    counts = torch.randint(1, 9, (40,), generator=source)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    truth = torch.randn(int(pointer[-1]), 3, generator=source, dtype=torch.float64)
    rule = StructureConformal().fit(posterior_of(torch.zeros_like(truth), 0.5), truth, pointer)
    scores = truth.abs() / 0.5
    for level in (0.3, 0.5, 0.9, 40 / 41):
        for value in scores.flatten().sort().values:
            parts = [(scores[a:b] <= value).double().mean() for a, b in itertools.pairwise(pointer.tolist())]
            if sum(parts) / 41 >= level - 1e-12:
                break
        assert rule.factor(level) == pytest.approx(float(value), abs=1e-12)
    assert math.isinf(rule.factor(0.98))


def test_hierarchical_with_one_component_a_structure_is_split():
    truth = normal(73, seed=2)
    split = SplitConformal().fit(posterior_of(torch.zeros_like(truth)), truth)
    rule = StructureConformal().fit(posterior_of(torch.zeros_like(truth)), truth, torch.arange(74))
    for level in (0.1, 0.55, 0.9, 0.98):
        assert rule.factor(level) == pytest.approx(split.factor(level), abs=1e-12)


def test_structures_are_covered_where_pooled_components_fail():
    # The level is an average over calibration sets and new structures: one new structure for each set of 20.
    level, repetitions, source = 0.9, 400, torch.Generator().manual_seed(0)
    covered = {"component": [], "structure": [], "pooled component": [], "pooled structure": []}
    for _ in range(repetitions):
        truth, pointer = structures_of_two_kinds(20, source)
        new, _ = structures_of_two_kinds(1, source)
        zeros = posterior_of(torch.zeros_like(truth))
        component = StructureConformal().fit(zeros, truth, pointer).factor(level)
        together = StructureConformal(simultaneous=True).fit(zeros, truth, pointer).factor(level)
        pooled = truth.abs().flatten().sort().values[math.ceil((truth.numel() + 1) * level) - 1]
        covered["component"].append(float((new.abs() <= component).double().mean()))
        covered["structure"].append(float((new.abs() <= together).all()))
        covered["pooled component"].append(float((new.abs() <= pooled).double().mean()))
        covered["pooled structure"].append(float((new.abs() <= pooled).all()))
    values = torch.tensor([covered[name] for name in covered], dtype=torch.float64)
    found = dict(zip(covered, values.mean(1).tolist(), strict=True))
    error = dict(zip(covered, (values.std(1) / repetitions**0.5).tolist(), strict=True))
    assert found["component"] >= level - 3 * error["component"]
    # between level and level + 1/(G + 1) for continuous scores of whole structures
    assert level - 3 * error["structure"] <= found["structure"] <= level + 1 / 21 + 3 * error["structure"]
    assert found["pooled component"] < 0.85 and found["pooled structure"] < 0.5


def test_leave_one_out_does_not_claim_a_bound():
    truth = normal(50, seed=0)
    posterior = posterior_of(torch.zeros_like(truth))
    rule = SplitConformal(source="leave-one-out").fit(posterior, truth)
    assert rule.factor(0.9) == SplitConformal().fit(posterior, truth).factor(0.9)
    sentence = rule.guarantee(0.9)
    assert "jackknife" in sentence and "no distribution-free bound" in sentence and "≥ 0.9" not in sentence


def test_floor_stops_tiny_standard_deviations_from_widening_everything():
    truth = normal(100, seed=0)
    stddev = torch.ones(100, dtype=torch.float64)
    stddev[::5] = 1e-6
    posterior = Gaussian(torch.zeros_like(truth), stddev.square(), unit="eV")
    assert SplitConformal().fit(posterior, truth).factor(0.9) > 1e4
    rule = SplitConformal(floor=0.5).fit(posterior, truth)
    assert rule.factor(0.9) < 6
    interval = rule.interval(posterior, 0.9)
    assert float(interval.width[0]) == pytest.approx(2 * 0.5 * rule.factor(0.9))
    exact = Gaussian(torch.zeros_like(truth), torch.zeros_like(truth), unit="eV")
    with pytest.raises(DataError, match="give a floor"):
        SplitConformal().fit(exact, truth)
    assert SplitConformal(floor=1.0).fit(exact, truth).factor(0.5) < 1


@pytest.mark.parametrize("spec", [StructureConformal(), StructureConformal(simultaneous=True, floor=0.1)])
def test_state_gives_the_same_intervals(spec):
    truth = normal(40, 3, seed=1)
    posterior = posterior_of(torch.zeros_like(truth), unit="eV/Å")
    rule = spec.fit(posterior, truth, torch.arange(0, 41, 2))
    header, arrays = rule.state()
    again = ConformalRule.from_state(header, arrays)
    assert again.factor(0.9) == rule.factor(0.9) and again.guarantee(0.9) == rule.guarantee(0.9)
    assert torch.equal(again.interval(posterior, 0.8).upper, rule.interval(posterior, 0.8).upper)
    with pytest.raises(FormatError):
        ConformalRule.from_state({"count": 3}, arrays)
    with pytest.raises(FormatError):
        ConformalRule.from_state(header, {})


def test_rule_follows_a_slice_and_single_precision():
    truth = normal(40, 3, seed=1)
    rule = StructureConformal().fit(posterior_of(torch.zeros_like(truth)), truth, torch.arange(0, 41, 2))
    posterior = Gaussian(torch.zeros(6, 3), torch.rand(6, 3) + 1, unit="eV/Å", rule=rule)
    assert posterior.interval(0.9).upper.dtype == torch.float32
    assert torch.equal(posterior[2:4].interval(0.9).upper, posterior.interval(0.9).upper[2:4])


def test_bad_input():
    truth = normal(6, 3, seed=0)
    posterior = posterior_of(torch.zeros_like(truth))
    with pytest.raises(ShapeError, match="StructureConformal"):
        SplitConformal().fit(posterior, truth)
    with pytest.raises(ShapeError, match="pointer"):
        StructureConformal().fit(posterior, truth, torch.tensor([0, 3, 7]))
    with pytest.raises(DataError, match="at least one row"):
        StructureConformal().fit(posterior, truth, torch.tensor([0, 3, 3, 6]))
    with pytest.raises(ShapeError, match="truth"):
        StructureConformal().fit(posterior, truth[:5], torch.tensor([0, 5]))
    with pytest.raises(DataError, match="finite labels"):
        StructureConformal().fit(posterior, truth * math.nan, torch.tensor([0, 6]))
    with pytest.raises(DataError, match="floor"):
        StructureConformal(floor=-1.0).fit(posterior, truth, torch.tensor([0, 6]))
    with pytest.raises(DataError, match="source"):
        StructureConformal(source="test").fit(posterior, truth, torch.tensor([0, 6]))
    rule = StructureConformal().fit(posterior, truth, torch.tensor([0, 3, 6]))
    with pytest.raises(DataError, match="level"):
        rule.interval(posterior, 90)
