"""Variational posteriors of linear models against their closed forms; nothing global is touched."""

import math

import pyro
import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.simulation import simulated_ranks
from bayesmol.inference.svi import Variational
from bayesmol.inference.targets import NormalPrior, Target


def dense(posterior):
    return posterior.covariance(torch.eye(len(posterior.mean), dtype=torch.float64))


def close(model, fit, covariance, tolerance):
    deviations = covariance.diagonal().sqrt()
    gap = (fit.posterior.mean - model.mean) / deviations
    torch.testing.assert_close(gap, torch.zeros_like(gap), rtol=0, atol=tolerance)
    got, want = (part / deviations / deviations[:, None] for part in (dense(fit.posterior), covariance))
    torch.testing.assert_close(got, want, rtol=0, atol=2 * tolerance)


def near(model):
    """A start half a deviation off, and scales, as a trained network has them."""
    deviations = model.precision.diagonal().rsqrt()
    return {"start": model.mean + 0.5 * deviations, "scales": deviations, "seed": 0}


def test_dense_is_the_conjugate_posterior(linear):
    model = linear(weights=4)
    fit = Variational("dense", steps=300, rate=0.1, initial=0.3).fit(model.target, **near(model))
    close(model, fit, model.covariance, 0.02)
    # At the exact posterior every draw gives the evidence, up to the constant of the likelihood.
    kernel = model.design * model.scale.square() @ model.design.T + model.noise**2 * torch.eye(60)
    law = torch.distributions.MultivariateNormal(torch.zeros(60).double(), kernel)
    evidence = law.log_prob(model.targets) + 60 * math.log(model.noise * (2 * math.pi) ** 0.5)
    torch.testing.assert_close(fit.bound[-50:].mean(), evidence, rtol=0, atol=0.01)
    assert float(fit.bound[-50:].std()) < 0.02


def test_diagonal_has_the_inverse_diagonal_of_the_precision(linear):
    model = linear(weights=4)
    fit = Variational("diagonal", steps=300, rate=0.1, draws=2, initial=0.3).fit(model.target, **near(model))
    expected = torch.diag(1 / model.precision.diagonal())
    assert bool((expected.diagonal() < model.covariance.diagonal()).all())
    close(model, fit, expected, 0.1)
    torch.testing.assert_close(fit.posterior.stddev, expected.diagonal().sqrt(), rtol=0.05, atol=0)


def test_nothing_global_is_touched_and_a_seed_says_all(linear):
    model, start = linear(rows=20, weights=3, batch=7), torch.zeros(3).double()
    pyro.get_param_store().clear()
    pyro.param("mean", torch.tensor(5.0))
    torch.manual_seed(3)
    before = torch.get_rng_state()
    spec = Variational("low-rank", rank=2, steps=5)
    fits = [spec.fit(model.target, start, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store().keys()) == ["mean"] and float(pyro.param("mean").detach()) == 5.0
    pyro.get_param_store().clear()
    assert torch.equal(dense(fits[0].posterior), dense(fits[1].posterior))
    assert not torch.equal(dense(fits[0].posterior), dense(fits[2].posterior))


def test_bad_input_is_named(linear):
    model = linear(rows=20, weights=3)
    with pytest.raises(DataError, match="covariance"):
        Variational("full")
    with pytest.raises(DataError, match="steps"):
        Variational(steps=0)
    with pytest.raises(ShapeError, match="start"):
        Variational().fit(model.target, torch.zeros(4).double(), seed=0)
    broken = Target(lambda vector, rows: vector.sum() * math.nan, model.target.prior, 20)
    with pytest.raises(ConvergenceError, match="bound"):
        Variational(steps=2).fit(broken, torch.zeros(3).double(), seed=0)


@pytest.mark.slow
def test_an_untrained_start_and_no_scales_end_at_the_same_place(linear):
    model = linear(weights=4)
    fit = Variational("dense", steps=2500, rate=0.1).fit(model.target, torch.zeros(4).double(), seed=0)
    close(model, fit, model.covariance, 0.02)
    assert float(fit.bound[-50:].std()) < 0.02


@pytest.mark.slow
def test_low_rank_of_full_rank_and_batches_are_near(linear):
    model = linear(weights=4, batch=20)
    fit = Variational("low-rank", rank=4, steps=2500, rate=0.03, draws=2, initial=0.3).fit(model.target, **near(model))
    close(model, fit, model.covariance, 0.15)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["dense", "diagonal"])
def test_simulation_based_calibration(normal, form):
    """Dense passes; diagonal is too narrow on correlated weights and fails."""
    design = normal(12, 2) @ torch.tensor([[1.0, 0.95], [0.95, 1.0]]).double()
    prior = NormalPrior.centred(torch.ones(2).double())

    def posterior(targets, source):
        def likelihood(vector, rows):
            return -0.5 * (targets[rows] - design[rows] @ vector).square().sum()

        spec, start = Variational(form, steps=250, rate=0.2, initial=0.3), torch.zeros(2).double()
        fit = spec.fit(Target(likelihood, prior, 12), start, scales=torch.full_like(start, 0.3), seed=source)
        return fit.posterior.sample(15, seed=source)

    ranks = simulated_ranks(
        lambda source: prior.sample(1, seed=source)[0],
        lambda vector, source: design @ vector + torch.randn(12, generator=source, dtype=torch.float64),
        posterior,
        simulations=60,
        draws=15,
        seed=0,
    )
    assert (ranks.p_value > 0.01) if form == "dense" else (ranks.p_value < 0.001)
