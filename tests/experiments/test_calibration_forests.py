"""Forests: the jackknife against its closed form, weights by hand, quantiles of the sample."""

import numpy as np
import pytest
import torch
from scipy import stats


@pytest.fixture
def forests(study):
    return study("calibration_forests")


@pytest.fixture
def table(normal):
    """Smooth targets with noise of standard deviation 0.3, in odd units."""
    x = normal(160, 3)
    y = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * normal(160)
    return 5 + 100 * x, 40 + 7 * y


@pytest.mark.parametrize("name", ["ForestSpread", "ForestJackknife", "QuantileForest"])
def test_contract(forests, table, name):
    inputs, targets = table
    model = getattr(forests, name)(trees=60)
    fitted = model.fit(inputs[:120], targets[:120], seed=3, unit="K")
    posterior = fitted.predict(inputs[120:])
    assert posterior.unit == "K" and posterior.mean.dtype == torch.float64
    errors = targets[120:] - posterior.mean
    assert float(errors.std()) < 0.8 * float(targets[120:].std()), "better than a constant"
    assert 0.4 < float((errors.square() / posterior.variance).mean()) < 2.5
    again = model.fit(inputs[:120], targets[:120], seed=3, unit="K").predict(inputs[120:])
    assert torch.equal(again.mean, posterior.mean) and torch.equal(again.variance, posterior.variance)
    torch.testing.assert_close(fitted.predict(inputs[120:125]).mean, posterior.mean[:5], rtol=1e-9, atol=1e-9)


def test_jackknife_of_a_bagged_mean_is_its_variance(forests, source):
    """Of the mean of a bootstrap sample the infinitesimal jackknife is Σ(y − ȳ)²/n² in the limit of many trees."""
    y = torch.randn(30, generator=source, dtype=torch.float64)
    drawn = torch.randint(30, (60_000, 30), generator=source)
    seen = torch.zeros(60_000, 30).scatter_add_(1, drawn, torch.ones(60_000, 30)).long()
    values = y[drawn].mean(1, keepdim=True)
    exact = float((y - y.mean()).square().sum()) / 900
    assert float(forests.jackknife_variance(seen, values)) == pytest.approx(exact, rel=0.05)
    few = [float(forests.jackknife_variance(seen[k : k + 100], values[k : k + 100])) for k in range(0, 60_000, 100)]
    assert np.mean(few) == pytest.approx(exact, rel=0.25), "the correction removes most of the bias of few trees"


def test_jackknife_noise_is_that_out_of_bag(forests, table):
    inputs, targets = table
    posterior = forests.ForestJackknife(trees=150).fit(inputs, targets, seed=0).predict(inputs)
    noise = float(posterior.aleatoric.variance[0])
    assert 0.5 * (7 * 0.3) ** 2 < noise < 4 * (7 * 0.3) ** 2
    assert float(posterior.aleatoric.variance.std()) == pytest.approx(0, abs=1e-9)


def test_leaf_weights_by_hand(forests):
    leaves, others = torch.tensor([[1, 7], [1, 8], [2, 8]]), torch.tensor([[1, 8], [2, 7]])
    weights = forests.leaf_weights(leaves, others)
    expected = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.0, 0.5]], dtype=torch.float64)
    torch.testing.assert_close(weights, expected)


def test_a_forest_of_stumps_gives_the_quantiles_of_the_sample(forests, normal):
    x, y = normal(200, 2), normal(200)
    posterior = forests.QuantileForest(trees=3, leaf=200, steps=10).fit(x, y, seed=0).predict(x[:2])
    expected = torch.from_numpy(stats.mstats.mquantiles(y.numpy(), [0.1, 0.5, 0.9], alphap=0, betap=1))
    found = posterior.quantile(torch.tensor([0.1, 0.5, 0.9]))[:, 0]
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)
    assert float(posterior.quantile(0.9999)[0]) <= float(y.max()) + 1e-12
