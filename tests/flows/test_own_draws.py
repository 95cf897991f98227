"""A flow learns from samples and its own draws, and no row by heart."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.objectives import ForwardKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.own_draws import balanced_loss, mean_one, mixed, own_draws, remembered, settled
from bayesmol.flows.renewal import RenewedKL
from bayesmol.flows.steering import TemperatureSteering
from bayesmol.flows.unfolding import UnfoldedKL

CIRCULAR = torch.zeros(2, dtype=torch.bool)


def normal_density(width):
    return BoltzmannDensity(lambda x: (x / width).square().sum(1) / 2, 2)


def test_weights_make_draws_of_a_broad_flow_draws_of_the_target(source):
    flow, width = Couplings(layers=0).build(CIRCULAR, seed=0), 0.7
    found = own_draws(flow, normal_density(width), 40_000, source)
    spread = (found["own_weights"][:, None] * found["own_x"].square()).mean(0).sqrt()
    torch.testing.assert_close(spread.double(), torch.full((2,), width).double(), rtol=0.03, atol=0)
    exact = -found["own_x"].square().sum(1) / 2 - math.log(2 * math.pi)
    torch.testing.assert_close(found["own_log_pi"].float(), exact, rtol=1e-5, atol=1e-5)


def test_weights_have_mean_one_in_each_group():
    log_weights = torch.tensor([[0.0, math.log(3.0), -math.inf, math.nan], [-math.inf] * 4]).double()
    torch.testing.assert_close(mean_one(log_weights), torch.tensor([[1.0, 3.0, 0.0, 0.0], [0.0] * 4]).double())


def test_gradient_is_that_of_the_forward_divergence(affine, gaussian, gradient, forward_divergence):
    old, exact = affine([0.4, -0.8], [-0.2, 0.55]), affine([0.5, -1.0], [math.log(0.7), math.log(1.5)])
    flow = affine([0.4, -0.8], [math.log(0.6), math.log(1.4)])
    want = gradient(forward_divergence(flow.transform.shift, flow.transform.log_scale, gaussian), flow)
    source, size = torch.Generator().manual_seed(0), 400_000
    x, own = exact.sample(size, seed=source)[0].detach(), own_draws(old, gaussian, size, source)
    rows = torch.cat([x, own["own_x"]])
    weights = torch.cat([torch.ones(size).double(), own["own_weights"]])
    log_pi = torch.cat([7.0 - gaussian.reduced_energy(x).double(), own["own_log_pi"]])
    found = gradient(balanced_loss(flow.log_prob(rows), weights, log_pi, size), flow)
    torch.testing.assert_close(found, want, rtol=0.03, atol=0.01)
    found = gradient(balanced_loss(flow.log_prob(x), weights[:size], log_pi[:size], size), flow)
    torch.testing.assert_close(found, want, rtol=0.03, atol=0.01)


def test_no_force_on_any_row_where_the_flow_is_right(normal):
    log_q = (-normal(40, 2).square().sum(1) / 2).requires_grad_()
    half = log_q.detach()
    log_pi = torch.cat([half[:25] + 3.0, half[25:] + 0.5])
    weights = torch.cat([torch.full((25,), 0.7).double(), torch.full((15,), math.exp(-0.5)).double()])
    loss = balanced_loss(log_q, weights, log_pi, 25)
    (force,) = torch.autograd.grad(loss, log_q)
    assert float(force.abs().max()) < 1e-8
    assert float(loss.detach()) == pytest.approx(float(-0.7 * half[:25].mean()))


def test_a_row_without_density_has_no_say(normal):
    log_q, log_pi = normal(10).requires_grad_(), normal(10)
    log_pi[3] = -math.inf
    (force,) = torch.autograd.grad(balanced_loss(log_q, torch.ones(10).double(), log_pi, 8), log_q)
    assert float(force[3]) == 0 and bool(torch.isfinite(force).all()) and float(force.abs().sum()) > 0


def test_batches_are_mixed_by_the_share(source):
    samples = {"x": torch.zeros(50, 1), "weights": torch.full((50,), 2.0)}
    own = {"own_x": torch.ones(70, 1), "own_weights": torch.full((70,), 0.25)}
    count, (x, weights) = mixed(samples, own, 0.3, 1000, source)
    assert count == 700 and float(x.sum()) == float(x[700:].sum()) == 300
    torch.testing.assert_close(weights, torch.where(x[:, 0] == 1, 0.25, 2.0))
    count, (x, weights) = mixed(samples, {}, 0.3, 1000, source)
    assert count == len(x) == 1000 and not x.any()


def test_draws_of_ten_rounds_are_remembered():
    data = {"x": torch.zeros(3)}
    for turn in range(14):
        data = remembered(data, {"own_x": torch.full((5, 2), float(turn)), "own_log_pi": torch.zeros(5)})
    assert data["own_x"].unique().tolist() == [float(turn) for turn in range(4, 14)] and len(data["x"]) == 3


def test_draws_out_of_all_bounds_are_left_out(source):
    x, log_q = torch.ones(6, 2), torch.zeros(6)
    x[0, 1], log_q[2], log_q[4], log_q[5] = math.nan, -math.inf, -1e6, -100.0
    x, log_q = settled(x, log_q)
    assert bool(torch.isfinite(x).all()) and torch.isfinite(log_q).tolist() == [False, True, False, True, False, True]
    data = remembered({}, {"own_x": x, "own_log_pi": log_q, "own_weights": torch.arange(6.0)})
    assert data["own_weights"].tolist() == [1.0, 3.0, 5.0]
    none = remembered({}, {"own_x": x[:1], "own_log_pi": log_q[:1]})
    assert mixed({"x": torch.zeros(5, 2)}, none, 0.5, 8, source)[0] == 8
    with pytest.raises(ConvergenceError, match="lower the rate"):
        settled(x * math.nan, log_q)


def _surprise(objective, samples, fresh):
    flow = Couplings(layers=2, width=32, bins=8).build(CIRCULAR, seed=0)
    objective.fit(flow, normal_density(1.0), samples, seed=0)
    return -float(flow.log_prob(fresh).detach().mean())


def test_few_samples_that_do_not_move_are_not_learned_by_heart(normal):
    few, fresh = normal(60, 2).float(), normal(5000, 2).float()
    settings = Optimisation(steps=240, batch=64, rate=1e-2, checks=1)
    objectives = {
        "likelihood": ForwardKL(settings, held_out=0.0),
        "draws": RenewedKL(settings, held_out=0.0, moved=1, drawn=256),
    }
    least = math.log(2 * math.pi * math.e)
    found = {name: _surprise(objective, few, fresh) - least for name, objective in objectives.items()}
    assert found["draws"] < found["likelihood"] / 4


@pytest.mark.parametrize("kind", [RenewedKL, TemperatureSteering, UnfoldedKL])
def test_bad_shares(kind):
    with pytest.raises(DataError, match="own"):
        kind(own=1.0)
