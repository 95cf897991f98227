"""Conjugate gradients against Cholesky."""

import pytest
import torch

from bayesmol.errors import ConvergenceError
from bayesmol.potentials.gradient_solver import ConjugateGradients, Exact, noisy, pivoted_root


@pytest.fixture
def system(normal):
    """Smooth prior of 40 blocks of 3 rows, and correlated noise in each block."""
    points = torch.linspace(0, 4, 120, dtype=torch.float64)
    prior = torch.exp(-0.5 * (points[:, None] - points).square())
    root = 0.02 * normal(40, 3, 3)
    noise = root @ root.mT + 1e-5 * torch.eye(3).double()
    return prior, noise, prior + torch.block_diag(*noise)


def iterative(prior, noise, rank=60, **options):
    at = torch.linspace(0, 119, rank).round().long()
    columns = prior[:, at]
    return ConjugateGradients.nystrom(
        lambda v: prior @ v, torch.linalg.cholesky(noise), columns, columns[at], **options
    )


def test_both_solve(system, normal):
    prior, noise, covariance = system
    right = normal(120, 4)
    exact = torch.linalg.solve(covariance, right)
    torch.testing.assert_close(covariance @ Exact(covariance).solve(right), right, rtol=0, atol=1e-9)
    found = iterative(prior, noise, tolerance=1e-12).solve(right)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))


def test_half_is_what_the_labels_explain(system, normal):
    _, _, covariance = system
    cross = normal(120, 5)
    want, half = cross.mT @ torch.linalg.solve(covariance, cross), Exact(covariance).half(cross)
    torch.testing.assert_close(half.mT @ half, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


def test_the_preconditioner_saves_iterations(system, normal):
    prior, noise, _ = system
    right = normal(120, 1)
    iterative(prior, noise, rank=60, iterations=15).solve(right)
    with pytest.raises(ConvergenceError, match="preconditioner_rows"):
        iterative(prior, noise, rank=1, iterations=15).solve(right)


def test_inverse(system):
    _, _, covariance = system
    inverse = Exact(covariance).inverse()
    torch.testing.assert_close(inverse @ covariance, torch.eye(120).double(), rtol=0, atol=1e-7)


def test_a_singular_covariance_is_refused():
    with pytest.raises(ConvergenceError, match="positive definite"):
        Exact(torch.ones(3, 3, dtype=torch.float64))


def test_noisy_masks_the_prior_and_adds_the_blocks(system):
    prior, noise, covariance = system
    mask = torch.ones(120, dtype=torch.float64)
    torch.testing.assert_close(noisy(prior.clone(), mask, noise), covariance)
    mask[7] = 0.0
    found = noisy(prior.clone(), mask, noise)
    torch.testing.assert_close(found, prior * torch.outer(mask, mask) + torch.block_diag(*noise))


def test_pivoted_root(system):
    _, _, covariance = system
    tiles = covariance.view(40, 3, 40, 3)
    blocks = tiles[torch.arange(40), :, torch.arange(40)]
    whole = pivoted_root(blocks, lambda k: tiles[:, :, k], 120).reshape(120, -1)
    torch.testing.assert_close(whole @ whole.mT, covariance, rtol=0, atol=1e-8)
    part = pivoted_root(blocks, lambda k: tiles[:, :, k], 10)
    assert part.shape == (40, 3, 10)
    assert float(torch.linalg.eigvalsh(covariance - part.reshape(120, 10) @ part.reshape(120, 10).mT).min()) > -1e-10
