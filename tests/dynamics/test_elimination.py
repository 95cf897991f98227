"""Elimination of states: exact identities, ill-conditioned chains, and what must be refused."""

import pytest
import torch

from bayesmol.dynamics.elimination import absorbed, checked_matrix, checked_sets, stationary_distribution
from bayesmol.errors import DataError, ShapeError


def chain(*shape, seed=0):
    """Random stochastic matrices of the leading shape; irreversible."""
    raw = torch.rand(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return raw / raw.sum(-1, keepdim=True)


@pytest.mark.parametrize("states", [1, 2, 5, 31, 32, 33, 70])
def test_stationary_is_a_fixed_point(states):
    P = chain(3, 2, states)
    pi = stationary_distribution(P)
    assert pi.shape == (3, 2, states)
    torch.testing.assert_close(torch.einsum("...i,...ij->...j", pi, P), pi, rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(pi.sum(-1), torch.ones(3, 2, dtype=torch.float64), rtol=1e-14, atol=0)


def test_nearly_separated_sets_lose_no_digit():
    """Two states that hop with 1e-16 and 2e-16: a linear solve of 1 − P has not one digit here."""
    P = torch.tensor([[1 - 1e-16, 1e-16], [2e-16, 1 - 2e-16]], dtype=torch.float64)
    exact = torch.tensor([2 / 3, 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(stationary_distribution(P), exact, rtol=1e-15, atol=0)


def test_rare_states_have_small_relative_error():
    """A birth-death chain of 60 states up a slope: the closed form spans 57 orders of magnitude."""
    up, down, n = 0.1, 0.9, 61
    P = torch.zeros(n, n, dtype=torch.float64)
    index = torch.arange(n - 1)
    P[index, index + 1], P[index + 1, index] = up, down
    P[0, 0], P[-1, -1] = 1 - up, 1 - down
    exact = (up / down) ** torch.arange(n, dtype=torch.float64)
    torch.testing.assert_close(stationary_distribution(P), exact / exact.sum(), rtol=1e-13, atol=0)


def test_chunks_agree_with_one_matrix(monkeypatch):
    P = chain(5, 40)
    whole = stationary_distribution(P)
    monkeypatch.setattr("bayesmol.dynamics.elimination._ENTRIES", {"cpu": 2 * 40 * 40})
    torch.testing.assert_close(stationary_distribution(P), whole, rtol=1e-14, atol=0)


def test_absorbed_solves_the_linear_system():
    P = chain(4, 50)
    inside, outside = torch.arange(0, 50, 2), torch.arange(1, 50, 2)
    rows = P[:, inside]
    reward = torch.rand(4, 25, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = absorbed(P, inside, rows[..., outside].sum(-1), reward)
    want = torch.linalg.solve(torch.eye(25) - rows[..., inside], reward)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 0.0], [0.0, 1.0]],  # two closed classes
        [[1.0, 0.0], [0.5, 0.5]],  # the second is left for ever
        [[0.5, 0.5], [0.0, 1.0]],  # the first is left for ever
        [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.1, 0.1, 0.8]],
    ],
)
def test_reducible_is_refused(rows):
    P = torch.tensor(rows, dtype=torch.float64)
    with pytest.raises(DataError, match="irreducible"):
        stationary_distribution(P)
    with pytest.raises(DataError, match="irreducible"):  # one bad draw among good ones
        stationary_distribution(torch.stack([chain(len(P)), P]))


def test_a_cycle_is_irreducible():
    P = torch.eye(5, dtype=torch.float64).roll(1, 1)
    torch.testing.assert_close(stationary_distribution(P), torch.full((5,), 0.2, dtype=torch.float64))


@pytest.mark.parametrize(
    "rows", [[[0.5, 0.4], [0.5, 0.5]], [[1.5, -0.5], [0.5, 0.5]], [[float("nan"), 0.5], [0.5, 0.5]]]
)
def test_not_stochastic_is_refused(rows):
    with pytest.raises(DataError, match="P: expected rows"):
        checked_matrix(torch.tensor(rows, dtype=torch.float64))


def test_shapes_are_refused():
    for shape in ((3,), (2, 3), (0, 0)):
        with pytest.raises(ShapeError):
            checked_matrix(torch.ones(shape, dtype=torch.float64))


def test_sets():
    first, second = checked_sets(5, start=[0, 2], target=torch.tensor([4]))
    assert first.tolist() == [0, 2] and second.tolist() == [4]
    bad = [([], [1]), ([0, 1], [1]), ([0, 0], [1]), ([5], [1]), ([-1], [1]), ([0.0], [1])]
    for start, target in bad:
        with pytest.raises(DataError):
            checked_sets(5, start=start, target=target)
    with pytest.raises(DataError, match="nonzero"):
        checked_sets(2, start=torch.tensor([True, False]))
