"""Conjugate gradients against Cholesky."""

import pytest
import torch

from bayesmol.errors import ApplicabilityError, ConvergenceError
from bayesmol.potentials.gradient_solver import ConjugateGradients, Exact


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
    torch.testing.assert_close(Exact(covariance).solve(right), exact, rtol=1e-8, atol=1e-8)
    found = iterative(prior, noise, tolerance=1e-12).solve(right)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))


def test_halves_give_what_the_data_explain(system, normal):
    prior, noise, covariance = system
    cross = normal(120, 5)
    want = cross.mT @ torch.linalg.solve(covariance, cross)
    for solver in (Exact(covariance), iterative(prior, noise, tolerance=1e-12)):
        left, right = solver.halves(cross)
        torch.testing.assert_close(left.mT @ right, want, rtol=1e-6, atol=1e-6 * float(want.abs().max()))


def test_the_preconditioner_saves_iterations(system, normal):
    prior, noise, _ = system
    right = normal(120, 1)
    iterative(prior, noise, rank=60, iterations=15).solve(right)
    with pytest.raises(ConvergenceError, match="preconditioner_rows"):
        iterative(prior, noise, rank=1, iterations=15).solve(right)


def test_inverse_and_its_refusal(system):
    prior, noise, covariance = system
    inverse = Exact(covariance).inverse()
    torch.testing.assert_close(inverse @ covariance, torch.eye(120).double(), rtol=0, atol=1e-7)
    with pytest.raises(ApplicabilityError, match="exact_rows"):
        iterative(prior, noise).inverse()


def test_a_singular_covariance_is_refused():
    with pytest.raises(ConvergenceError, match="positive definite"):
        Exact(torch.ones(3, 3, dtype=torch.float64))
