"""Log-densities, batches that estimate them without bias, and gradients."""

import itertools

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.targets import NormalPrior, Target


def test_prior_is_the_normal_law(normal):
    mean, scale = normal(4), normal(4).exp()
    prior, vectors = NormalPrior(mean, scale), normal(3, 4)
    expected = torch.distributions.Normal(mean, scale).log_prob(vectors).sum(-1)
    torch.testing.assert_close(prior.log_density(vectors), expected)
    draws = prior.sample(20000, seed=1)
    torch.testing.assert_close((draws.mean(0) - mean) / scale, torch.zeros_like(mean), rtol=0, atol=0.04)
    torch.testing.assert_close(draws.std(0) / scale, torch.ones_like(mean), rtol=0.03, atol=0)
    assert torch.equal(draws, prior.sample(20000, seed=1))


def test_batches_pass_once_through_all_data(linear, source):
    target = linear(rows=10, batch=3).target
    passes = list(itertools.islice(target.batches(source), 8))
    assert [len(part) for part in passes] == [3, 3, 3, 1] * 2
    for half in (passes[:4], passes[4:]):
        assert torch.equal(torch.cat(half).sort().values, torch.arange(10))
    assert not torch.equal(torch.cat(passes[:4]), torch.cat(passes[4:]))


def test_batches_estimate_without_bias(linear, normal):
    model = linear(rows=6, batch=2)
    vector = normal(5)
    pairs = [torch.tensor(pair) for pair in itertools.combinations(range(6), 2)]
    found = torch.stack([model.target.log_density(vector, rows) for rows in pairs]).mean()
    torch.testing.assert_close(found, model.target.log_density(vector))


def test_gradient_is_the_closed_form(linear, normal):
    model, vector = linear(), normal(5)
    torch.testing.assert_close(model.target.gradient(vector), model.precision @ (model.mean - vector))


def test_bad_input_is_named(normal):
    with pytest.raises(ShapeError, match="scale"):
        NormalPrior(normal(3), normal(4).exp())
    with pytest.raises(DataError, match="scale"):
        NormalPrior(normal(3), torch.zeros(3))
    with pytest.raises(DataError, match="batch"):
        Target(lambda vector, rows: vector.sum(), NormalPrior.centred(torch.ones(2)), 5, 6)
