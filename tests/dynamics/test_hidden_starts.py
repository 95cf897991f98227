import torch

from bayesmol.data.exact_chains import MarkovChain
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.hidden_starts import starting_memberships

BLOCKS = torch.tensor([[0.88, 0.1, 0.02, 0.0], [0.1, 0.88, 0.0, 0.02], [0.02, 0.0, 0.88, 0.1], [0.0, 0.02, 0.1, 0.88]])


def source():
    return torch.Generator().manual_seed(0)


def test_metastable_sets_are_the_first_guess():
    trajectories = MarkovChain(BLOCKS.double()).simulate(5000, seed=0)
    found = starting_memberships(trajectories, 1, 2, 3, seed=source())
    assert found.shape == (3, 5000, 2)
    assert torch.allclose(found.sum(2), torch.ones(3, 5000).double())
    assert float(found.min()) > 0
    first = found[0].argmax(1)
    low = trajectories.parts[0] < 2
    assert first[low].unique().numel() == first[~low].unique().numel() == 1
    assert first[low][0] != first[~low][0]


def test_features_are_clustered_first():
    states = MarkovChain(BLOCKS.double()).simulate(3000, seed=0).parts[0]
    noise = torch.randn(3000, 1, generator=source(), dtype=torch.float64)
    first = starting_memberships(Trajectories.of(states[:, None] + 0.1 * noise), 1, 2, 1, seed=source())[0].argmax(1)
    assert float((first == first[states < 2][0]).eq(states < 2).double().mean()) > 0.98


def test_more_states_than_symbols_start_at_random():
    trajectories = Trajectories.of(torch.tensor([0, 1, 0, 1, 1, 0, 0, 1]))
    found = starting_memberships(trajectories, 1, 3, 2, seed=source())
    assert torch.allclose(found.sum(2), torch.ones(2, 8).double())
    assert float(found.std(2).min()) > 0
