"""Passes over hidden chains against the enumeration of all paths."""

import itertools

import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.hidden_chain import Subsequences, smoothed, viterbi
from bayesmol.errors import DataError


@pytest.fixture
def normal():
    return lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def enumerated(density, transition, initial):
    """Log likelihood, probabilities of states and of pairs, and the best path of one chain."""
    frames, states = density.shape
    paths = torch.tensor(list(itertools.product(range(states), repeat=frames)))
    weight = initial.log()[paths[:, 0]] + density[torch.arange(frames), paths].sum(1)
    weight = weight + transition.log()[paths[:, :-1], paths[:, 1:]].sum(1)
    p = weight.softmax(0)
    hot = torch.nn.functional.one_hot(paths, states).double()
    gamma = torch.einsum("p,pti->ti", p, hot)
    pairs = torch.einsum("p,pti,ptj->ij", p, hot[:, :-1], hot[:, 1:])
    return weight.logsumexp(0), gamma, pairs, paths[weight.argmax()]


def chains(normal, models=2, states=3, lengths=(6, 1, 4)):
    density = 3 * normal(models, sum(lengths), states)
    transition, initial = normal(models, states, states).softmax(-1), normal(models, states).softmax(-1)
    first = torch.zeros(sum(lengths), dtype=torch.bool)
    first[torch.tensor([0, *itertools.accumulate(lengths)][:-1])] = True
    return density, transition, initial, first


def test_all_paths_are_summed(normal):
    density, transition, initial, first = chains(normal)
    paths = smoothed(density, transition, initial, first)
    for k in range(2):
        parts = [enumerated(part, transition[k], initial[k]) for part in density[k].split([6, 1, 4])]
        ours = torch.stack([part.sum() for part in paths.predictive[k].split([6, 1, 4])])
        torch.testing.assert_close(ours, torch.stack([part[0] for part in parts]))
        torch.testing.assert_close(paths.probabilities[k], torch.cat([part[1] for part in parts]))
        wanted = sum(part[2] for part in parts)
        torch.testing.assert_close(paths.transitions(transition, first)[k], wanted)


def test_transitions_by_block(normal):
    density, transition, initial, first = chains(normal)
    paths = smoothed(density, transition, initial, first)
    block = torch.tensor([0, 0, 0, 1, 1, 1, 2, 3, 3, 4, 4])
    found = paths.block_transitions(transition, first, block, 5)
    torch.testing.assert_close(found.sum(0), paths.transitions(transition, first)[0])
    assert found.sum((1, 2)).tolist() == pytest.approx([3, 2, 0, 2, 1])


def test_the_best_path_is_found(normal):
    density, transition, initial, first = chains(normal)
    found = viterbi(density[0], transition[0], initial[0], first)
    wanted = [enumerated(part, transition[0], initial[0])[3] for part in density[0].split([6, 1, 4])]
    assert found.tolist() == torch.cat(wanted).tolist()


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 5, 9, 10, 37])
def test_pieces_make_no_difference(normal, frames):
    density, transition, initial, _ = chains(normal, lengths=(frames,))
    first = torch.arange(frames) == 0
    paths = smoothed(density, transition, initial, first)
    vector, total = initial[0] * density[0, 0].exp(), torch.zeros(())
    for row in density[0, 1:]:
        total, vector = total + vector.sum().log(), vector / vector.sum() @ transition[0] * row.exp()
    assert float(paths.predictive[0].sum()) == pytest.approx(float(total + vector.sum().log()), rel=1e-12)
    assert torch.allclose(paths.probabilities.sum(2), torch.ones(2, frames).double())


def test_a_long_chain_of_improbable_frames_does_not_underflow(normal):
    density, transition, initial, first = chains(normal, lengths=(3000,))
    plain, far = (smoothed(density - shift, transition, initial, first) for shift in (0, 1000))
    torch.testing.assert_close(far.probabilities, plain.probabilities)
    torch.testing.assert_close(far.predictive, plain.predictive - 1000)


def test_a_frame_that_no_state_explains(normal):
    density, _, _, first = chains(normal, models=1, states=2, lengths=(4,))
    density[0, 2] = torch.tensor([0.0, -torch.inf])
    stuck = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).double()
    with pytest.raises(DataError, match="explains"):
        smoothed(density, stuck, torch.tensor([[0.0, 1.0]]).double(), first)


def test_subsequences_are_every_lagth_frame_and_come_back():
    trajectories = Trajectories.of([torch.arange(7), torch.arange(7, 12)])
    chains = Subsequences.of(trajectories, 3)
    assert chains.order.tolist() == [0, 3, 6, 1, 4, 2, 5, 7, 10, 8, 11, 9]
    assert chains.first.nonzero().flatten().tolist() == [0, 3, 5, 7, 9, 11]
    assert [part.tolist() for part in chains.parts(chains.order)] == [list(range(7)), list(range(7, 12))]
    block, owner = chains.blocks(2)
    assert [part.tolist() for part in chains.parts(block)] == [[0, 0, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2]]
    assert owner.tolist() == [0, 0, 1]
