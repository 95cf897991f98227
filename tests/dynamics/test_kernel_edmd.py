"""Kernel EDMD against TICA on the features, exact spectra, and its own cross-validation."""

import math

import pytest
import torch

from bayesmol.data.exact import prinz
from bayesmol.data.exact_spectra import generator_spectrum
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.kernel_edmd import KernelEDMD, bandwidth_scores
from bayesmol.dynamics.linear import EDMD, TICA, VAMP
from bayesmol.errors import ConvergenceError, DataError


@pytest.fixture
def autoregression(normal):
    """Three features mixed from processes with ρ = 0.95, 0.8, 0.3."""
    rho, x = torch.tensor([0.95, 0.8, 0.3], dtype=torch.float64), normal(3000, 3)
    for t in range(1, 3000):
        x[t] = rho * x[t - 1] + (1 - rho.square()).sqrt() * x[t]
    return x @ normal(3, 3)


@pytest.mark.parametrize("estimator", [TICA, VAMP, EDMD])
def test_linear_kernel_is_the_estimator_on_the_features(autoregression, estimator):
    numbers = {"lag": 2, "dimensions": 3, "draws": 5}
    kernel = KernelEDMD(**numbers, bandwidth=math.inf, points=100, estimator=estimator).fit(autoregression, seed=0)
    plain = estimator(**numbers).fit(autoregression, seed=0)
    torch.testing.assert_close(kernel.estimate.values, plain.estimate.values, rtol=0, atol=1e-8)
    if estimator is not EDMD:
        x = autoregression[:50]
        overlap = torch.corrcoef(torch.cat([kernel.transform(x), plain.transform(x)], 1).mT)[:3, 3:]
        torch.testing.assert_close(overlap.diagonal().abs(), torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-8)


def test_leading_eigenvalue_of_prinz_with_500_points():
    data = prinz().simulate(21, trajectories=1000, step=1e-3, steps=50, seed=0)
    spec = KernelEDMD(lag=2, dimensions=3, points=500, components=30, bandwidth=0.15, draws=20)
    fitted = spec.fit(data, seed=0)
    exact = math.exp(-0.1 / float(generator_spectrum(prinz(), 2).timescales[0]))
    assert float(fitted.estimate.values[1]) == pytest.approx(exact, rel=0.02)


def test_cross_validation_prefers_a_kernel_where_the_features_do_not_do(normal):
    """The slow process is |x|: no linear function of x is correlated in time."""
    slow, steps = torch.zeros(3000, dtype=torch.float64), normal(3000)
    for t in range(1, 3000):
        slow[t] = 0.95 * slow[t - 1] + (1 - 0.95**2) ** 0.5 * steps[t]
    x = (2 + 0.5 * slow) * normal(3000).sign()
    spec = KernelEDMD(lag=1, dimensions=1, points=60, components=15, draws=5)
    scores = bandwidth_scores(x[:, None], spec, seed=0)
    means = {width: float(score.mean()) for width, score in scores.items()}
    assert means[math.inf] < 1.1 < 1.5 < max(means.values())
    fitted = spec.fit(x[:, None], seed=0)
    assert fitted.basis.of.bandwidth == max(means, key=means.get)
    assert float(fitted.estimate.values[1]) == pytest.approx(0.95, abs=0.06)


def test_cross_validation_prefers_the_linear_kernel_for_a_linear_process(autoregression):
    spec = KernelEDMD(lag=1, dimensions=1, points=60, components=40)
    scores = bandwidth_scores(autoregression, spec, (0.05, math.inf), seed=0)
    assert float(scores[math.inf].mean()) > float(scores[0.05].mean())


def test_draws_unit_and_seed(autoregression):
    data = Trajectories.of([autoregression[:1500], autoregression[1500:]], time_step=0.2, unit="ns")
    spec = KernelEDMD(lag=2, dimensions=1, points=60, components=30, bandwidth=6.0, draws=50)
    first, again = spec.fit(data, seed=7), spec.fit(data, seed=7)
    assert first.timescales(1).unit == "ns" and torch.equal(first.draws.values, again.draws.values)
    interval = first.eigenvalues(1).interval(0.99)
    assert float(interval.lower) < 0.95**2 < float(interval.upper)


def test_few_components_are_functions_of_unit_variance(autoregression):
    data = Trajectories.of(autoregression)
    basis = KernelEDMD(points=50, components=4, bandwidth=2.0).basis(data, seed=0)
    covariance = basis(autoregression).mT.cov(correction=0)
    assert basis.functions == 4 and not basis.constant
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-8)


def test_what_cannot_be_fitted(normal):
    with pytest.raises(DataError, match="features"):
        KernelEDMD().fit(torch.zeros(100, dtype=torch.int64), seed=0)
    with pytest.raises(ConvergenceError, match="give a bandwidth"):
        KernelEDMD(lag=30).fit(normal(100, 2), seed=0)
    for wrong in ({"lag": 0}, {"points": 0}, {"bandwidth": 0.0}):
        with pytest.raises(DataError):
            KernelEDMD(**wrong)
