"""Moments of iterates: exact on any sequence, and right for descent on a quadratic."""

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.swag import Swag, SwagMoments
from bayesmol.inference.targets import NormalPrior, Target


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


def test_the_spread_is_that_of_the_rate_and_not_of_the_posterior(source):
    """Data with constant gradients of random sign: noise of known variance for the rule of the last test."""
    slopes = torch.randn(500, 40, generator=source, dtype=torch.float64)
    slopes = (slopes - slopes.mean(0)) / slopes.std(0, correction=0)
    prior = NormalPrior.centred(torch.full((40,), 500**-0.5).double())  # precision N, so that its mean over N is one
    target = Target(lambda vector, rows: (slopes[rows] @ vector).sum(), prior, 500, 1)
    for rate in (0.02, 0.08):
        spec = Swag(rate, steps=1500, every=1, warmup=200, rank=0)
        found = spec.fit(target, torch.zeros(40).double(), seed=0).stddev.square().mean()
        assert float(found) == pytest.approx(rate / (2 - rate), rel=0.25)
    assert float(found) > 10 * float(prior.scale[0] ** 2)


def test_same_seed_same_result(linear):
    model, start = linear(batch=10), torch.zeros(5).double()
    spec = Swag(0.01, steps=40, every=4, warmup=10, rank=3)
    first, second = (spec.fit(model.target, start, seed=1) for _ in range(2))
    assert torch.equal(dense(first), dense(second))


def test_bad_input_is_named(linear, normal):
    with pytest.raises(DataError, match="iterates"):
        gathered(normal(1, 4), 5).posterior()
    with pytest.raises(ShapeError, match="vector"):
        gathered(normal(3, 4), 5).updated(normal(3))
    with pytest.raises(DataError, match="rank"):
        SwagMoments.empty(normal(4), -1)
    with pytest.raises(ConvergenceError, match="rate"):
        Swag(1e6, steps=200, every=10, warmup=0).fit(linear().target, torch.zeros(5).double(), seed=0)
