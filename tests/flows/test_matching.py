"""The divergence on draws of an earlier flow: mean, zero variance at the optimum, and draws for weights."""

import math

import pytest
import torch

from bayesmol.flows.counted import Counted
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.matching import Drawn, annealed_draws, drawn, matching_loss, stage
from bayesmol.flows.model_densities import double_well
from bayesmol.inference.importance import effective_size
from bayesmol.inference.random import generator


def staged(flow, target, size, seed=0):
    draws = drawn(flow, Counted(target), size, 0.2, generator(seed))
    return draws, stage(draws, -draws.energy)


def test_gradient_is_that_of_the_forward_divergence(affine, gaussian, gradient, forward_divergence):
    old = affine([0.2, -0.6], [0.0, 0.1])
    _, data = staged(old, gaussian, 400_000)
    flow = affine([0.3, -0.5], [0.1, 0.0])
    want = gradient(forward_divergence(flow.transform.shift, flow.transform.log_scale, gaussian), flow)
    loss = matching_loss(flow, data, 400_000, 1e9, generator(1))
    torch.testing.assert_close(gradient(loss, flow), want, rtol=0.03, atol=0.03)


def test_no_noise_where_the_flow_is_right(affine, gaussian, gradient):
    old, exact = affine([0.2, -0.6], [0.0, 0.1]), affine([0.5, -1.0], [math.log(0.7), math.log(1.5)])
    draws, data = staged(old, gaussian, 200)
    constant = math.log(2 * math.pi * 0.7 * 1.5)  # the weights of few draws know it only roughly
    data["weights"] = (-draws.energy - constant - draws.log_pi).exp()
    loss = matching_loss(exact, data, 50, 1e9, generator(0))
    assert gradient(loss, exact).abs().max() < 1e-12 and float(loss.detach()) == pytest.approx(0, abs=1e-12)
    other = matching_loss(affine([0.4, -1.0], [0.0, 0.0]), data, 50, 1e9, generator(0))
    assert float(other.detach()) > 0


def test_clipped_weights_pull_nowhere_at_the_optimum(affine, gaussian, gradient):
    old, exact = affine([0.0, 0.0], [0.5, 0.5]), affine([0.5, -1.0], [math.log(0.7), math.log(1.5)])
    draws, data = staged(old, gaussian, 200)
    data["weights"] = (-draws.energy - math.log(2 * math.pi * 0.7 * 1.5) - draws.log_pi).exp()
    assert data["weights"].max() > 1
    assert gradient(matching_loss(exact, data, 50, 1.0, generator(0)), exact).abs().max() < 1e-12


def test_densities_of_the_draws(affine, gaussian):
    flow = affine([0.2, -0.6], [0.1, 0.6])
    draws, data = staged(flow, gaussian, 20_000)
    assert float((draws.log_q - draws.log_pi).exp().mean()) == pytest.approx(1, abs=0.02)
    torch.testing.assert_close(draws.log_q, flow.log_prob(draws.x).detach())
    x, log_q = flow.sample(20_000, seed=3)
    plain = effective_size((-gaussian.reduced_energy(x) - log_q).detach()).fraction
    assert float(data["reverse_ess"]) == pytest.approx(plain, rel=0.05)
    assert float(data["weights"].mean()) == pytest.approx(1)


def test_rows_without_density_have_no_weight():
    x = torch.zeros(3, 1)
    draws = Drawn(x, torch.zeros(3), torch.zeros(3), torch.tensor([0.0, torch.inf, 0.0]))
    data = stage(draws, -draws.energy)
    assert data["weights"].tolist() == [1.5, 0.0, 1.5]


def test_annealed_draws_are_of_the_target_and_not_of_the_flow():
    density = double_well()
    flow = Couplings(layers=0).build(torch.zeros(2, dtype=torch.bool), seed=0)
    rows = annealed_draws(flow, Counted(density), 1024, generator(0))
    assert rows.shape == (1024, 2)
    share = float((density.states(rows) == 0).double().mean())
    assert share == pytest.approx(density.known().populations[0], abs=0.06)
