"""Moments, functionals and draws of normal distributions of low rank, against dense algebra."""

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.low_rank import LowRankNormal


def law(normal, rank=2):
    return LowRankNormal(normal(5), normal(5).square(), normal(5, rank))


def dense(normal):
    return torch.diag(normal.diagonal) + normal.factor @ normal.factor.mT


@pytest.mark.parametrize("rank", [0, 2])
def test_functionals_are_those_of_the_dense_covariance(normal, rank):
    found, rows, others = law(normal, rank), normal(7, 5), normal(3, 5)
    matrix = dense(found)
    torch.testing.assert_close(found.covariance(rows, others), rows @ matrix @ others.T)
    torch.testing.assert_close(found.covariance(rows), rows @ matrix @ rows.T)
    torch.testing.assert_close(found.variance(rows), (rows @ matrix @ rows.T).diagonal())
    torch.testing.assert_close(found.stddev, matrix.diagonal().sqrt())


def test_draws_have_the_moments(normal):
    found = law(normal)
    draws = found.sample(100_000, seed=0)
    torch.testing.assert_close(draws.mean(0), found.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(draws.T.cov(), dense(found), rtol=0, atol=0.1)
    assert torch.equal(draws, found.sample(100_000, seed=0))


def test_independent(normal):
    mean, stddev = normal(5), normal(5).exp()
    found = LowRankNormal.independent(mean, stddev)
    torch.testing.assert_close(found.stddev, stddev)


def test_linear_is_the_same_law(normal):
    found, rows = law(normal), normal(7, 5)
    same = found.linear()
    torch.testing.assert_close(same.covariance(rows), found.covariance(rows))
    torch.testing.assert_close(same.mean, found.mean)


def test_bad_input_is_named(normal):
    with pytest.raises(ShapeError, match="factor"):
        LowRankNormal(normal(3), normal(3).square(), normal(4, 2))
    with pytest.raises(DataError, match="variances"):
        LowRankNormal(normal(3), -torch.ones(3), normal(3, 2))
    with pytest.raises(ConvergenceError, match="covariance"):
        LowRankNormal(normal(5), torch.zeros(5).double(), normal(5, 2)).linear()
