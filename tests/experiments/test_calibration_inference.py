"""Bayesian networks: weights in their places, and draws of a linear model against the closed form."""

import pytest
import torch

from bayesmol.inference.random import generator
from bayesmol.posterior import Draws


@pytest.fixture
def inference(study):
    return study("calibration_inference")


@pytest.mark.parametrize("units", [0, 3])
def test_weights_have_their_places(inference, normal, units):
    x = normal(5, 4)
    mean, scale = inference.prior(4, units)
    weights = normal(2, len(mean))
    found = inference.perceptron(weights, x, units, torch.tanh)
    for one, draw in zip(found, weights, strict=True):
        if units == 0:
            value = x @ draw[2:] + draw[1]
        else:
            hidden = torch.tanh(x @ draw[8:].reshape(4, 3) + draw[5:8])
            value = hidden @ draw[2:5] + draw[1]
        torch.testing.assert_close(one, value)
    assert mean.shape == scale.shape == (2 + 4 if units == 0 else 2 + 3 + 3 + 12,)


def test_outputs_have_unit_variance_a_priori(inference, source):
    mean, scale = map(torch.from_numpy, inference.prior(6, 16))
    weights = mean + scale * torch.randn(4000, len(mean), generator=source, dtype=torch.float64)
    x = torch.randn(50, 6, generator=source, dtype=torch.float64)
    variance = inference.perceptron(weights, x, 16, torch.tanh).var(0).mean()
    assert 1 < float(variance) < 3


def test_variational_inference(inference, normal):
    x = normal(150, 2)
    y = 4 + 3 * (x[:, 0] - 0.5 * x[:, 1] + 0.3 * normal(150))
    model = inference.Variational(units=0, steps=200)
    state = torch.random.get_rng_state()
    fitted = model.fit(x[:100], y[:100], seed=0, unit="eV")
    posterior = fitted.predict(x[100:])
    assert posterior.unit == "eV" and float(posterior.aleatoric.stddev.mean()) == pytest.approx(0.9, rel=0.25)
    design = torch.cat([x, torch.ones(150, 1).double()], 1)
    exact = design[100:] @ torch.linalg.lstsq(design[:100], y[:100]).solution
    torch.testing.assert_close(posterior.mean, exact, rtol=0, atol=0.4)
    assert torch.equal(model.fit(x[:100], y[:100], seed=0, unit="eV").predict(x[100:]).mean, posterior.mean)
    assert torch.equal(torch.random.get_rng_state(), state), "no global state"


@pytest.mark.slow
def test_draws_of_a_linear_model_agree_with_the_closed_form(inference, normal):
    """Means and variances of predictions within three Monte-Carlo standard errors."""
    x = normal(80, 3)
    y = x @ torch.tensor([1.0, -0.5, 0.0], dtype=torch.float64) + 0.2 + 0.5 * normal(80)
    new = torch.cat([normal(5, 3), torch.ones(5, 1).double()], 1)
    model = inference.Nuts(units=0, noise=0.5, rows=80, warmup=500, draws=1500, chains=2)
    weights = model.sample(x, y, generator(1))
    assert weights.shape == (2, 1500, 5) and bool((weights[..., 0] == torch.tensor(0.5).double().log()).all())
    design = torch.cat([x, torch.ones(80, 1).double()], 1)
    covariance = torch.linalg.inv(design.T @ design / 0.25 + torch.eye(4).double())
    mean = new @ covariance @ design.T @ y / 0.25
    variance = (new @ covariance * new).sum(1)
    drawn = weights[..., 2:] @ new[:, :3].T + weights[..., 1:2]
    for values, exact in ((drawn, mean), ((drawn - mean).square(), variance)):
        found = Draws(values, unit="").expectation()
        assert bool(((found.value - exact).abs() < 3 * found.standard_error).all())


@pytest.mark.slow
def test_draws_of_a_network(inference, normal):
    x = normal(150, 2)
    y = 3 * torch.sin(2 * x[:, 0]) + 0.6 * normal(150)
    model = inference.Nuts(units=6, rows=120, warmup=150, draws=100)
    posterior = model.fit(x[:120], y[:120], seed=0, unit="K").predict(x[120:])
    assert posterior.unit == "K" and len(posterior.means) == model.kept
    errors = y[120:] - posterior.mean
    assert float(errors.square().mean()) < 1 and 0.4 < float((errors.square() / posterior.variance).mean()) < 2
    again = model.fit(x[:120], y[:120], seed=0, unit="K").predict(x[120:])
    assert torch.equal(again.mean, posterior.mean), "same seed, same result"
