"""Milestoning: by hand, against a plain loop, and what is refused."""

import pytest
import torch

from bayesmol.dynamics.core_sets import CoreSets, cores_of, last_core
from bayesmol.errors import DataError, ShapeError


def test_by_hand():
    sequence = torch.tensor([9, 2, 0, 2, 1, 2, 5, 2, 2, 0])
    assert last_core(sequence, [[0, 1], [5]]).tolist() == [-1, -1, 0, 0, 0, 0, 1, 1, 1, 0]


def test_against_a_loop(source):
    sequence, cores = torch.randint(10, (500,), generator=source), [[3], [7, 8], [1]]
    current, want = -1, []
    for state in sequence.tolist():
        current = next((k for k, core in enumerate(cores) if state in core), current)
        want.append(current)
    assert last_core(sequence, cores).tolist() == want


def test_cores_that_hold_all_states_are_the_plain_lumping(source):
    sequence = torch.randint(4, (100,), generator=source)
    assert torch.equal(last_core(sequence, [[0, 1], [2, 3]]), sequence // 2)


def test_trajectories_start_at_their_first_core():
    found = CoreSets([[0], [3]]).assign([torch.tensor([1, 1, 0, 2, 3]), torch.tensor([1, 2]), torch.tensor([3, 1])])
    assert [part.tolist() for part in found.trajectories] == [[0, 0, 1], [1, 1]] and found.dropped == 4


def test_recrossings_do_not_count():
    """A chain that flickers on the barrier: 40 hops between states, one between cores."""
    sequence = torch.tensor([0] + [1, 2] * 20 + [3] * 5)
    found = CoreSets([[0], [3]]).assign(sequence).trajectories.parts[0]
    assert int((found.diff() != 0).sum()) == 1


def test_cores_from_memberships():
    memberships = torch.tensor([[0.95, 0.05], [0.6, 0.4], [0.1, 0.9]])
    assert cores_of(memberships) == [[0], [2]]
    with pytest.raises(DataError, match="macrostate 1"):
        cores_of(memberships, threshold=0.92)
    for threshold in (0.5, 1.1):
        with pytest.raises(DataError, match="threshold"):
            cores_of(memberships, threshold=threshold)


def test_bad_input():
    sequence = torch.tensor([0, 1, 2])
    for cores in ([[0], []], [[0, 1], [1]], [[-1], [0]], [[0, 0], [1]]):
        with pytest.raises(DataError):
            last_core(sequence, cores)
    with pytest.raises(DataError, match="visit"):
        CoreSets([[0], [7]]).assign(sequence)
    with pytest.raises(DataError, match="visit"):
        CoreSets([[8], [7]]).assign(sequence)
    with pytest.raises(ShapeError):
        CoreSets([[0], [1]]).assign(torch.randn(5, 2))
    with pytest.raises(ShapeError):
        last_core(torch.tensor([0.0, 1.0]), [[0], [1]])
