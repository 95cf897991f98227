"""Gradients of the objectives against closed forms on Gaussians, and what they do to bad input."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.flows.counted import Counted
from bayesmol.flows.objectives import ForwardKL, LogVariance, MixedKL, ReverseKL, forward_loss, path_loss
from bayesmol.flows.optimisation import Optimisation
from bayesmol.inference.random import generator


def test_path_gradient_is_that_of_the_reverse_divergence(affine, gaussian, gradient, reverse_divergence):
    flow = affine([0.1, 0.3], [0.2, -0.3])
    loss, _ = path_loss(flow, Counted(gaussian), 400_000, generator(1))
    want = gradient(reverse_divergence(flow.transform.shift, flow.transform.log_scale, gaussian), flow)
    torch.testing.assert_close(gradient(loss, flow), want, rtol=0.01, atol=0.01)


def test_path_gradient_of_every_draw_is_zero_at_the_optimum(affine, gaussian, gradient):
    flow = affine([0.5, -1.0], [math.log(0.7), math.log(1.5)])
    for seed in range(3):
        loss, log_weights = path_loss(flow, Counted(gaussian), 1, generator(seed))
        assert gradient(loss, flow).abs().max() < 1e-12
        assert log_weights.shape == (1,)


def test_path_gradient_at_a_higher_temperature(affine, gaussian, gradient):
    flow = affine([0.5, -1.0], [math.log(0.7 * 2**0.5), math.log(1.5 * 2**0.5)])
    loss, _ = path_loss(flow, Counted(gaussian), 5, generator(0), temperature=2.0)
    assert gradient(loss, flow).abs().max() < 1e-12


def test_forward_gradient_is_that_of_the_forward_divergence(affine, gaussian, gradient, forward_divergence):
    flow = affine([0.1, 0.3], [0.2, -0.3])
    loss = forward_loss(flow, gaussian.sample(400_000))
    want = gradient(forward_divergence(flow.transform.shift, flow.transform.log_scale, gaussian), flow)
    torch.testing.assert_close(gradient(loss, flow), want, rtol=0.01, atol=0.01)


def test_log_variance_has_the_gradient_of_the_reverse_divergence(affine, gaussian, gradient, reverse_divergence):
    flow = affine([0.1, 0.3], [0.2, -0.3])
    loss, _ = LogVariance(Optimisation(batch=400_000)).loss(flow, Counted(gaussian), {}, generator(1))
    want = gradient(reverse_divergence(flow.transform.shift, flow.transform.log_scale, gaussian), flow)
    torch.testing.assert_close(gradient(loss, flow), want, rtol=0.02, atol=0.02)
    exact = affine([0.5, -1.0], [math.log(0.7), math.log(1.5)])
    loss, share = LogVariance(Optimisation(batch=4)).loss(exact, Counted(gaussian), {}, generator(1))
    assert gradient(loss, exact).abs().max() < 1e-12 and float(share) == pytest.approx(1)


def test_weighted_loss_equals_that_of_replicated_data(normal, affine):
    flow, x = affine([0.1, 0.3], [0.2, -0.3]), normal(6, 2)
    counts = torch.tensor([3, 0, 1, 2, 1, 5])
    weighted = forward_loss(flow, x, counts * len(x) / counts.sum())
    torch.testing.assert_close(weighted, forward_loss(flow, x.repeat_interleave(counts, 0)))


@pytest.mark.parametrize("objective", [ReverseKL, LogVariance])
def test_energy_alone_finds_the_free_energy_of_a_gaussian(objective, affine, gaussian):
    flow = affine([0.0, 0.0], [0.0, 0.0])
    objective(Optimisation(steps=400, batch=128, rate=0.05)).fit(flow, gaussian, seed=0)
    with torch.no_grad():
        x, log_q = flow.sample(1000, seed=1)
    free = float((gaussian.reduced_energy(x) + log_q).mean())
    assert free == pytest.approx(-math.log(2 * math.pi * 0.7 * 1.5), abs=1e-3)


def test_maximum_likelihood_finds_moments_of_weighted_samples(affine, gaussian):
    flow, x = affine([0.0, 0.0], [0.0, 0.0]), gaussian.sample(2000)
    log_weights = 0.5 * x[:, 0]
    objective = ForwardKL(Optimisation(steps=500, batch=500, rate=0.05), held_out=0.0)
    training = objective.fit(flow, gaussian, x, log_weights, seed=0)
    weights = log_weights.softmax(0)
    torch.testing.assert_close(flow.transform.shift.detach(), weights @ x, atol=0.05, rtol=0)
    assert training.energy_evaluations == 0 and training.forward_ess == ()


def test_mixture_reports_forward_ess_of_held_out_samples(affine, gaussian):
    flow = affine([0.0, 0.0], [0.0, 0.0])
    settings = Optimisation(steps=200, batch=64, rate=0.05, checks=5)
    training = MixedKL(settings).fit(flow, gaussian, gaussian.sample(500), seed=0)
    assert [step for step, _ in training.forward_ess] == [40, 80, 120, 160, 200]
    assert training.forward_ess[-1][1] > 0.99 and training.reverse_ess[-1][1] > 0.99
    assert training.energy_evaluations == 200 * 64 + 50


class Walled:
    """A Gaussian without density, and without an energy, on one side."""

    dimension = 2

    def reduced_energy(self, x):
        energy = x.square().sum(1) / 2
        return torch.where(x[:, 0] > 0, energy, torch.inf * torch.ones_like(energy))


def test_infinite_energies_are_left_out(affine, gradient):
    flow = affine([0.5, 0.0], [0.0, 0.0])
    loss, log_weights = path_loss(flow, Counted(Walled()), 200, generator(0))
    assert bool(torch.isfinite(gradient(loss, flow)).all()) and bool((log_weights == -math.inf).any())
    training = ReverseKL(Optimisation(steps=20, batch=64)).fit(flow, Walled(), seed=0)
    assert training.skipped == 0


def test_no_finite_energy_is_an_error(affine):
    flow = affine([-50.0, 0.0], [0.0, 0.0])
    with pytest.raises(ConvergenceError, match="20 in a row"):
        ReverseKL(Optimisation(steps=50, batch=8)).fit(flow, Walled(), seed=0)


def test_bad_samples(affine, gaussian):
    flow = affine([0.0, 0.0], [0.0, 0.0])
    with pytest.raises(DataError, match="ConstrainedMassTransport"):
        ForwardKL().fit(flow, gaussian, seed=0)
    with pytest.raises(ShapeError, match="samples"):
        ForwardKL().fit(flow, gaussian, torch.zeros(5, 3), seed=0)
    with pytest.raises(DataError, match="finite"):
        ForwardKL().fit(flow, gaussian, torch.full((5, 2), math.nan), seed=0)
    with pytest.raises(DataError, match="forward, reverse"):
        MixedKL(forward=0.0, reverse=0.0)
    with pytest.raises(DataError, match="held_out"):
        MixedKL(held_out=1.0)


@pytest.mark.slow
def test_few_samples_and_the_energy_beat_either_alone():
    """A hundred samples alone are learned by heart, and the energy alone finds one of two wells."""
    from bayesmol.flows.couplings import Couplings
    from bayesmol.flows.model_densities import double_well
    from bayesmol.inference.importance import forward_effective_size

    target, lower = double_well(tilt=0.2, temperature=0.3), generator(5)
    grid = torch.linspace(-3, 3, 6001, dtype=torch.float64)
    chance = (-(0.2 * grid - 4 * grid**2 + grid**4) / 0.3).softmax(0)

    def exact(size):
        first = grid[torch.multinomial(chance, size, replacement=True, generator=lower)]
        second = torch.randn(size, generator=lower, dtype=torch.float64) * 0.3**0.5
        return torch.stack([first, second], 1)

    samples, test, found = exact(100), exact(5000), {}
    for forward, reverse in ((1.0, 0.0), (0.0, 1.0), (0.1, 1.0)):
        flow = Couplings(layers=2, width=32).build(torch.zeros(2, dtype=torch.bool), seed=0)
        settings = Optimisation(steps=300, batch=128, rate=5e-3)
        MixedKL(settings, forward, reverse, held_out=0.2).fit(flow, target, samples, seed=0)
        with torch.no_grad():
            log_q = flow.log_prob(test.float()).double()
        found[forward, reverse] = forward_effective_size(-target.reduced_energy(test) - log_q).fraction
    assert found[0.1, 1.0] > 2 * max(found[1.0, 0.0], found[0.0, 1.0])
