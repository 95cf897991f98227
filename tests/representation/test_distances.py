"""Inverse distances against brute force, finite differences and autograd."""

import pytest
import torch

from bayesmol.errors import ShapeError
from bayesmol.representation.distances import (
    internal_basis,
    inverse_distances,
    jacobian,
    pair_permutations,
    pairs,
)


@pytest.fixture
def positions(normal):
    return 1.5 * normal(4, 5, 3)


def test_inverse_distances_are_one_over_each_distance(positions):
    first, second = pairs(5)
    for k, (i, j) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
        distance = (positions[:, i] - positions[:, j]).square().sum(1).sqrt()
        torch.testing.assert_close(inverse_distances(positions)[:, k], 1 / distance, rtol=1e-13, atol=0)
    assert len(first) == 10 and bool((first < second).all())


def test_jacobian_is_the_derivative(positions):
    automatic = torch.func.vmap(torch.func.jacrev(lambda r: inverse_distances(r[None])[0]))(positions)
    torch.testing.assert_close(jacobian(positions), automatic.flatten(2), rtol=1e-12, atol=1e-13)


def test_distances_do_not_feel_rotation_reflection_and_translation(positions, normal):
    turn, _ = torch.linalg.qr(normal(3, 3))
    for matrix in (turn, -turn):
        moved = positions @ matrix.mT + normal(3)
        torch.testing.assert_close(inverse_distances(moved), inverse_distances(positions), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("atoms", "internal"), [(2, 1), (3, 3), (5, 9)])
def test_internal_basis_spans_what_changes_distances(atoms, internal, normal):
    slope = jacobian(normal(3, atoms, 3))
    basis = internal_basis(slope)
    assert basis.shape == (3, 3 * atoms, internal)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(internal).double().expand(3, -1, -1), rtol=0, atol=1e-12)
    torch.testing.assert_close(slope @ basis @ basis.mT, slope, rtol=1e-9, atol=1e-10)


def test_internal_basis_of_a_linear_molecule_still_spans_all_forces():
    slope = jacobian(torch.tensor([[[-1.2, 0, 0], [0, 0, 0], [1.2, 0, 0]]], dtype=torch.float64))
    basis = internal_basis(slope)
    torch.testing.assert_close(slope @ basis @ basis.mT, slope, rtol=0, atol=1e-12)


def test_pair_permutations_act_as_permutations_of_atoms(positions, source):
    orders = torch.stack([torch.randperm(5, generator=source) for _ in range(6)])
    for order, moved in zip(orders, pair_permutations(orders), strict=True):
        torch.testing.assert_close(inverse_distances(positions[:, order]), inverse_distances(positions)[:, moved])


@pytest.mark.parametrize("shape", [(4, 5), (4, 1, 3), (4, 5, 2)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ShapeError, match="atoms ≥ 2"):
        inverse_distances(torch.zeros(shape, dtype=torch.float64))
