"""Blocks of correlated draws: length, covariance of sums, bootstrap."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError
from bayesmol.inference.blocks import block_bootstrap, block_length, summed_covariance


def autoregressive(source, chains, draws, rho):
    """Chains with unit variance, correlation ρ of neighbours and autocorrelation time (1+ρ)/(1−ρ)."""
    noise = torch.randn(chains, draws, generator=source, dtype=torch.float64)
    values = [noise[:, 0]]
    for k in range(1, draws):
        values.append(rho * values[-1] + (1 - rho**2) ** 0.5 * noise[:, k])
    return torch.stack(values, 1)


def test_length_is_twice_the_autocorrelation_time(source):
    values = autoregressive(source, 4, 5000, 0.8)
    assert block_length(values) == pytest.approx(18, rel=0.25)
    assert block_length(torch.stack([values, torch.randn_like(values)], -1)) == block_length(values)
    assert block_length(torch.randn(4, 2000, generator=source)) == 1
    with pytest.raises(ConvergenceError, match="draws"):
        block_length(torch.linspace(0, 1, 50).reshape(1, 50))


def test_covariance_of_sums(normal):
    terms = normal(12, 2)
    blocks = terms.reshape(4, 3, 2).sum(1)
    torch.testing.assert_close(summed_covariance(terms, 3), blocks.mT @ blocks * 4 / 3)
    torch.testing.assert_close(summed_covariance(terms[:11], 3).shape, torch.Size([2, 2]))
    assert bool(torch.isinf(summed_covariance(terms[:1], 1)).all())
    with pytest.raises(DataError, match="block"):
        summed_covariance(terms, 0)


def test_bootstrap_of_a_correlated_mean(source):
    values = autoregressive(source, 4, 2000, 0.8)
    exact = math.sqrt(9 / 8000)
    found = block_bootstrap(values, lambda x: x.mean(), seed=0, replicates=300)
    assert float(found.std()) == pytest.approx(exact, rel=0.25)
    naive = block_bootstrap(values, lambda x: x.mean(), seed=0, replicates=300, block=1)
    assert float(naive.std()) < exact / 2


def test_bootstrap_keeps_pairs_shape_and_seed(normal):
    values = normal(2, 30, 3)
    first = block_bootstrap(values, lambda x: x[:, :2].mean(0), seed=3, replicates=7, block=4)
    assert first.shape == (7, 2)
    assert torch.equal(first, block_bootstrap(values, lambda x: x[:, :2].mean(0), seed=3, replicates=7, block=4))
    count = block_bootstrap(values, lambda x: torch.tensor(float(len(x))), seed=0, replicates=3, block=7)
    assert count.tolist() == [60, 60, 60]
    rows = {tuple(row) for row in values.flatten(0, 1).tolist()}
    kept = []
    block_bootstrap(values, lambda x: kept.append(x) or x.sum(), seed=0, replicates=2, block=5)
    assert all(tuple(row) in rows for row in torch.cat(kept).tolist())
    with pytest.raises(DataError, match="block"):
        block_bootstrap(values, lambda x: x.mean(), seed=0, block=31)
