"""Passage times and committors against linear solves, closed forms, simulation and deeptime."""

import math

import pytest
import torch

from bayesmol.dynamics.elimination import stationary_distribution
from bayesmol.dynamics.passage import (
    backward_committor,
    commute_time,
    first_passage_times,
    forward_committor,
    mean_first_passage_time,
    mean_first_passage_times,
    time_reversed,
)
from bayesmol.errors import DataError


def chain(*shape, seed=0):
    """Random stochastic matrices of the leading shape; irreversible."""
    raw = torch.rand(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return raw / raw.sum(-1, keepdim=True)


def brute_times(P, target, lag):
    """Solve (1 − P) m = τ outside the target by hand."""
    rest = [i for i in range(len(P)) if i not in target]
    times = torch.zeros(len(P), dtype=torch.float64)
    system = torch.eye(len(rest), dtype=torch.float64) - P[rest][:, rest]
    times[rest] = torch.linalg.solve(system, torch.full((len(rest),), float(lag), dtype=torch.float64))
    return times


def walk(n, p):
    """Random walk on a line, up with p, down with 1 − p, reflecting ends."""
    P = torch.zeros(n, n, dtype=torch.float64)
    i = torch.arange(n - 1)
    P[i, i + 1], P[i + 1, i] = p, 1 - p
    P[0, 0], P[-1, -1] = 1 - p, p
    return P


def test_times_match_brute_force():
    P = chain(3, 45)
    got = first_passage_times(P, [3, 40], lag=7)
    for draw in range(3):
        torch.testing.assert_close(got[draw], brute_times(P[draw], [3, 40], 7), rtol=1e-11, atol=0)


def test_mean_starts_by_the_stationary_distribution():
    P, start, target = chain(12), [0, 1, 2], [7, 8]
    pi, times = stationary_distribution(P)[start], brute_times(P, target, 1)[start]
    exact = float((pi * times).sum() / pi.sum())
    assert float(mean_first_passage_time(P, start, target)) == pytest.approx(exact, rel=1e-12)


def test_hopping_between_two_states():
    P = torch.tensor([[1 - 1e-14, 1e-14], [3e-14, 1 - 3e-14]], dtype=torch.float64)
    assert float(mean_first_passage_time(P, [0], [1], lag=5)) == pytest.approx(5e14, rel=1e-14)
    assert float(commute_time(P, [0], [1], lag=5)) == pytest.approx(5e14 + 5e14 / 3, rel=1e-14)


def test_matrix_of_sets_and_symmetry():
    P, sets = chain(2, 20), [[0, 1], [5], [9, 12, 13]]
    times = mean_first_passage_times(P, sets, lag=3)
    assert times.shape == (2, 3, 3) and bool((times.diagonal(dim1=1, dim2=2) == 0).all())
    for a in range(3):
        for b in range(3):
            if a != b:
                one = mean_first_passage_time(P, sets[a], sets[b], lag=3)
                torch.testing.assert_close(times[:, a, b], one, rtol=1e-14, atol=0)
                torch.testing.assert_close(commute_time(P, sets[a], sets[b]), commute_time(P, sets[b], sets[a]))


def test_target_of_all_states_is_reached_at_once():
    assert first_passage_times(chain(4), range(4)).tolist() == [0.0] * 4


def test_kemeny_constant():
    """Σ_j π_j m_ij is the same for every start i, and one less than Σ 1/(1 − λ) is it without the return."""
    P = chain(10)
    pi = stationary_distribution(P)
    times = torch.stack([first_passage_times(P, [j]) for j in range(10)], 1)
    values = torch.linalg.eigvals(P)
    order = (values - 1).abs().argsort()[1:]
    exact = (1 / (1 - values[order])).sum().real
    torch.testing.assert_close(times @ pi, exact.expand(10), rtol=1e-11, atol=0)


def test_committor_of_a_walk_is_the_gamblers():
    n, p = 12, 0.4
    ratio = (1 - p) / p
    exact = torch.tensor([(1 - ratio**i) / (1 - ratio ** (n - 1)) for i in range(n)], dtype=torch.float64)
    q = forward_committor(walk(n, p), [0], [n - 1])
    torch.testing.assert_close(q, exact, rtol=1e-13, atol=0)
    torch.testing.assert_close(backward_committor(walk(n, p), [0], [n - 1]), 1 - q, rtol=1e-12, atol=1e-15)


def test_committors_satisfy_their_equations():
    P, A, B = chain(2, 30), [1, 4], [2, 29]
    rest = [i for i in range(30) if i not in A + B]
    forward, backward = forward_committor(P, A, B), backward_committor(P, A, B)
    assert bool((forward[:, A] == 0).all() & (forward[:, B] == 1).all())
    assert bool((backward[:, A] == 1).all() & (backward[:, B] == 0).all())
    torch.testing.assert_close((P @ forward[..., None])[:, rest, 0], forward[:, rest], rtol=1e-13, atol=0)
    reverse = time_reversed(P) @ backward[..., None]
    torch.testing.assert_close(reverse[:, rest, 0], backward[:, rest], rtol=1e-13, atol=0)
    swapped = forward_committor(P, B, A)
    torch.testing.assert_close(forward + swapped, torch.ones_like(forward), rtol=1e-13, atol=0)


def test_reversing_twice_is_the_chain():
    P = chain(3, 9)
    torch.testing.assert_close(time_reversed(time_reversed(P)), P, rtol=1e-12, atol=0)
    torch.testing.assert_close(time_reversed(P).sum(-1), torch.ones(3, 9, dtype=torch.float64))


@pytest.mark.parametrize("call", [mean_first_passage_time, commute_time, forward_committor, backward_committor])
@pytest.mark.parametrize(("A", "B"), [([], [1]), ([0], []), ([0, 1], [1, 2]), ([0], [9]), ([0], [-1])])
def test_bad_sets_are_refused(call, A, B):
    with pytest.raises(DataError):
        call(chain(4), A, B)


def test_bad_lag_and_unreachable_targets_are_refused():
    for lag in (0, 1.5, True):
        with pytest.raises(DataError, match="lag"):
            first_passage_times(chain(4), [0], lag=lag)
    P = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.2, 0.2, 0.6]], dtype=torch.float64)
    with pytest.raises(DataError, match="reached"):
        first_passage_times(P, [2])
    torch.testing.assert_close(first_passage_times(P, [0])[1:], brute_times(P, [0], 1)[1:])
    with pytest.raises(DataError, match="sets\\[1\\]"):
        mean_first_passage_times(chain(4), [[0, 1], [1]])


