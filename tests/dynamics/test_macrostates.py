"""Matrices between macrostates: eigenvalues, probabilities by hand, rates."""

import pytest
import torch

from bayesmol.dynamics.elimination import stationary_distribution
from bayesmol.dynamics.macrostates import coarse_transition_matrix, indicators, rate_matrix
from bayesmol.dynamics.pcca import pcca
from bayesmol.errors import DataError, ShapeError

BLOCKS = [[0, 1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]


def chain(*shape, seed=0):
    """Random stochastic matrices of the leading shape; irreversible."""
    raw = torch.rand(*shape, shape[-1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) ** 3
    return raw / raw.sum(-1, keepdim=True)


def metastable(*draws, hop=0.01, seed=0, reversible=True):
    """Chains of twelve states with three blocks that are left with a probability of ``hop``."""
    fast = chain(*draws, 12, seed=seed) if draws else chain(12, seed=seed)
    mask = torch.zeros(12, 12, dtype=torch.float64)
    for block in BLOCKS:
        mask[torch.tensor(block)[:, None], torch.tensor(block)] = 1.0
    inside = (fast + 0.05) * mask
    P = (1 - hop) * inside / inside.sum(-1, keepdim=True) + hop * fast
    if not reversible:
        return P
    pi = stationary_distribution(P)
    return (P + P.mT * pi[..., None, :] / pi[..., :, None]) / 2


def slowest(P, count):
    return torch.linalg.eigvals(P).real.sort(descending=True).values[..., :count]


def test_pcca_keeps_the_slow_eigenvalues():
    P = torch.stack([metastable(seed=k) for k in range(3)])
    coarse = coarse_transition_matrix(P, pcca(P, 3).memberships)
    torch.testing.assert_close(coarse.sum(-1), torch.ones(3, 3, dtype=torch.float64), rtol=1e-12, atol=0)
    torch.testing.assert_close(slowest(coarse, 3), slowest(P, 3), rtol=1e-8, atol=0)


def test_sets_are_averaged_by_the_stationary_distribution():
    P = metastable()
    pi = stationary_distribution(P)
    coarse = coarse_transition_matrix(P, indicators(BLOCKS, 12))
    for a, one in enumerate(BLOCKS):
        for b, two in enumerate(BLOCKS):
            exact = (pi[one][:, None] * P[one][:, two]).sum() / pi[one].sum()
            assert float(coarse[a, b]) == pytest.approx(float(exact), rel=1e-12)
    assert bool((slowest(coarse, 3)[1:] <= slowest(P, 3)[1:] + 1e-12).all()), "the variational principle"


def test_rates_are_the_logarithm():
    K = torch.tensor([[[-0.03, 0.01, 0.02], [0.005, -0.015, 0.01], [0.0, 0.02, -0.02]]], dtype=torch.float64)
    P = torch.linalg.matrix_exp(7 * K)
    torch.testing.assert_close(rate_matrix(P, lag=7), K, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(
        rate_matrix(P, lag=7).sum(-1), torch.zeros(1, 3, dtype=torch.float64), rtol=0, atol=1e-14
    )


def test_a_turning_cycle_has_rates():
    """Complex eigenvalues have a real logarithm together."""
    K = torch.tensor([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0], [1.0, 0.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(rate_matrix(torch.linalg.matrix_exp(K)), K, rtol=1e-9, atol=1e-12)


def test_bad_input():
    with pytest.raises(DataError, match="logarithm"):
        rate_matrix(torch.tensor([[0.2, 0.8], [0.8, 0.2]], dtype=torch.float64))
    with pytest.raises(DataError, match="lag"):
        rate_matrix(chain(2), lag=0)
    for sets in ([[0, 1], [1, 2]], [[0, 1, 2], []], [[0], [1]]):
        with pytest.raises(DataError):
            indicators(sets, 3)
    with pytest.raises(ShapeError, match="memberships"):
        coarse_transition_matrix(chain(4), indicators([[0], [1, 2]], 3))
    with pytest.raises(DataError, match="memberships"):
        coarse_transition_matrix(chain(3), 2 * indicators([[0], [1, 2]], 3))
