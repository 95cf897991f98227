import math

import pytest
import torch

from bayesmol.calibration.conformal import Conformal
from bayesmol.calibration.weighted import WeightedConformal
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian
from bayesmol.testing import assert_calibrated


def posterior_of(mean, stddev=1.0, unit="eV"):
    return Gaussian(mean, torch.as_tensor(stddev, dtype=torch.float64).square().expand_as(mean), unit=unit)


def zeros(*shape):
    return posterior_of(torch.zeros(*shape, dtype=torch.float64))


def ones(count):
    return torch.ones(count, dtype=torch.float64)


@pytest.mark.parametrize("score", ["normalised", "absolute"])
@pytest.mark.parametrize(("count", "level"), [(9, 0.9), (57, 0.9), (99, 0.55), (200, 0.95)])
def test_equal_weights_are_split_conformal(score, count, level, normal):
    truth, stddev = normal(count), normal(count).abs() + 0.1
    posterior, new = posterior_of(normal(count), stddev), posterior_of(normal(7), normal(7).abs() + 0.1)
    for weight in (1.0, 1e-7, 300.0):
        rule = WeightedConformal(score).fit(posterior, truth, weight * ones(count))
        got = rule.interval(new, level, weight * ones(7))
        want = Conformal(score).fit(posterior, truth).interval(new, level)
        torch.testing.assert_close(got.upper, want.upper, rtol=0, atol=1e-14)
        torch.testing.assert_close(got.lower, want.lower, rtol=0, atol=1e-14)
        assert rule.effective_sample_size == pytest.approx(count)


@pytest.mark.parametrize("simultaneous", [False, True])
def test_equal_weights_of_structures_are_hierarchical_conformal(simultaneous, normal, source):
    groups = torch.arange(40).repeat_interleave(torch.randint(1, 6, (40,), generator=source))
    truth = normal(len(groups), 3)
    new = zeros(5, 3)
    rule = WeightedConformal(simultaneous=simultaneous).fit(zeros(len(groups), 3), truth, ones(40), groups=groups)
    other = Conformal(unit="structure", simultaneous=simultaneous).fit(zeros(len(groups), 3), truth, groups=groups)
    for level in (0.5, 0.9, 0.97):
        got = rule.interval(new, level, ones(2), groups=torch.tensor([0, 0, 0, 1, 1]))
        torch.testing.assert_close(got.upper, other.interval(new, level).upper, rtol=0, atol=1e-14)


def test_radius_is_the_inverted_weighted_p_value(normal, source):
    for level in (0.3, 0.8, 0.9):
        scores, weights = normal(12).abs(), torch.rand(12, generator=source, dtype=torch.float64)
        scores[3] = scores[4]
        rule = WeightedConformal().fit(zeros(12), scores, weights)
        for own in torch.rand(20, generator=source, dtype=torch.float64) * 2:
            radius = float(rule.radii(level, own[None])[0])
            total = float(weights.sum() + own)
            for candidate in [*scores.tolist(), *(scores + 1e-9).tolist(), *normal(20).abs().tolist(), 100.0]:
                p_value = float(weights[scores >= candidate].sum() + own) / total
                assert (p_value > 1 - level) == (candidate <= radius)


def test_entries_share_the_weight_of_their_structure(normal):
    groups, weights = torch.tensor([0, 1, 1, 2, 2, 2]), torch.tensor([1.0, 4.0, 2.0], dtype=torch.float64)
    truth = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0, 6.0], dtype=torch.float64)
    rule = WeightedConformal().fit(zeros(6), truth, weights, groups=groups)
    # by hand, in the order 1 … 6: 2, 2/3, 2, 2/3, 1, 2/3 of 7
    torch.testing.assert_close(rule.cumulative, torch.tensor([6, 8, 14, 16, 19, 21], dtype=torch.float64) / 3)
    assert rule.radii(0.5, torch.tensor([1.0], dtype=torch.float64)).tolist() == [3.0]  # 4 of 8 is reached by 14/3
    together = WeightedConformal(simultaneous=True).fit(zeros(6), truth, weights, groups=groups)
    torch.testing.assert_close(together.scores, torch.tensor([3.0, 5.0, 6.0], dtype=torch.float64))
    torch.testing.assert_close(together.cumulative, torch.tensor([4.0, 5.0, 7.0], dtype=torch.float64))


def test_known_ratio_has_the_level_where_plain_intervals_fail(normal):
    # Errors grow with x; calibration x ~ N(0, 1), new x ~ N(1, 1), so the density ratio is exp(x − 1/2).
    trials, level, hits, plain = 1500, 0.8, 0, 0
    x, new = normal(trials, 80), normal(trials) + 1
    errors, new_errors = (0.7 * x).exp() * normal(trials, 80), (0.7 * new).exp() * normal(trials)
    spec, zero, one = WeightedConformal("absolute"), zeros(80), zeros(1)
    for k in range(trials):
        interval = spec.fit(zero, errors[k], x[k].exp()).interval(one, level, new[k : k + 1].exp())
        hits += int(interval.contains(new_errors[k : k + 1]))
        plain += float(new_errors[k].abs()) <= float(errors[k].abs().sort().values[64])
    assert plain / trials < 0.7
    with pytest.raises(AssertionError):
        assert_calibrated(plain, trials, level)
    assert hits / trials <= 0.87  # finite weights make it a little wide
    assert_calibrated(min(hits, round(level * trials)), trials, level)


