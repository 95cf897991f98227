"""Langevin dynamics: exact on normal posteriors with all data, the stated excess with batches, several modes."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.langevin import StochasticHamiltonian
from bayesmol.inference.simulation import simulated_ranks
from bayesmol.inference.targets import NormalPrior, Target


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_linear_model_with_all_data_is_exact_at_any_step(linear, momentum):
    model = linear(weights=4)
    spec = StochasticHamiltonian(step=0.6, momentum=momentum, warmup=100, draws=500, thin=2)
    chains = spec.fit(model.target, model.mean, scales=model.precision.diagonal().rsqrt(), seed=0)
    estimate = chains.draws().expectation()
    gap = (estimate.value - model.mean) / estimate.standard_error
    assert float(gap.abs().max()) < 4
    assert float(chains.r_hat.max()) < 1.05
    flat = chains.values.flatten(0, 1)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(model.covariance), (flat - model.mean).T, upper=False)
    squares = white.square().reshape(-1, *chains.values.shape[:2]).permute(1, 2, 0)
    error = squares.var((0, 1)) / (chains.effective_sample_size.min() / 2)
    assert float(((squares.mean((0, 1)) - 1) / error.sqrt()).abs().max()) < 4


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_batches_widen_as_stated(source, momentum):
    """Data whose log-likelihood is linear: the noise of the gradient does not depend on the place."""
    size, parameters, step = 4000, 100, 0.3
    slopes = torch.randn(size, parameters, generator=source, dtype=torch.float64)
    variance = 20.0 if momentum == 0 else 1.2
    slopes = (slopes - slopes.mean(0)) / slopes.std(0, correction=0) * variance**0.5 / size
    prior = NormalPrior.centred(torch.ones(parameters).double())
    target = Target(lambda vector, rows: (slopes[rows] @ vector).sum(), prior, size, 1)
    spec = StochasticHamiltonian(step, momentum, warmup=100, draws=900, thin=2, chains=1)
    found = spec.fit(target, torch.zeros(parameters).double(), seed=0).values.square().mean()
    friction = math.inf if momentum == 0 else -math.log(momentum) / step
    excess = step**2 * variance / 4 if momentum == 0 else step * variance / (2 * friction)
    assert float(found) == pytest.approx(1 + excess, rel=0.07)


def test_cycles_cross_barriers_more_often():
    """Twenty pairs of wells: as many steps, and the same short ones at the end of each cycle."""
    prior = NormalPrior(torch.zeros(20).double(), torch.full((20,), 0.5).double())

    def wells(vector, rows):
        both = torch.logaddexp(-2 * (vector - 1.2).square(), -2 * (vector + 1.2).square())
        return both.sum() - prior.log_density(vector)

    crossings = []
    for step, cycle in ((0.08, None), (0.8, 50)):
        spec = StochasticHamiltonian(step, 0.7, warmup=0, draws=75, thin=5 if cycle else 10, chains=1, cycle=cycle)
        positive = spec.fit(Target(wells, prior, 1), torch.full((20,), 1.2).double(), seed=1).values > 0
        crossings.append(int((positive[0, 1:] != positive[0, :-1]).sum()))
    assert crossings[1] >= 30 and crossings[1] > 2 * crossings[0]


def test_cycles_shrink_the_step_and_draw_late():
    lengths, kept = StochasticHamiltonian(step=1.0, draws=4, warmup=20, thin=5, cycle=20)._schedule()
    assert lengths[0] == pytest.approx(1.0) and min(lengths) >= 0.1 and lengths[20] == lengths[0]
    places = [k for k, keep in enumerate(kept) if keep]
    assert len(places) == 4 and all(k >= 20 and k % 20 >= 10 for k in places)


def test_same_seed_same_draws_and_nothing_global(linear):
    model = linear(rows=30, batch=7)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    spec = StochasticHamiltonian(step=0.02, warmup=5, draws=4, thin=2)
    first, second, other = (spec.fit(model.target, model.mean, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.values, second.values) and not torch.equal(first.values, other.values)
    assert torch.equal(torch.get_rng_state(), before)
    assert first.values.shape == (2, 4, 5) and first.gradients == 2 * (5 + 8 + 1)


def test_bad_input_is_named(linear):
    model = linear()
    with pytest.raises(ConvergenceError, match="step"):
        spec = StochasticHamiltonian(step=50.0, momentum=0.5, warmup=0, draws=50, thin=20)
        spec.fit(model.target, model.mean, seed=0)
    with pytest.raises(DataError, match="momentum"):
        StochasticHamiltonian(momentum=1.0)
    with pytest.raises(DataError, match="draws"):
        StochasticHamiltonian(draws=0)
    with pytest.raises(DataError, match="cycle"):
        StochasticHamiltonian(cycle=10, thin=20)
    with pytest.raises(ShapeError, match="start"):
        StochasticHamiltonian().fit(model.target, torch.zeros(3, 5).double(), seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("share", [None, 6])
def test_simulation_based_calibration(normal, share):
    """With all data, and with batches and a step that is short enough."""
    design = normal(24, 2)
    prior = NormalPrior.centred(torch.ones(2).double())
    scales = (design.square().sum(0) + 1).rsqrt()

    def posterior(targets, source):
        def likelihood(vector, rows):
            return -0.5 * (targets[rows] - design[rows] @ vector).square().sum()

        step, momentum, thin = (0.5, 0.7, 12) if share is None else (0.15, 0.85, 20)
        spec = StochasticHamiltonian(step, momentum, warmup=100, draws=60, thin=thin, chains=1)
        return spec.fit(
            Target(likelihood, prior, 24, share), torch.zeros(2).double(), scales=scales, seed=source
        ).values

    ranks = simulated_ranks(
        lambda source: prior.sample(1, seed=source)[0],
        lambda vector, source: design @ vector + torch.randn(24, generator=source, dtype=torch.float64),
        posterior,
        simulations=60,
        draws=11,
        seed=0,
    )
    assert ranks.p_value > 0.01
