import math

import numpy as np
import pytest
import torch
from mapie.regression import CrossConformalRegressor
from scipy import stats
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import PredefinedSplit
from sklearn.tree import DecisionTreeRegressor

from bayesmol.calibration.cross import CrossConformal, cross_bound, cross_interval, fold_of_each_group
from bayesmol.calibration.jackknife import Jackknife
from bayesmol.calibration.regressors import Ridge
from bayesmol.errors import DataError, ShapeError


def sample(normal, rows, points=0, features=3):
    """Inputs, labels, new inputs, new labels of a curved function with noise."""
    inputs = normal(rows + points, features)
    truth = inputs.sum(1) + torch.sin(3 * inputs[:, 0]) + (0.3 + inputs[:, 1].abs()) * normal(rows + points)
    return inputs[:rows], truth[:rows], inputs[rows:], truth[rows:]


REGRESSORS = {
    "ridge": (Ridge(2.0), SklearnRidge(2.0)),
    "tree": (DecisionTreeRegressor(max_depth=4, random_state=0), DecisionTreeRegressor(max_depth=4, random_state=0)),
}


@pytest.mark.parametrize("name", REGRESSORS)
@pytest.mark.parametrize("method", ["plus", "minmax"])
@pytest.mark.parametrize("rows, folds", [(203, 7), (90, 40)])
def test_equals_mapie(normal, name, method, rows, folds):
    inputs, truth, new, _ = sample(normal, rows, 50)
    regressor, peer = REGRESSORS[name]
    split = PredefinedSplit(fold_of_each_group(torch.arange(rows), folds, seed=3).numpy())
    levels = [0.5, 0.8, 0.9, 0.975]
    mapie = CrossConformalRegressor(peer, confidence_level=levels, method=method, cv=split)
    _, ends = mapie.fit_conformalize(inputs.numpy(), truth.numpy()).predict_interval(new.numpy())
    rule = CrossConformal(folds, method).fit(regressor, inputs, truth, seed=3)
    for j, level in enumerate(levels):
        interval = rule.interval(new, level)
        np.testing.assert_allclose(interval.lower, ends[:, 0, j], rtol=0, atol=1e-12)
        np.testing.assert_allclose(interval.upper, ends[:, 1, j], rtol=0, atol=1e-12)


def test_arrays_give_the_interval_of_the_rule(normal):
    inputs, truth, new, _ = sample(normal, 90, 20)
    rule = CrossConformal(5).fit(Ridge(), inputs, truth, unit="eV", seed=0)
    found = cross_interval(rule.models(new), rule.residuals.residuals, rule.residuals.folds, 0.8, unit="eV")
    want = rule.interval(new, 0.8)
    assert torch.equal(found.lower, want.lower) and torch.equal(found.upper, want.upper)
    assert found.guarantee == want.guarantee and found.unit == want.unit == "eV"
    single = cross_interval(rule.models(new).float(), rule.residuals.residuals, rule.residuals.folds, 0.8)
    assert single.lower.dtype == torch.float32
    assert rule.interval(new.float(), 0.8).upper.dtype == torch.float32


def test_many_points_are_cut_into_parts(normal, monkeypatch):
    inputs, truth, new, _ = sample(normal, 90, 20)
    for folds in (5, 90):
        rule = CrossConformal(folds).fit(Ridge(), inputs, truth, seed=0)
        whole, middle = rule.interval(new, 0.8), rule.predict(new)
        monkeypatch.setattr("bayesmol.calibration.cross.ENTRIES", 100)
        torch.testing.assert_close(rule.interval(new, 0.8).upper, whole.upper, rtol=0, atol=1e-13)
        torch.testing.assert_close(rule.predict(new), middle, rtol=0, atol=1e-13)
        monkeypatch.undo()


def test_a_fold_a_row_is_the_jackknife(normal):
    inputs, truth, new, _ = sample(normal, 40, 20)
    for method in ("plus", "minmax"):
        cross = CrossConformal(40, method).fit(Ridge(), inputs, truth, seed=0).interval(new, 0.9)
        jackknife = Jackknife(method).fit(Ridge(), inputs, truth).interval(new, 0.9)
        torch.testing.assert_close(cross.lower, jackknife.lower, rtol=0, atol=1e-12)
        torch.testing.assert_close(cross.upper, jackknife.upper, rtol=0, atol=1e-12)
        assert cross.guarantee == jackknife.guarantee


def test_the_median_prediction_is_inside(normal):
    inputs, truth, new, _ = sample(normal, 60, 50)
    rule = CrossConformal(6).fit(DecisionTreeRegressor(random_state=0), inputs, truth, seed=0)
    assert rule.interval(new, 0.5).covered(rule.predict(new)) == 1.0


@pytest.mark.parametrize("method", ["plus", "minmax"])
def test_coverage_is_above_the_bound_and_near_the_level(normal, method):
    # One new label a data set, so that the hits are independent.
    hits, trials = 0, 150
    for seed in range(trials):
        inputs, truth, new, label = sample(normal, 40, 1)
        rule = CrossConformal(8, method).fit(Ridge(), inputs, truth, seed=seed)
        hits += int(rule.interval(new, 0.8).contains(label).sum())
    assert hits >= stats.binom(trials, cross_bound(0.8, torch.full((8,), 5), method)).ppf(1e-4)
    assert 0.72 * trials < hits < 0.9 * trials