def test_deeptime_agrees():
    deeptime = pytest.importorskip("deeptime")
    P = chain(15)
    model = deeptime.markov.msm.MarkovStateModel(P.numpy(), lagtime=4)
    A, B = [0, 3], [7, 8]
    assert float(mean_first_passage_time(P, A, B, lag=4)) == pytest.approx(model.mfpt(A, B), rel=1e-10)
    for ours, theirs in ((forward_committor, model.committor_forward), (backward_committor, model.committor_backward)):
        torch.testing.assert_close(ours(P, A, B), torch.as_tensor(theirs(A, B)), rtol=1e-9, atol=1e-12)


def test_simulation_agrees():
    """Mean passage time and committor of 20 000 simulated walkers, within six standard errors."""
    P, target, source = chain(8), [6], torch.Generator().manual_seed(2)
    times, side, state = torch.zeros(20000), torch.full((20000,), -1), torch.zeros(20000, dtype=torch.long)
    state[:] = 3
    alive, undecided = torch.ones(20000, dtype=torch.bool), torch.ones(20000, dtype=torch.bool)
    while bool(alive.any()):
        state[alive] = torch.multinomial(P[state[alive]], 1, generator=source)[:, 0]
        times[alive] += 1
        for value, member in ((1, 6), (0, 0)):
            side[undecided & (state == member)] = value
        undecided &= side < 0
        alive &= state != 6
    error = float(times.std()) / math.sqrt(len(times))
    assert abs(float(times.mean()) - float(mean_first_passage_time(P, [3], target))) < 6 * error
    q = float(forward_committor(P, [0], target)[3])
    assert abs(float(side.double().mean()) - q) < 6 * math.sqrt(q * (1 - q) / len(side))