def test_structures_with_a_known_ratio(normal, source):
    trials, level, covered = 400, 0.8, {False: [], True: []}
    for _ in range(trials):
        size = torch.randint(1, 5, (41,), generator=source)
        x = normal(41)
        x[-1] += 1
        groups = torch.arange(41).repeat_interleave(size)
        errors = ((0.7 * x).exp() * (1 + 2 * (size == 1)))[groups] * normal(len(groups))
        old = groups < 40
        for together, shares in covered.items():
            spec = WeightedConformal("absolute", simultaneous=together)
            rule = spec.fit(zeros(int(old.sum())), errors[old], x[:40].exp(), groups=groups[old])
            inside = (errors[~old].abs() <= rule.radii(level, x[-1:].exp())).double()
            shares.append(float(inside.min() if together else inside.mean()))
    for shares in covered.values():
        mean, error = torch.tensor(shares).mean(), torch.tensor(shares).std() / math.sqrt(trials)
        assert level - 3 * float(error) <= float(mean) <= 0.93


def test_infinite_where_the_new_weight_is_too_large(normal):
    rule = WeightedConformal().fit(zeros(18), normal(18), ones(18))
    new = torch.tensor([0.0, 1.0, 2.0, 2.0001, 50.0], dtype=torch.float64)  # the limit is 18 · 0.1/0.9
    interval = rule.interval(zeros(5), 0.9, new)
    assert interval.width.isinf().tolist() == [False, False, False, True, True]
    assert "infinite for 2 of 5 structures" in interval.guarantee and "calibrate on structures like them" in (
        interval.guarantee
    )
    assert "n = 18" in interval.guarantee and "worth 18 " in interval.guarantee
    assert "infinite" not in rule.interval(zeros(1), 0.9, ones(1)).guarantee
    assert "covers a new label with" in rule.guarantee(0.9)
    pairs = torch.arange(9).repeat_interleave(2)
    for together, subject in {
        False: "a random entry of a new structure",
        True: "all entries of a new structure",
    }.items():
        rule = WeightedConformal(simultaneous=together).fit(zeros(18), normal(18), ones(9), groups=pairs)
        assert f"covers {subject}" in rule.guarantee(0.9)


def test_a_few_heavy_structures_are_worth_few(normal):
    weights = torch.cat([ones(98) * 1e-3, ones(2)])
    rule = WeightedConformal().fit(zeros(100), normal(100), weights)
    assert rule.effective_sample_size == pytest.approx(float(weights.sum() ** 2 / weights.square().sum()))
    assert bool(rule.radii(0.9, ones(1)).isinf().all())
    masked = torch.where(weights < 1, 0.0, weights)
    assert WeightedConformal().fit(zeros(100), normal(100), masked).effective_sample_size == pytest.approx(2)


def test_dtype_and_certain_predictions(normal):
    rule = WeightedConformal(floor=0.1).fit(zeros(30), normal(30), ones(30))
    new = Gaussian(torch.zeros(2, 3), torch.zeros(2, 3), unit="eV")
    interval = rule.interval(new, 0.9, torch.tensor([1.0, 1e6]))
    assert interval.upper.dtype == torch.float32 and interval.unit == "eV" and interval.level == 0.9
    assert bool(interval.upper[0].isfinite().all()) and bool(interval.upper[1].isinf().all())


def test_bad_input(normal):
    truth = normal(20)
    with pytest.raises(ShapeError, match="weights"):
        WeightedConformal().fit(zeros(20), truth, ones(19))
    with pytest.raises(DataError, match="weights"):
        WeightedConformal().fit(zeros(20), truth, -ones(20))
    with pytest.raises(DataError, match="only zeros"):
        WeightedConformal().fit(zeros(20), truth, 0 * ones(20))
    with pytest.raises(DataError, match="score"):
        WeightedConformal("quantile").fit(zeros(20), truth, ones(20))
    with pytest.raises(DataError, match="floor"):
        WeightedConformal(floor=-1.0).fit(zeros(20), truth, ones(20))
    with pytest.raises(DataError, match="give a floor"):
        WeightedConformal().fit(posterior_of(truth, 0.0), truth, ones(20))
    rule = WeightedConformal().fit(zeros(20), truth, ones(20))
    with pytest.raises(ShapeError, match="weight for the structure of each row"):
        rule.interval(zeros(3), 0.9, ones(2))
    with pytest.raises(ShapeError, match="weight for the structure of each row"):
        rule.interval(zeros(3), 0.9, ones(2), groups=torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match="weights"):
        rule.radii(0.9, torch.tensor([math.nan]))
    with pytest.raises(DataError, match="level"):
        rule.radii(90, ones(1))
