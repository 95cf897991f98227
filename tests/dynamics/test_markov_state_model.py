import math

import numpy as np
import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.clustering import Grid
from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.errors import ConvergenceError, DataError

P = np.array([[0.94, 0.05, 0.01], [0.05, 0.9, 0.05], [0.01, 0.05, 0.94]])
TIMES = -1 / np.log(np.linalg.eigvalsh(P)[::-1][1:])


def walk(frames=6000, seed=0, matrix=P, start=None):
    source = np.random.default_rng(seed)
    steps, states = source.random(frames), np.empty(frames, int)
    ends = matrix.cumsum(1)
    state = source.integers(len(matrix)) if start is None else start
    for t in range(frames):
        states[t] = state
        state = min(int(np.searchsorted(ends[state], steps[t])), len(matrix) - 1)
    return states


@pytest.fixture(scope="module")
def chain():
    return walk()


@pytest.fixture(scope="module")
def model(chain):
    return MarkovStateModel(lag=1, draws=300).fit(chain, seed=0)


@pytest.mark.parametrize("reversible", [True, False])
def test_intervals_hold_what_is_known(chain, reversible):
    fitted = MarkovStateModel(lag=2, reversible=reversible, draws=300).fit(chain, seed=0)
    assert bool(fitted.timescales(2).interval(0.999).contains(torch.tensor(TIMES)).all())
    assert bool(fitted.stationary().interval(0.999).contains(torch.full((3,), 1 / 3).double()).all())
    wanted = torch.tensor([math.log(3)] * 3).double()
    assert bool(fitted.free_energies().interval(0.999).contains(wanted).all())


def test_every_draw_is_stochastic_and_reversible(model):
    def off(batch):
        flows = batch.stationary[..., None] * batch.transition
        return torch.stack([(batch.transition.sum(-1) - 1).abs().amax(1), (flows - flows.mT).abs().amax((1, 2))], 1)

    assert float(model.posterior(off).values.max()) < 1e-12


def test_passage_times_and_committors(model):
    away = np.linalg.solve(np.eye(2) - P[:2, :2], np.ones(2))[0]
    times = model.mean_first_passage_time([0], [2])
    assert times.unit == "frames"
    assert bool(times.interval(0.999).contains(torch.tensor(away)))
    committor = model.committor([0], [2])
    assert bool(committor.interval(0.999).contains(torch.tensor([0.0, 0.5, 1.0]).double()).all())


def test_units_of_time(chain):
    trajectories = Trajectories.of(chain, time_step=0.2, unit="ns")
    fitted, plain = (MarkovStateModel(lag=2, draws=50).fit(x, seed=0) for x in (trajectories, chain))
    assert fitted.timescales(1).unit == "ns"
    assert torch.allclose(fitted.timescales(2).mean, 0.2 * plain.timescales(2).mean)
    ours = fitted.mean_first_passage_time([0], [1]).mean, 0.2 * plain.mean_first_passage_time([0], [1]).mean
    assert torch.allclose(*ours)


def test_states_that_are_not_connected_are_left_out_and_counted():
    states = np.concatenate([walk(3000), [7, 8, 9]])
    fitted = MarkovStateModel(draws=50).fit(states, seed=0)
    assert fitted.states.tolist() == [0, 1, 2]
    assert fitted.left_out == pytest.approx(3 / 3002)
    with pytest.raises(DataError, match="target"):
        fitted.committor([0], [7])


def test_features_are_clustered(chain):
    x = chain[:, None] * 2.0 + np.random.default_rng(0).uniform(-0.5, 0.5, (len(chain), 1))
    fitted = MarkovStateModel(states=3, draws=50).fit(x, seed=0)
    plain = MarkovStateModel(draws=50).fit(chain, seed=0)
    assert torch.allclose(fitted.estimate.transition.diagonal().sum(), plain.estimate.transition.diagonal().sum())
    grid = MarkovStateModel(states=Grid([3], [-1.0], [5.0]), draws=50).fit(x, seed=0)
    assert torch.allclose(grid.transition_matrix, plain.transition_matrix)


def test_many_short_trajectories(chain):
    parts = [walk(60, seed=k, start=k % 3) for k in range(100)]
    fitted = MarkovStateModel(draws=300).fit(parts, seed=0)
    assert bool(fitted.timescales(1).interval(0.999).contains(torch.tensor(TIMES[:1])).all())


def test_population_of_a_set_of_states(model):
    both = model.stationary([0, 2])
    torch.testing.assert_close(both.values, model.stationary().values[..., [0, 2]].sum(-1))
    with pytest.raises(DataError, match="connected states"):
        model.stationary([7])


@pytest.mark.parametrize("visits", [2, 4, 8])  # where it decides: the threshold is three
def test_a_quantity_rests_on_as_many_events_as_there_were(visits):
    states = np.zeros(20_000, int)
    for start in np.random.default_rng(0).choice(198, visits, replace=False):
        states[100 * start : 100 * start + 10] = 1
    rare = MarkovStateModel().fit(states, seed=0)
    for found in (rare.stationary([1]), rare.mean_first_passage_time([0], [1])):
        assert float(rare.support(found)) == pytest.approx(visits, rel=0.5)
    assert rare.support(rare.stationary()).shape == (2,)
    assert rare.support(rare.posterior(lambda batch: batch.stationary.sum(1))) == 0  # always one: it rests on nothing
    with pytest.raises(DataError, match="300"):
        MarkovStateModel(draws=50).fit(states, seed=0).support(rare.stationary())


def test_few_degrees_of_freedom_are_not_few_events():
    for seed in range(10):  # some forty visits in each, and about 25 degrees of freedom
        fitted = MarkovStateModel(draws=400).fit(walk(2400, seed, np.array([[0.98, 0.02], [0.08, 0.92]])), seed=seed)
        assert fitted.weights.freedom < 40
        assert float(fitted.support(fitted.timescales(1))) > 3


def test_metastable_states(model):
    found = model.pcca(2)
    assert found.memberships.shape == (300, 3, 2)
    assert torch.allclose(found.memberships.sum(2), torch.ones(300, 3).double())


def test_bad_input(model, chain):
    with pytest.raises(DataError, match="lag"):
        MarkovStateModel(lag=0)
    with pytest.raises(DataError, match="to and fro"):
        MarkovStateModel().fit(np.arange(50), seed=0)
    with pytest.raises(ConvergenceError, match="at least"):
        MarkovStateModel(draws=10).fit(np.repeat([0, 1, 0, 1], 30), seed=0)
    with pytest.raises(DataError, match="count"):
        model.timescales(3)
