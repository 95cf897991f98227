import math

import numpy as np
import pytest
import torch
from mapie.regression import CrossConformalRegressor, JackknifeAfterBootstrapRegressor
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.tree import DecisionTreeRegressor

from bayesmol.calibration.jackknife import Jackknife, JackknifeAfterBootstrap
from bayesmol.calibration.regressors import GaussianProcess, Ridge
from bayesmol.errors import DataError, ShapeError


def linear(normal, rows, features, points=50):
    """Linear labels with signal √10 and noise one: inputs, labels, new inputs, new labels."""
    inputs, weights = normal(rows + points, features), normal(features)
    truth = inputs @ (weights * math.sqrt(10) / weights.norm()) + normal(rows + points)
    return inputs[:rows], truth[:rows], inputs[rows:], truth[rows:]


def coverages(normal, features, trials):
    """Mean coverage and width of jackknife and jackknife+ for least squares with 100 rows."""
    found = {"plain": [], "plus": []}
    for _ in range(trials):
        inputs, truth, new, label = linear(normal, 100, features)
        for method, values in found.items():
            interval = Jackknife(method).fit(Ridge(0.0, intercept=False), inputs, truth).interval(new, 0.9)
            values.append((interval.covered(label), float(interval.width.mean())))
    return {method: np.mean(values, axis=0) for method, values in found.items()}


@pytest.mark.parametrize("method", ["plus", "minmax"])
@pytest.mark.parametrize("penalty", [1e-3, 1.0])
def test_equals_mapie(normal, method, penalty):
    inputs, truth, new, _ = linear(normal, 60, 4)
    mapie = CrossConformalRegressor(SklearnRidge(penalty), confidence_level=[0.5, 0.9, 0.96], method=method, cv=60)
    _, ends = mapie.fit_conformalize(inputs.numpy(), truth.numpy()).predict_interval(new.numpy())
    rule = Jackknife(method).fit(Ridge(penalty), inputs, truth)
    for j, level in enumerate((0.5, 0.9, 0.96)):
        interval = rule.interval(new, level)
        np.testing.assert_allclose(interval.lower, ends[:, 0, j], rtol=0, atol=1e-12)
        np.testing.assert_allclose(interval.upper, ends[:, 1, j], rtol=0, atol=1e-12)


def test_process_jackknife_equals_sorting(normal):
    inputs, truth, new, _ = linear(normal, 30, 2)
    process = GaussianProcess(lambda a, b: torch.exp(-torch.cdist(a, b)), 0.3)
    interval = Jackknife().fit(process, inputs, truth).interval(new, 0.8)
    values = []
    for i in range(30):
        rest = torch.arange(30) != i
        model = process.fit(inputs[rest], truth[rest])
        residual = (truth[i] - model(inputs[i : i + 1])[0, 0]).abs()
        values.append(torch.stack([model(new)[0] - residual, model(new)[0] + residual]))
    lower, upper = torch.stack(values, 1).sort(1).values
    torch.testing.assert_close(interval.lower, lower[math.floor(31 * 0.2 + 1e-9) - 1])
    torch.testing.assert_close(interval.upper, upper[math.ceil(31 * 0.8 - 1e-9) - 1])


def test_plain_is_the_prediction_and_a_quantile(normal):
    inputs, truth, new, _ = linear(normal, 40, 3)
    rule = Jackknife("plain").fit(Ridge(), inputs, truth, unit="K")
    interval = rule.interval(new, 0.9)
    _, residuals = Ridge().leave_one_out(inputs, truth)
    radius = residuals.abs().sort().values[math.ceil(41 * 0.9) - 1]
    torch.testing.assert_close(interval.lower, rule.predict(new) - radius)
    torch.testing.assert_close(interval.upper, rule.predict(new) + radius)
    assert "no distribution-free bound" in interval.guarantee and interval.unit == "K"
    assert "≥ 0.8 for any regressor" in Jackknife().fit(Ridge(), inputs, truth).guarantee(0.9)
    assert "≥ 0.9 for any regressor" in Jackknife("minmax").fit(Ridge(), inputs, truth).guarantee(0.9)


def test_the_jackknife_fails_where_jackknife_plus_holds(normal):
    # 40 data sets of 100 rows and 100 coefficients; the next test has the figures
    found = coverages(normal, 100, 40)
    assert found["plain"][0] < 0.7 and found["plus"][0] > 0.82
    stable = coverages(normal, 20, 40)
    assert 0.86 < stable["plain"][0] < 0.94 and 0.86 < stable["plus"][0] < 0.94
    assert stable["plain"][1] == pytest.approx(stable["plus"][1], rel=0.05)


@pytest.mark.slow
def test_coverage_for_as_many_coefficients_as_rows(normal):
    # standard error of each about 0.006
    found = coverages(normal, 100, 1000)
    assert 0.50 < found["plain"][0] < 0.57
    assert 0.90 < found["plus"][0] < 0.95


