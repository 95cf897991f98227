"""Hidden Markov models against the chains that made the data, and against Bayes' theorem by NUTS."""

import math

import pytest
import torch

from bayesmol.data.exact_chains import MarkovChain
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.hidden_markov_model import HiddenMarkovModel
from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.testing import assert_calibrated

T = torch.tensor([[0.94, 0.05, 0.01], [0.06, 0.91, 0.03], [0.02, 0.05, 0.93]]).double()
B = torch.tensor([[0.8, 0.1, 0.05, 0.05], [0.1, 0.75, 0.1, 0.05], [0.05, 0.05, 0.5, 0.4]]).double()
CHAIN = MarkovChain(T)


def symbols(states, seed=1):
    return torch.multinomial(B[states], 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def features(states, seed=1):
    noise = torch.randn(len(states), 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([3.0 * states, torch.zeros(len(states))], 1).double() + noise


@pytest.fixture(scope="module")
def states():
    return CHAIN.simulate(6000, seed=0).parts[0]


@pytest.fixture(scope="module")
def model(states):
    return HiddenMarkovModel(3, lag=2, draws=200, starts=2).fit(symbols(states), seed=0)


@pytest.fixture(scope="module")
def gaussian(states):
    return HiddenMarkovModel(3, lag=2, emissions="gaussian", draws=200, starts=2).fit(features(states), seed=0)


@pytest.mark.parametrize("name", ["model", "gaussian"])
def test_intervals_hold_what_is_known(name, request):
    fitted = request.getfixturevalue(name)
    assert bool(fitted.timescales(2).interval(0.999).contains(CHAIN.timescales(2)).all())
    order = CHAIN.stationary.argsort(descending=True)
    assert bool(fitted.stationary().interval(0.999).contains(CHAIN.stationary[order]).all())
    twice = (T @ T)[order][:, order]
    assert bool(fitted.posterior(lambda m: m.transition.transition).interval(0.999).contains(twice).all())
    away = torch.linalg.solve(torch.eye(2).double() - twice[:2, :2], torch.full((2,), 2.0).double())[0]
    assert bool(fitted.mean_first_passage_time([0], [2]).interval(0.999).contains(away))
    assert bool(fitted.lifetimes().interval(0.999).contains(-2 / twice.diagonal().log()).all())
    laws = fitted.emissions()
    if name == "model":
        assert bool(laws["probabilities"].interval(0.999).contains(B[order]).all())
    else:
        means = torch.stack([3.0 * order, 0 * order], 1).double()
        assert bool(laws["means"].interval(0.999).contains(means).all())
        assert bool(laws["covariances"].interval(0.999).contains(torch.eye(2).double().expand(3, 2, 2)).all())


@pytest.mark.parametrize("name", ["model", "gaussian"])
def test_every_draw_is_stochastic_and_reversible(name, request):
    draws = request.getfixturevalue(name).draws
    matrices, populations = draws.transition.transition, draws.transition.stationary
    flows = populations[..., None] * matrices
    assert float((matrices.sum(-1) - 1).abs().max()) < 1e-12
    assert float((flows - flows.mT).abs().max()) < 1e-12
    assert float((draws.initial.sum(1) - 1).abs().max()) < 1e-12


def test_states_of_frames(gaussian, states):
    x = features(states)
    names = CHAIN.stationary.argsort(descending=True)
    (path,), (share,) = gaussian.paths(x), gaussian.probabilities(x)
    assert float((names[path] == states).double().mean()) > 0.93
    assert torch.allclose(share.sum(1), torch.ones(len(states)).double())
    sure = share.max(1)
    right = (names[sure.indices] == states).double()
    assert float(right.mean()) == pytest.approx(float(sure.values.mean()), abs=0.01)


def test_the_likelihood_is_the_mean_over_the_chains(gaussian, states):
    x = features(states)
    halves = [
        HiddenMarkovModel(3, emissions="gaussian").problem(Trajectories.of(x[s::2]), gaussian.family) for s in (0, 1)
    ]
    wanted = sum(float(half.paths(gaussian.estimate).predictive.sum()) for half in halves) / 2
    assert gaussian.log_likelihood(x) == pytest.approx(wanted)
    assert gaussian.log_likelihood([x[:100], x[100:250]]) < 0


def test_units_of_time(states):
    x = symbols(states[:2000])
    spec = HiddenMarkovModel(2, draws=20, starts=1)
    fitted, plain = (spec.fit(one, seed=0) for one in (Trajectories.of(x, time_step=0.2, unit="ns"), x))
    assert fitted.timescales().unit == fitted.lifetimes().unit == "ns"
    for name in ("timescales", "lifetimes"):
        assert torch.allclose(getattr(fitted, name)().mean, 0.2 * getattr(plain, name)().mean)
    times = fitted.mean_first_passage_time([0], [1]).mean, 0.2 * plain.mean_first_passage_time([0], [1]).mean
    assert torch.allclose(*times)


def test_units_of_features(states):
    spec = HiddenMarkovModel(2, emissions="gaussian", draws=20, starts=1)
    x = features(states[:2000])
    plain, scaled = spec.fit(x, seed=0), spec.fit(1000 * x + 7, seed=0)
    assert torch.allclose(scaled.timescales().mean, plain.timescales().mean, rtol=1e-3)
    assert torch.allclose(scaled.emissions()["means"].mean, 1000 * plain.emissions()["means"].mean + 7, rtol=1e-3)
    lower = scaled.log_likelihood(1000 * x + 7) + 2 * 2000 * math.log(1000)
    assert lower == pytest.approx(plain.log_likelihood(x), rel=1e-6)


def test_bad_input(model, states):
    with pytest.raises(DataError, match="at least two states"):
        HiddenMarkovModel(1)
    with pytest.raises(DataError, match="emissions"):
        HiddenMarkovModel(2, emissions="poisson")
    with pytest.raises(DataError, match="pseudocount"):
        HiddenMarkovModel(2, pseudocount=0.0)
    with pytest.raises(DataError, match="features for gaussian"):
        HiddenMarkovModel(2, emissions="gaussian").fit(states, seed=0)
    with pytest.raises(DataError, match="lag of 50"):
        HiddenMarkovModel(2, lag=50).fit([states, states[:30]], seed=0)
    with pytest.raises(DataError, match="different states"):
        HiddenMarkovModel(2).fit(torch.zeros(100, dtype=torch.int64), seed=0)
    with pytest.raises(ConvergenceError, match="at least"):
        HiddenMarkovModel(2, draws=10, starts=1).fit(torch.tensor([0, 1]).repeat_interleave(50).repeat(2), seed=0)
    with pytest.raises(DataError, match="count"):
        model.timescales(3)
    with pytest.raises(DataError, match="occur"):
        model.paths(torch.tensor([0, 1, 9, 0]))
    with pytest.raises(ShapeError):
        HiddenMarkovModel(2, emissions="gaussian", draws=10).fit([torch.zeros(5, 2), torch.zeros(5, 3)], seed=0)


def test_a_state_with_a_single_value(states):
    x = torch.where(states == 2, 5.0, features(states)[:, 0])[:, None]
    with pytest.raises(ConvergenceError, match="single value"):
        HiddenMarkovModel(3, emissions="gaussian", draws=10).fit(x, seed=0)


def log_density(place, x):
    """Posterior of two states and three symbols in logits; the prior is one frame a state, spread evenly."""
    import jax
    from jax import numpy as jnp

    matrix = jax.nn.log_softmax(jnp.stack([jnp.stack([0.0, place[0]]), jnp.stack([place[1], 0.0])]))
    law = jax.nn.log_softmax(jnp.concatenate([jnp.zeros((2, 1)), place[2:].reshape(2, 2)], 1))

    def step(last, symbol):
        moved = jax.nn.logsumexp(last[:, None] + matrix, 0) + law[:, symbol]
        return moved, None

    last = jax.lax.scan(step, jnp.log(0.5) + law[:, x[0]], x[1:])[0]
    return jax.nn.logsumexp(last) + matrix.sum() / 2 + law.sum() / 3


@pytest.mark.slow
def test_bayes_theorem_agrees():
    """At lag 1, with data of the model itself, the posterior is that of NUTS."""
    from bayesmol.inference.nuts import nuts

    chain = MarkovChain(torch.tensor([[0.92, 0.08], [0.14, 0.86]]).double())
    law = torch.tensor([[0.75, 0.2, 0.05], [0.1, 0.2, 0.7]]).double()
    hidden = chain.simulate(4000, seed=0).parts[0]
    x = torch.multinomial(law[hidden], 1, generator=torch.Generator().manual_seed(1))[:, 0]
    fitted = HiddenMarkovModel(2, draws=2000).fit(x, seed=0)
    matrix, found = fitted.transition_matrix, fitted.estimate.emissions.probabilities[0]
    start = torch.cat([(matrix[0, 1] / matrix[0, 0]).log()[None], (matrix[1, 0] / matrix[1, 1]).log()[None]])
    start = torch.cat([start, (found[:, 1:] / found[:, :1]).log().flatten()])
    exact = nuts(log_density, start[None], data=x, warmup=200, draws=600, limit=None, seed=0).values[0]
    ours = fitted.draws.transition.transition
    ours = torch.stack([(ours[:, 0, 1] / ours[:, 0, 0]).log(), (ours[:, 1, 0] / ours[:, 1, 1]).log()], 1)
    logits = fitted.draws.emissions.probabilities.log()
    ours = torch.cat([ours, (logits[..., 1:] - logits[..., :1]).flatten(1)], 1)
    assert bool(((ours.mean(0) - exact.mean(0)).abs() < 0.3 * exact.std(0)).all())
    ratio = ours.std(0) / exact.std(0)
    print("ratio of standard deviations", ratio)
    assert bool(((ratio > 0.65) & (ratio < 1.5)).all())
    assert 0.85 < float(ratio.log().mean().exp()) < 1.2


@pytest.mark.slow
@pytest.mark.parametrize("lag", [1, 5])
def test_coverage(lag):
    """60 repetitions at 95 %, for timescales, populations and the emissions of the largest state."""
    inside = []
    for k in range(60):
        hidden = CHAIN.simulate(4000, seed=k).parts[0]
        fitted = HiddenMarkovModel(3, lag=lag, draws=200, starts=2, block=20).fit(symbols(hidden, k + 1000), seed=k)
        order = CHAIN.stationary.argsort(descending=True)
        pairs = ((fitted.timescales(2), CHAIN.timescales(2)), (fitted.stationary(), CHAIN.stationary[order]))
        inside.append(torch.cat([draws.interval(0.95).contains(truth) for draws, truth in pairs]))
    for k in range(5):
        hits = int(torch.stack(inside)[:, k].sum())
        assert_calibrated(hits, 60, 0.95)
