"""The no-U-turn sampler on a linear model against its closed form; 64 bits, local; wrong gradients are found."""

import jax
import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.nuts import _check_gradient, nuts
from bayesmol.inference.simulation import simulated_ranks
from bayesmol.posterior import Draws

NOISE = 0.5


def density(vector, data):
    """Linear model with unit prior."""
    residuals = (data["targets"] - data["design"] @ vector) / NOISE
    return -0.5 * (residuals**2).sum() - 0.5 * (vector**2).sum()


def example(normal, rows=40, weights=4):
    design = normal(rows, weights)
    targets = design @ normal(weights) + NOISE * normal(rows)
    covariance = torch.linalg.inv(design.T @ design / NOISE**2 + torch.eye(weights))
    return {"design": design, "targets": targets}, covariance @ design.T @ targets / NOISE**2, covariance


def test_linear_model_is_the_closed_form(normal):
    """Mean and second moments within three standard errors of the Monte-Carlo estimate, 14 numbers together."""
    data, mean, covariance = example(normal)
    options = {"data": data, "warmup": 300, "draws": 500}
    before = jax.config.jax_enable_x64
    chains = nuts(density, normal(2, 4), seed=0, **options)
    assert jax.config.jax_enable_x64 == before
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), (chains.values - mean).mT, upper=False).mT
    first, second = torch.tril_indices(4, 4)
    moments = torch.cat([white, white[..., first] * white[..., second]], -1)
    wanted = torch.cat([torch.zeros(4), (first == second).double()])
    estimate = Draws(moments, unit="").expectation()
    assert float(((estimate.value - wanted) / estimate.standard_error).abs().max()) < 3
    assert chains.divergences == 0 and float(chains.r_hat.max()) < 1.05
    assert float(chains.effective_sample_size.min()) > 300 and chains.gradients > 1600
    assert chains.values.dtype == torch.float64
    assert torch.equal(
        nuts(density, normal(2, 4).zero_(), seed=1, **options).values.isfinite().all(), torch.tensor(True)
    )
    start = normal(2, 4)
    again = [nuts(density, start, seed=2, **options).values for _ in range(2)]
    assert torch.equal(*again)


def broken(vector, data):
    """A value whose derivative JAX is told wrongly."""
    return density(vector, data) + 5 * (vector**2).sum() - jax.lax.stop_gradient(5 * (vector**2).sum())


def mode(vector, data):
    """A density that is one at its mode: value and gradient are zero there."""
    return -0.5 * (vector**2).sum()


def infinite(vector, data):
    return jax.numpy.log(-(vector**2).sum())


def test_bad_input_is_named(normal):
    data, _, _ = example(normal)
    with pytest.raises(DataError, match="derivative"):
        nuts(broken, normal(1, 4), data=data, seed=0)
    with pytest.raises(DataError, match="finite"):
        nuts(infinite, normal(1, 4), data=data, seed=0)
    with pytest.raises(ShapeError, match="start"):
        nuts(density, normal(4), data=data, seed=0)


def wells(vector, data):
    """Two wells eight deviations apart in the first parameter."""
    return jax.numpy.logaddexp(-0.5 * (vector[0] - 4) ** 2, -0.5 * (vector[0] + 4) ** 2) - 0.5 * vector[1] ** 2


def test_a_start_at_the_mode_has_a_right_gradient():
    with jax.enable_x64(True):
        for place in (0.0, 1e-17, 1e-3, 10.0, 1e6):
            _check_gradient(mode, jax.numpy.full(3, place), None)


@pytest.mark.slow
def test_chains_that_disagree_are_an_error():
    start = torch.tensor([[4.0, 0.0], [-4.0, 0.0]]).double()
    options = {"warmup": 100, "draws": 200, "seed": 0}
    with pytest.raises(ConvergenceError, match="R-hat"):
        nuts(wells, start, **options)
    chains = nuts(wells, start, limit=None, **options)
    assert float(chains.r_hat[0]) > 1.5 > float(chains.r_hat[1])
    assert nuts(wells, start, monitor=lambda vector: vector[1:], limit=1.1, **options).values.shape == (2, 200, 2)


@pytest.mark.slow
def test_simulation_based_calibration(normal):
    design = normal(10, 2)

    def posterior(targets, source):
        data = {"design": design, "targets": targets}
        return nuts(
            density, torch.zeros(1, 2).double(), data=data, warmup=150, draws=150, limit=None, seed=source
        ).values

    ranks = simulated_ranks(
        lambda source: torch.randn(2, generator=source, dtype=torch.float64),
        lambda vector, source: design @ vector + NOISE * torch.randn(10, generator=source, dtype=torch.float64),
        posterior,
        simulations=120,
        draws=15,
        seed=0,
    )
    assert ranks.p_value > 0.01