@pytest.mark.parametrize("aggregation", ["mean", "median"])
def test_after_bootstrap_equals_mapie(normal, aggregation):
    inputs, truth, new, _ = linear(normal, 150, 3)
    tree = DecisionTreeRegressor(max_depth=3, random_state=0)
    options = {"resampling": 25, "aggregation_method": aggregation, "random_state": 1}
    mapie = JackknifeAfterBootstrapRegressor(tree, confidence_level=0.8, **options)
    _, ends = mapie.fit_conformalize(inputs.numpy(), truth.numpy()).predict_interval(new.numpy())
    peer = mapie._mapie_regressor.estimator_
    absent = torch.from_numpy(~np.isnan(peer.k_)).T

    def members(points):
        return torch.stack([torch.from_numpy(one.predict(points.numpy())) for one in peer.estimators_])

    spec = JackknifeAfterBootstrap(25, aggregation)
    interval = spec.rule(members, inputs, truth, absent, torch.arange(150)).interval(new, 0.8)
    np.testing.assert_allclose(interval.lower, ends[:, 0, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(interval.upper, ends[:, 1, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("aggregation", ["mean", "median"])
@pytest.mark.parametrize("size", [3, 20])
def test_after_bootstrap_equals_its_definition(normal, source, monkeypatch, aggregation, size):
    # Three members have few patterns, of which some are empty; twenty have one a row.
    inputs, truth, new, _ = linear(normal, 45, 2)
    weights, absent = normal(size, 2), torch.rand(size, 45, generator=source) < 0.4
    monkeypatch.setattr("bayesmol.calibration.jackknife.ENTRIES", 500)
    spec = JackknifeAfterBootstrap(size, aggregation)
    rule = spec.rule(lambda x: weights @ x.T, inputs, truth, absent, torch.arange(45))
    average = {"mean": np.mean, "median": np.median}[aggregation]
    ends = []
    for i in range(45):
        chosen = weights[absent[:, i]].numpy()
        if not len(chosen):
            ends.append(np.full((2, 50), [[-np.inf], [np.inf]]))
            continue
        residual = abs(float(truth[i]) - average(chosen @ inputs[i].numpy()))
        centre = average(chosen @ new.numpy().T, axis=0)
        ends.append(np.stack([centre - residual, centre + residual]))
    assert (size == 3) == any(np.isinf(end).any() for end in ends)
    lower, upper = np.sort(np.stack(ends, 1), 1)
    for level in (0.5, 0.7, 0.95):
        rank = math.ceil(46 * level - 1e-9)
        interval = rule.interval(new, level)
        np.testing.assert_allclose(interval.upper, upper[rank - 1], rtol=0, atol=1e-12)
        np.testing.assert_allclose(interval.lower, lower[45 - rank], rtol=0, atol=1e-12)


def test_bootstrap_draws_whole_groups_a_random_number_of_times(normal):
    inputs, truth, new, _ = linear(normal, 60, 2)
    groups = torch.arange(60) // 3
    spec = JackknifeAfterBootstrap(15)
    rule, again = (spec.fit(Ridge(), inputs, truth, groups=groups, seed=0) for _ in range(2))
    folds = rule.residuals.folds.reshape(20, 3)
    assert bool((folds == folds[:, :1]).all()) and len(folds[:, 0].unique()) == 20
    assert torch.equal(rule.interval(new, 0.8).upper, again.interval(new, 0.8).upper)
    sentence = rule.interval(new, 0.9).guarantee
    assert "≥ 0.8 for any regressor" in sentence and "n = 20 groups" in sentence
    sizes = [spec.fit(Ridge(), inputs[:9], truth[:9], seed=s).models.patterns.shape[1] for s in range(60)]
    kept = (1 - 1 / 10) ** 9
    assert len(set(sizes)) > 3
    assert abs(np.mean(sizes) - 15) < 4 * math.sqrt(15 * (1 - kept) / 60) + 0.5


def test_after_bootstrap_covers(normal):
    hits = 0
    for seed in range(60):
        inputs, truth, new, label = linear(normal, 40, 3, points=10)
        rule = JackknifeAfterBootstrap(15).fit(Ridge(), inputs, truth, seed=seed)
        hits += rule.interval(new, 0.8).covered(label) / 60
    assert 0.72 < hits < 0.92


def test_bad_input(normal):
    inputs, truth, _, _ = linear(normal, 20, 2)
    with pytest.raises(DataError, match="method"):
        Jackknife("base")
    with pytest.raises(DataError, match="CrossConformal"):
        Jackknife().fit(SklearnRidge(), inputs, truth)
    with pytest.raises(DataError, match="bootstraps"):
        JackknifeAfterBootstrap(0)
    with pytest.raises(DataError, match="aggregation"):
        JackknifeAfterBootstrap(5, "mode")
    with pytest.raises(ShapeError, match="groups"):
        JackknifeAfterBootstrap().fit(Ridge(), inputs, truth, groups=torch.arange(19), seed=0)
    with pytest.raises(ShapeError, match="absent"):
        absent = torch.ones(3, 19, dtype=torch.bool)
        JackknifeAfterBootstrap().rule(Ridge().fit(inputs, truth), inputs, truth, absent, torch.arange(20))
