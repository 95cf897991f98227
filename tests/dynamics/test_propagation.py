import numpy as np
import pytest
import torch

from bayesmol.dynamics.markov_state_model import MarkovStateModel
from bayesmol.dynamics.propagation import chapman_kolmogorov
from bayesmol.errors import DataError

P = np.array([[0.94, 0.05, 0.01], [0.05, 0.9, 0.05], [0.01, 0.05, 0.94]])


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


def test_a_true_chain_passes_the_chapman_kolmogorov_test(model, chain):
    found = chapman_kolmogorov(model, chain, (2, 4), sets=[[0], [1], [2]])
    assert found.p_value > 0.001
    assert found.predicted.shape == found.seen.shape == (2, 3)
    assert found.times.tolist() == [2, 4]
    powers = torch.linalg.matrix_power(torch.from_numpy(P), 4).diagonal()
    assert bool(found.predicted[1].interval(0.999).contains(powers).all())
    assert bool(found.seen[1].interval(0.999).contains(powers).all())
    assert float(found.difference.stddev.max()) < float(found.seen.stddev.max())
    assert found.plot().axes


def lumped(seed, frames=6000):
    """Two states of a chain of three, of which the second hides a slow one: not Markovian at short lags."""
    hidden = np.array([[0.9, 0.1, 0.0], [0.3, 0.68, 0.02], [0.0, 0.02, 0.98]])
    return np.minimum(walk(frames, seed, hidden), 1)


def test_a_lag_that_is_too_short_fails_it():
    data = lumped(0)
    fitted = MarkovStateModel(draws=300).fit(data, seed=0)
    assert chapman_kolmogorov(fitted, data, (4, 10), sets=[[0], [1]]).p_value < 0.01


@pytest.mark.slow
def test_p_values_are_uniform_for_true_chains_and_small_for_others():
    from scipy.stats import kstest

    def p_value(data, k):
        fitted = MarkovStateModel(draws=300).fit(data, seed=k)
        return chapman_kolmogorov(fitted, data, (2, 5), sets=[[s] for s in sorted(set(data.tolist()))]).p_value

    true = [p_value(walk(3000, k), k) for k in range(150)]
    assert kstest(true, "uniform").pvalue > 0.001
    wrong = [p_value(lumped(k), k) for k in range(30)]
    assert np.mean(np.array(wrong) < 0.05) > 0.9


def test_bad_input(model, chain):
    with pytest.raises(DataError, match="multiples"):
        chapman_kolmogorov(model, chain, (1, 2))
    with pytest.raises(DataError, match="fewer"):
        chapman_kolmogorov(model, chain, tuple(range(2, 200)))
    with pytest.raises(DataError, match="the trajectories of the model"):
        chapman_kolmogorov(model, chain[chain < 2], (2,))


def test_names_of_the_package_are_functions_after_their_modules_are_loaded():
    from bayesmol import dynamics

    for _ in range(2):
        assert callable(dynamics.chapman_kolmogorov) and callable(dynamics.reactive_flux)