def test_groups_are_covered_where_rows_fail(normal, source):
    # Large groups are exact and small ones are not: the rows of large groups would hide the others.
    hits, trials = {"groups": 0, "rows": 0}, 80
    for seed in range(trials):
        sizes = torch.where(torch.rand(41, generator=source) < 0.5, 1, 30)
        groups = torch.repeat_interleave(sizes)
        noise = torch.where(sizes == 1, 3.0, 0.1)[groups].double()
        inputs = normal(len(groups), 1)
        truth = inputs[:, 0] + noise * normal(41)[groups]
        old = groups < 40
        chosen = (groups == 40).nonzero()[:1, 0]
        for name, owner in {"groups": groups[old], "rows": None}.items():
            rule = CrossConformal(8).fit(Ridge(), inputs[old], truth[old], groups=owner, seed=seed)
            hits[name] += int(rule.interval(inputs[chosen], 0.8).contains(truth[chosen]).sum())
    assert 0.69 * trials < hits["groups"] < 0.92 * trials
    assert hits["rows"] < 0.65 * trials


def test_groups_stay_together(source):
    groups = torch.randint(0, 23, (200,), generator=source) * 7
    folds = fold_of_each_group(groups, 5, seed=1)
    homes = {(g, f) for g, f in zip(groups.tolist(), folds.tolist(), strict=True)}
    assert len(homes) == len(groups.unique())
    counts = torch.tensor([f for _, f in homes]).bincount()
    assert int(counts.max() - counts.min()) <= 1
    assert torch.equal(folds, fold_of_each_group(groups, 5, seed=1))
    assert not torch.equal(folds, fold_of_each_group(groups, 5, seed=2))
    assert fold_of_each_group(torch.arange(10), 5, seed=0).bincount().tolist() == [2] * 5


def test_bounds():
    # (n, K): the tournament of folds or the average of p-values, whichever is better
    assert cross_bound(0.9, torch.ones(50, dtype=torch.long)) == pytest.approx(0.8)
    assert cross_bound(0.9, torch.ones(50, dtype=torch.long), "minmax") == pytest.approx(0.9)
    assert cross_bound(0.9, torch.full((50,), 2)) == pytest.approx(0.8 - (1 - 50 / 100) / 51)
    assert cross_bound(0.9, torch.full((10,), 10_000)) == pytest.approx(0.8 - 1.8 * 9 / 100_010)
    assert cross_bound(0.9, torch.full((10,), 10), "minmax") == pytest.approx(0.9 * 101 / 110)
    assert cross_bound(0.9, torch.tensor([10, 11])) == pytest.approx(0.8 - 1.8 / 23)
    assert cross_bound(0.4, torch.ones(50, dtype=torch.long)) == 0.0


def test_small_samples_and_sentences(normal):
    inputs, truth, new, _ = sample(normal, 12, 4)
    rule = CrossConformal(4).fit(Ridge(), inputs[:8], truth[:8], seed=0)
    interval = rule.interval(new, 0.9)
    assert bool(interval.width.isinf().all())
    assert "needs n ≥ 9" in interval.guarantee and "got 8" in interval.guarantee
    assert bool(rule.interval(new, 0.8).width.isfinite().all())
    groups = torch.arange(12) // 3
    grouped = CrossConformal(4, "minmax").fit(Ridge(), inputs, truth, groups=groups, seed=0)
    assert bool(grouped.interval(new, 0.81).width.isinf().all())
    sentence = grouped.interval(new, 0.8).guarantee
    assert "a random row of a new group" in sentence and "≥ 0.8 for" in sentence and "n = 4 groups" in sentence
    large = CrossConformal(10).fit(Ridge(), normal(1000, 2), normal(1000), seed=0).guarantee(0.9)
    assert "≥ 0.783 for any regressor, about 0.9" in large and "1000 rows, 10 folds" in large
    assert "without a bound" in rule.guarantee(0.5)


def test_bad_input(normal):
    inputs, truth, _, _ = sample(normal, 12)
    with pytest.raises(DataError, match="folds"):
        CrossConformal(1)
    with pytest.raises(DataError, match="method"):
        CrossConformal(5, "base")
    with pytest.raises(DataError, match="fewer folds"):
        CrossConformal(5).fit(Ridge(), inputs, truth, groups=torch.arange(12) // 3, seed=0)
    with pytest.raises(ShapeError, match="groups"):
        CrossConformal(5).fit(Ridge(), inputs, truth, groups=torch.arange(11), seed=0)
    with pytest.raises(DataError, match="finite numbers"):
        CrossConformal(5).fit(Ridge(), inputs, truth * math.nan, seed=0)
    with pytest.raises(DataError, match="level"):
        CrossConformal(5).fit(Ridge(), inputs, truth, seed=0).interval(inputs, 90)
    with pytest.raises(DataError, match="predictions"):
        cross_interval(normal(3, 4), truth, torch.arange(12) % 4, 0.9)
    with pytest.raises(DataError, match="predictions"):
        cross_interval(normal(4, 4) * math.inf, truth, torch.arange(12) % 4, 0.9)
