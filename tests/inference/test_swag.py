"""Moments of iterates: exact on any sequence, and right for descent on a quadratic."""

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.swag import SwagMoments


def dense(posterior):
    return posterior.covariance(torch.eye(len(posterior.mean), dtype=torch.float64))


def gathered(iterates, rank):
    moments = SwagMoments.empty(iterates[0], rank)
    for vector in iterates:
        moments = moments.updated(vector)
    return moments


def test_moments_are_those_of_the_iterates(normal):
    iterates = normal(30, 4) + 1e4  # far from zero, where a difference of squares has no digits
    posterior = gathered(iterates, 30).posterior()
    covariance = iterates.T.cov()
    torch.testing.assert_close(posterior.mean, iterates.mean(0))
    expected = 0.5 * (torch.diag(covariance.diagonal()) + covariance)
    torch.testing.assert_close(dense(posterior), expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(posterior.stddev.square(), covariance.diagonal(), rtol=1e-6, atol=0)


def test_low_rank_is_of_the_last_iterates(normal):
    iterates = normal(30, 4)
    moments = gathered(iterates, 5)
    assert torch.equal(moments.last, iterates[-5:]) and moments.count == 30
    expected = 0.5 * (torch.diag(iterates.var(0)) + iterates[-5:].T.cov())
    torch.testing.assert_close(dense(moments.posterior()), expected)
    torch.testing.assert_close(dense(gathered(iterates, 0).posterior()), torch.diag(iterates.var(0)))


def test_descent_on_a_quadratic_has_its_stationary_covariance(normal):
    r"""Of :math:`w \leftarrow w - \eta \lambda w + \eta \xi`: :math:`\eta\,/\,(\lambda (2 - \eta\lambda))`."""
    curvature, rate = torch.tensor([0.5, 1.0, 2.0]).double().repeat(100), 0.4
    vector, moments = torch.zeros(300).double(), SwagMoments.empty(torch.zeros(300).double(), 0)
    for step, noise in enumerate(normal(2500, 300)):
        vector = vector - rate * curvature * vector + rate * noise
        moments = moments.updated(vector) if step >= 500 else moments
    found = moments.posterior().stddev.square().reshape(100, 3).mean(0)
    torch.testing.assert_close(found, (rate / (curvature * (2 - rate * curvature)))[:3], rtol=0.03, atol=0)


def test_bad_input_is_named(normal):
    with pytest.raises(DataError, match="iterates"):
        gathered(normal(1, 4), 5).posterior()
    with pytest.raises(ShapeError, match="vector"):
        gathered(normal(3, 4), 5).updated(normal(3))
    with pytest.raises(DataError, match="rank"):
        SwagMoments.empty(normal(4), -1)
