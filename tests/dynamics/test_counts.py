import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.counts import block_counts
from bayesmol.errors import ConvergenceError, DataError


def chains(*lengths, states=4, seed=0):
    source = torch.Generator().manual_seed(seed)
    return Trajectories.of([torch.randint(states, (n,), generator=source) for n in lengths])


def brute(trajectories, lag, states):
    counts = torch.zeros(states, states, dtype=torch.float64)
    for part in trajectories:
        for a, b in zip(part[:-lag], part[lag:], strict=True):
            counts[a, b] += 1
    return counts


@pytest.mark.parametrize("block", [None, 3, 11, 500])
def test_all_transitions_are_counted_once(block):
    data = chains(60, 2, 33)
    found = block_counts(data, 3, block=block)
    assert torch.equal(found.total(), brute(data, 3, 4))
    assert found.trajectory.unique().tolist() == [0, 2]


def test_a_transition_is_of_the_block_of_its_first_frame():
    data = chains(40)
    found = block_counts(data, 4, block=10)
    assert found.values.sum(1).tolist() == [10, 10, 10, 6]
    weights = torch.tensor([[0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    part = Trajectories.of(data.parts[0][10:24])
    assert torch.equal(found.total(weights)[0], brute(part, 4, 4))


def test_states_keep_their_names():
    data = Trajectories.of(torch.tensor([7, 7, 2, 7, 2, 90]))
    found = block_counts(data, 1)
    assert found.states.tolist() == [2, 7, 90]
    assert found.total()[1].tolist() == [2, 1, 0]


def test_only_some_states():
    data = chains(200)
    found = block_counts(data, 2).restricted(torch.tensor([0, 2]))
    assert torch.equal(found.total(), brute(data, 2, 4)[[0, 2]][:, [0, 2]])
    assert found.states.tolist() == [0, 2]


def test_bad_input():
    with pytest.raises(DataError, match="assign them to states"):
        block_counts(Trajectories.of(torch.zeros(10, 1)), 1)
    with pytest.raises(DataError, match="lag"):
        block_counts(chains(10), 0)
    with pytest.raises(ConvergenceError, match="longer than the lag"):
        block_counts(chains(10), 10)


def test_symmetric_sums_are_those_of_the_matrices():
    counts = block_counts(Trajectories.of(torch.randint(4, (300,), generator=torch.Generator().manual_seed(0))), 2)
    weights = torch.rand(5, len(counts.values), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    total = counts.total(weights)
    by_hand = torch.stack([counts.dense((row[:, None] * counts.values).sum(0)) for row in weights])
    torch.testing.assert_close(total, by_hand)
    sums, leaving = counts.paired(weights)
    torch.testing.assert_close(sums.values.mT, (total + total.mT)[:, sums.first, sums.second])
    torch.testing.assert_close(leaving.mT, total.sum(2) - total.diagonal(dim1=1, dim2=2))
    assert len(sums.first) == 6 and bool((sums.first < sums.second).all())
