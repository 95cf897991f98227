"""Dirichlet rows against their moments, against closed forms, and where counts are far below one."""

import pytest
import torch
from scipy import stats

from bayesmol.dynamics.dirichlet import DirichletRows, log_gamma_draws, with_pseudocounts
from bayesmol.errors import DataError, ShapeError

COUNTS = torch.tensor([[5.0, 2, 0], [3, 6, 2], [0.2, 1, 7]], dtype=torch.float64)


@pytest.mark.parametrize("pseudocounts", [0.0, 1.0])
def test_moments_are_those_of_the_formula_and_of_the_draws(pseudocounts):
    posterior = DirichletRows(COUNTS, pseudocounts)
    a = COUNTS + pseudocounts / 3
    law = [stats.dirichlet(row[row > 0].numpy()) for row in a]
    for i, row in enumerate(law):
        seen = a[i] > 0
        torch.testing.assert_close(posterior.mean[i][seen], torch.as_tensor(row.mean()), rtol=1e-10, atol=0)
        torch.testing.assert_close(posterior.variance[i][seen], torch.as_tensor(row.var()), rtol=1e-10, atol=0)
    draws = posterior.sample(20000, seed=0)
    assert bool(((draws.mean(0) - posterior.mean).abs() <= 5 * (posterior.variance / 20000).sqrt() + 1e-15).all())
    torch.testing.assert_close(draws.var(0), posterior.variance, rtol=0.06, atol=1e-12)
    assert float((draws.sum(-1) - 1).abs().max()) < 1e-12
    assert bool((draws[:, 0, 2] == 0).all()) == (pseudocounts == 0)


def test_one_entry_has_its_beta_law():
    draws = DirichletRows(COUNTS).sample(4000, seed=1)
    assert stats.kstest(draws[:, 2, 0].numpy(), stats.beta(0.2, 8).cdf).pvalue > 1e-4


def test_tiny_counts_leave_stochastic_rows():
    draws = DirichletRows(torch.full((2, 2), 1e-4, dtype=torch.float64)).sample(4000, seed=2)
    assert float((draws.sum(-1) - 1).abs().max()) < 1e-12
    # A Dirichlet row of vanishing parameters is a coin that chooses one state.
    assert float((draws[:, 0, 0] > 0.5).double().mean()) == pytest.approx(0.5, abs=0.04)
    assert float(((draws > 0.01) & (draws < 0.99)).double().mean()) < 0.01


def test_gamma_logarithms_have_their_mean():
    shape = torch.tensor([0.0, 0.01, 0.5, 3.0, 200.0], dtype=torch.float64)
    logs = log_gamma_draws(shape.expand(40000, 5), seed=3)
    assert bool((logs[:, 0] == -torch.inf).all())
    error = (torch.polygamma(1, shape[1:]) / 40000).sqrt()
    assert bool(((logs[:, 1:].mean(0) - torch.digamma(shape[1:])).abs() < 5 * error).all())


def test_batches_and_seeds():
    posterior = DirichletRows(COUNTS.expand(4, 3, 3))
    assert posterior.sample(5, seed=0).shape == (5, 4, 3, 3)
    assert torch.equal(posterior.sample(5, seed=0), posterior.sample(5, seed=0))


def test_bad_input():
    with pytest.raises(DataError, match="empty row"):
        DirichletRows(torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    with pytest.raises(DataError, match="pseudocounts"):
        with_pseudocounts(COUNTS, -1.0)
    with pytest.raises(ShapeError):
        DirichletRows(COUNTS[:2])
