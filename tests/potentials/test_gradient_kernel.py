"""The gradient kernel against automatic differentiation of its energy part."""

import gpytorch
import pytest
import torch

from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.representation.distances import internal_basis, inverse_distances, jacobian, pair_permutations

GROUP = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 3, 2], [0, 3, 2, 1], [0, 2, 3, 1], [0, 3, 1, 2]])
KINDS = torch.tensor([0, 0, 0, 1, 1, 1])
LENGTHS = torch.tensor([2.0, 0.7], dtype=torch.float64)


@pytest.fixture
def kernel():
    kernel = GradientKernel(pair_permutations(GROUP), KINDS, offset=0.3)
    kernel.lengthscale = LENGTHS
    return kernel.requires_grad_(False)


@pytest.fixture
def frames(normal):
    corner = torch.tensor([[0, 0, 0.3], [1, 0, 0], [-0.5, 0.9, 0], [-0.5, -0.9, 0]], dtype=torch.float64)
    return corner + 0.1 * normal(5, 4, 3)


def rows(positions):
    return GradientKernel.rows(inverse_distances(positions), jacobian(positions))


def energy_covariance(first, second):
    """Symmetrised Matérn covariance of two energies, from the definition."""
    x, total = inverse_distances(first[None])[0] / LENGTHS[KINDS], 0.0
    for order in GROUP:
        y = inverse_distances(second[order][None])[0] / LENGTHS[KINDS]
        q = 5**0.5 * (x - y).norm()
        total = total + (1 + q + q**2 / 3) * torch.exp(-q)
    return total / len(GROUP) + 0.3


def test_covariances_are_derivatives_of_the_energy_covariance(kernel, frames):
    a, b = frames[0], frames[1]
    matrix = kernel(rows(a[None]), rows(b[None])).to_dense()
    first, second = torch.func.grad(energy_covariance, 0), torch.func.grad(energy_covariance, 1)
    close = {"rtol": 1e-11, "atol": 1e-13}
    torch.testing.assert_close(matrix[0, 0], energy_covariance(a, b), **close)
    torch.testing.assert_close(matrix[0, 1:], -second(a, b).flatten(), **close)
    torch.testing.assert_close(matrix[1:, 0], -first(a, b).flatten(), **close)
    hessian = torch.func.jacrev(first, 1)(a, b).reshape(12, 12)
    torch.testing.assert_close(matrix[1:, 1:], hessian, **close)


def test_the_matrix_is_symmetric_and_positive(kernel, frames):
    matrix = kernel(rows(frames), rows(frames)).to_dense()
    torch.testing.assert_close(matrix, matrix.mT, rtol=0, atol=1e-14)
    assert float(torch.linalg.eigvalsh(matrix).min()) > -1e-12


def test_diagonal_blocks_and_products_agree_with_the_matrix(kernel, frames, normal):
    first, second = rows(frames[:3]), rows(frames[1:])
    matrix = kernel(first, second).to_dense()
    vectors = normal(4 * 13, 3)
    torch.testing.assert_close(kernel.product(first, second, vectors), matrix @ vectors, rtol=1e-11, atol=1e-12)
    square = kernel(rows(frames), rows(frames)).to_dense()
    blocks = square.view(5, 13, 5, 13)[torch.arange(5), :, torch.arange(5)]
    torch.testing.assert_close(kernel.blocks(rows(frames), rows(frames)), blocks, rtol=1e-12, atol=1e-14)
    diagonal = kernel(rows(frames), rows(frames), diag=True)
    torch.testing.assert_close(diagonal, square.diagonal(), rtol=1e-12, atol=1e-14)


def test_other_directions_of_the_forces_project_the_matrix(kernel, frames):
    slope = jacobian(frames)
    basis = internal_basis(slope)
    inner = GradientKernel.rows(inverse_distances(frames), slope @ basis)
    whole, part = kernel(rows(frames), rows(frames)).to_dense(), kernel(inner, inner).to_dense()
    turn = torch.block_diag(*[torch.block_diag(torch.ones(1, 1).double(), b) for b in basis])
    torch.testing.assert_close(turn.mT @ whole @ turn, part, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(turn @ part @ turn.mT, whole, rtol=1e-9, atol=1e-10)


def test_exchange_of_like_atoms_changes_only_the_order_of_the_forces(kernel, frames):
    matrix = kernel(rows(frames), rows(frames)).to_dense().view(5, 13, 5, 13)
    for order in GROUP:
        moved = kernel(rows(frames), rows(frames[:, order])).to_dense().view(5, 13, 5, 13)
        torch.testing.assert_close(moved[..., 0], matrix[..., 0], rtol=1e-12, atol=1e-14)
        want = matrix[..., 1:].unflatten(-1, (4, 3))[..., order, :].flatten(-2)
        torch.testing.assert_close(moved[..., 1:], want, rtol=1e-11, atol=1e-13)


def test_the_gradient_to_the_length_scales(frames):
    kernel = GradientKernel(pair_permutations(GROUP), KINDS)
    weight = torch.linspace(-1, 1, (5 * 13) ** 2, dtype=torch.float64).view(65, 65)

    def total(logarithm):
        with torch.no_grad():
            kernel.raw_lengthscale.copy_(logarithm)
        return (weight * kernel(rows(frames), rows(frames)).to_dense()).sum()

    at, step = LENGTHS.log()[None], 1e-5
    total(at).backward()
    for k in range(2):
        move = step * torch.eye(2).double()[k]
        slope = (total(at + move) - total(at - move)) / (2 * step)
        torch.testing.assert_close(kernel.raw_lengthscale.grad[0, k], slope.detach(), rtol=1e-7, atol=1e-8)


def test_gpytorch_can_scale_and_add_it(kernel, frames):
    scaled = gpytorch.kernels.ScaleKernel(kernel).double().requires_grad_(False)
    scaled.outputscale = 4.0
    plain = kernel(rows(frames), rows(frames)).to_dense()
    torch.testing.assert_close(scaled(rows(frames)).to_dense(), 4 * plain, rtol=1e-12, atol=1e-14)
    assert (kernel + kernel)(rows(frames)).shape == (65, 65)
