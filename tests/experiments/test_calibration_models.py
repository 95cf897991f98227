"""Processes and linear models: closed forms, calibration where the model is true, units."""

import numpy as np
import pytest
import torch

from bayesmol.errors import ShapeError
from bayesmol.posterior import Gaussian, Mixture


@pytest.fixture
def models(study):
    return study("calibration_models")


@pytest.fixture
def table(normal):
    """Smooth targets with noise of standard deviation 0.3, in odd units."""
    x = normal(110, 3)
    y = torch.sin(2 * x[:, 0]) + 0.5 * x[:, 1] + 0.3 * normal(110)
    return 5 + 100 * x, 40 + 7 * y


SPECIFICATIONS = [
    ("Ridge", {}),
    ("ExactGP", {"steps": 25}),
    ("SparseGP", {"points": 20, "steps": 40}),
]


@pytest.mark.parametrize(("name", "settings"), SPECIFICATIONS)
def test_contract(models, table, name, settings):
    inputs, targets = table
    model = getattr(models, name)(**settings)
    fitted = model.fit(inputs[:80], targets[:80], seed=3, unit="K")
    posterior = fitted.predict(inputs[80:])
    assert posterior.unit == "K" and posterior.mean.dtype == torch.float64
    errors = targets[80:] - posterior.mean
    assert float(errors.std()) < 0.8 * float(targets[80:].std()), "better than a constant"
    assert 0.4 < float((errors.square() / posterior.variance).mean()) < 2.5
    again = model.fit(inputs[:80], targets[:80], seed=3, unit="K").predict(inputs[80:])
    assert torch.equal(again.mean, posterior.mean) and torch.equal(again.variance, posterior.variance)
    torch.testing.assert_close(fitted.predict(inputs[80:85]).mean, posterior.mean[:5], rtol=1e-9, atol=1e-9)


def test_units_do_not_matter(models, table):
    inputs, targets = table
    model = models.Ridge()
    posterior = model.fit(inputs, targets, seed=0).predict(inputs)
    moved = model.fit(3 * inputs - 1, 2 * targets + 9, seed=0).predict(3 * inputs - 1)
    torch.testing.assert_close(moved.mean, 2 * posterior.mean + 9)
    torch.testing.assert_close(moved.variance, 4 * posterior.variance)


def test_bad_shapes(models, table):
    inputs, targets = table
    with pytest.raises(ShapeError, match="targets"):
        models.Ridge().fit(inputs, targets[:-1], seed=0)


def test_a_constant_column_does_no_harm(models, table):
    inputs, targets = table
    inputs = torch.cat([inputs, torch.full((110, 1), 4.0, dtype=torch.float64)], 1)
    assert bool(models.Ridge().fit(inputs, targets, seed=0).predict(inputs).mean.isfinite().all())


def test_rescaled(models, normal):
    mixture = Mixture(normal(3, 5), normal(3, 5).square(), unit="")
    found = models.rescaled(mixture, 4.0, 2.0, "eV")
    value = normal(5)
    torch.testing.assert_close(found.cdf(4 + 2 * value), mixture.cdf(value))
    assert found.unit == "eV"
    gaussian = Gaussian(normal(5), torch.full((5,), 2.0).double(), unit="", epistemic_variance=torch.ones(5).double())
    found = models.rescaled(gaussian, 4.0, 2.0, "eV")
    torch.testing.assert_close(found.epistemic.variance, torch.full((5,), 4.0).double())
    torch.testing.assert_close(found.log_prob(4 + 2 * value), gaussian.log_prob(value) - np.log(2))


def test_evidence_finds_the_noise_of_a_linear_law(models, normal):
    x, weights = normal(3000, 4), torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    y = x @ weights + 0.7 * normal(3000)
    posterior = models.linear_law(x, y)(x[:50])
    torch.testing.assert_close(posterior.mean, x[:50] @ weights, atol=0.1, rtol=0)
    torch.testing.assert_close(posterior.aleatoric.stddev, torch.full((50,), 0.7).double(), rtol=0.05, atol=0)
    design = torch.cat([x, torch.ones(3000, 1).double()], 1)
    row = torch.cat([x[:50], torch.ones(50, 1).double()], 1)
    leverage = (row @ torch.linalg.inv(design.T @ design) * row).sum(1)
    torch.testing.assert_close(posterior.epistemic.variance, 0.49 * leverage, rtol=0.15, atol=0)


@pytest.mark.slow
def test_the_exact_process_is_calibrated_on_its_own_data(models, source):
    """Draws of a process with known kernel: z-variance 1.00 ± 0.05 over 20 sets of 400 new labels."""
    import gpytorch

    squares, noise = [], 0.3
    for seed in range(20):
        x = 4 * torch.rand(800, 2, generator=source, dtype=torch.float64)
        kernel = gpytorch.kernels.MaternKernel(2.5).double()
        kernel.lengthscale = 1.2
        covariance = kernel(x).to_dense().detach() + noise**2 * torch.eye(800, dtype=torch.float64)
        normal = torch.randn(800, generator=source, dtype=torch.float64)
        y = 10 + 3 * (torch.linalg.cholesky(covariance) @ normal)
        posterior = models.ExactGP().fit(x[:400], y[:400], seed=seed).predict(x[400:])
        squares.append(((y[400:] - posterior.mean).square() / posterior.variance).mean())
    assert float(torch.stack(squares).mean()) == pytest.approx(1.0, abs=0.05)


def test_the_sparse_process_with_all_points_is_the_exact_one(models, normal):
    x = normal(40, 1)
    y = torch.sin(2 * x[:, 0]) + 0.1 * normal(40)
    new = torch.linspace(-1.5, 1.5, 20, dtype=torch.float64)[:, None]
    exact = models.ExactGP().fit(x, y, seed=0).predict(new)
    sparse = models.SparseGP(points=40, steps=80).fit(x, y, seed=0).predict(new)
    torch.testing.assert_close(sparse.mean, exact.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(sparse.stddev, exact.stddev, rtol=0.25, atol=0)
