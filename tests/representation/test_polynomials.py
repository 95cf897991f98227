"""Invariants as polynomials: gradients against automatic ones, values against the coupling trees."""

import pytest
import torch

from bayesmol.representation.couplings import block, coupling, couplings
from bayesmol.representation.polynomials import products


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_gradients_of_products_are_those_of_autograd(normal, degree):
    listed = couplings(degree, 4)
    density = normal(2, 3, (degree + 1) ** 2).requires_grad_()
    values, gradient = products(density, listed)
    for k in range(values.shape[-1]):
        (found,) = torch.autograd.grad(values[..., k].sum(), density, retain_graph=True)
        torch.testing.assert_close(gradient[..., k], found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_values_are_those_of_the_coupling_trees(normal, degree):
    listed, density = couplings(degree, 4), normal(5, (degree + 1) ** 2)
    values, _ = products(density, listed)
    for number, item in enumerate(listed.invariants):
        torch.testing.assert_close(values[:, number], by_tree(item, density), rtol=1e-11, atol=1e-11)


def by_tree(item, density):
    def pair(coupled):
        first, second = density[:, block(coupled[0])], density[:, block(coupled[1])]
        return torch.einsum("na,nb,abm->nm", first, second, coupling(coupled))

    if item.order == 1:
        return density[:, 0]
    if item.order == 2:
        return pair(item.pairs[0])[:, 0]
    other = density[:, block(item.pairs[0][2])] if item.order == 3 else pair(item.pairs[-1])
    return (pair(item.pairs[0]) * other).sum(-1)


def test_differentiable(normal):
    density, listed = normal(1, 16).requires_grad_(), couplings(3, 4)

    def both(point):
        return products(point, listed)

    assert torch.autograd.gradcheck(both, density)


def test_single_precision_and_leading_shapes(normal):
    density, listed = normal(2, 3, 4, 16), couplings(3, 4).only(3, 4)
    values, gradient = products(density.float(), listed)
    assert values.shape == (2, 3, 4, 31) and gradient.shape == (2, 3, 4, 16, 31) and values.dtype == torch.float32
    torch.testing.assert_close(values.double(), products(density, listed)[0], rtol=1e-3, atol=1e-3)
