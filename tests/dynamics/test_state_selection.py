import pytest
import torch

from bayesmol.data.exact_chains import MarkovChain
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.hidden_markov_model import HiddenMarkovModel
from bayesmol.dynamics.state_selection import _pieces, compare_states
from bayesmol.errors import DataError

T = torch.tensor([[0.95, 0.05], [0.1, 0.9]]).double()


def features(frames=1500):
    states = MarkovChain(T).simulate(frames, seed=0).parts[0]
    noise = torch.randn(frames, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return 2.5 * states[:, None] + noise


@pytest.mark.slow
def test_the_true_number_is_found():
    spec = HiddenMarkovModel(2, emissions="gaussian", draws=100, starts=1)
    found = compare_states(spec, features(), (3, 2), folds=3, seed=0)
    assert found.states == (2, 3), found.refused
    assert found.best == 2
    exact = spec.fit(features(), seed=0).log_likelihood(features()) / 1500
    assert bool(found.log_likelihood.interval(0.999).contains(torch.tensor([exact, exact]).double()).all())
    assert (
        0
        < float((found.log_likelihood.values[0, :, 0] - found.log_likelihood.values[0, :, 1]).std())
        < float(found.log_likelihood.stddev[0])
    )


def test_each_frame_is_held_out_once():
    trajectories = Trajectories.of([torch.arange(100), torch.arange(7), torch.arange(8)])
    pieces, fold = _pieces(trajectories, 4, 2)
    assert torch.cat(pieces).tolist() == torch.cat(trajectories.parts).tolist()
    assert fold.tolist() == [0, 1, 2, 3, 1, 2]


def test_bad_input():
    spec = HiddenMarkovModel(2, emissions="gaussian", draws=10)
    with pytest.raises(DataError, match="folds"):
        compare_states(spec, features(100), (2,), folds=1, seed=0)
    with pytest.raises(DataError, match="folds"):
        compare_states(spec, features(8), (2,), folds=5, seed=0)
