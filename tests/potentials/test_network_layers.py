"""Layers of networks: closed forms, and the analytic polynomials as the oracle of the trees."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from bayesmol.data import Structures
from bayesmol.inference.random import generator
from bayesmol.potentials.network_layers import Perceptron, parts, tree_products, weights
from bayesmol.representation.ace import environments
from bayesmol.representation.couplings import couplings
from bayesmol.representation.polynomials import products
from bayesmol.representation.radial import RadialBasis


@pytest.mark.parametrize(("degree", "correlation"), [(0, 2), (1, 4), (2, 2), (2, 3), (3, 4), (4, 3)])
def test_trees_are_the_polynomials(normal, degree, correlation):
    density, known = normal((degree + 1) ** 2, 7).requires_grad_(), couplings(degree, correlation)
    found, (values, gradient) = tree_products(density, known), products(density.detach().T, known)
    torch.testing.assert_close(found.T, values)
    for row, slope in zip(found, gradient.permute(2, 1, 0), strict=True):
        torch.testing.assert_close(torch.autograd.grad(row.sum(), density, retain_graph=True)[0], slope)


def test_trees_differentiate_twice(normal):
    known = couplings(2, 4)
    assert torch.autograd.gradgradcheck(lambda x: tree_products(x, known), normal(9, 2).requires_grad_())


def test_a_first_call_in_inference_mode_does_not_spoil_training(normal):
    density, known = normal(25, 3), couplings(4, 2)
    with torch.inference_mode():
        tree_products(density.float(), known)
    tree_products(density.float().requires_grad_(), known).sum().backward()


def test_only_some_orders(normal):
    density, known = normal(9, 5), couplings(2, 4)
    whole = tree_products(density, known)
    for orders in ((1, 2), (3,), (4,)):
        chosen = torch.isin(known.orders, torch.tensor(orders))
        torch.testing.assert_close(tree_products(density, known.only(*orders)), whole[chosen])


def test_trees_follow_precision(normal):
    density, known = normal(9, 4), couplings(2, 4)
    single = tree_products(density.float(), known)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), tree_products(density, known), rtol=1e-5, atol=1e-5)


def test_a_perceptron_by_hand(normal):
    network = Perceptron(3, (4, 5, 2), generator(0)).double()
    with torch.no_grad():
        for bias in network.biases:
            bias += normal(*bias.shape)
    inputs, found = normal(6, 4), None
    found = network(inputs)
    for copy in range(3):
        first = inputs @ network.layers[0][copy] + network.biases[0][copy]
        hand = first * torch.sigmoid(first) @ network.layers[1][copy] + network.biases[1][copy]
        torch.testing.assert_close(found[copy], hand)


def test_without_biases_zero_stays_zero():
    network = Perceptron(2, (4, 8, 3), generator(0), biases=False)
    assert len(network.biases) == 0
    assert bool((network(torch.zeros(5, 4)) == 0).all()) and bool((network(torch.ones(5, 4)) != 0).any())


def test_no_rows():
    assert Perceptron(2, (4, 8, 3), generator(0))(torch.zeros(0, 4)).shape == (2, 0, 3)


def test_units_start_with_a_mean_square_of_about_one():
    source = generator(0)
    found = Perceptron(1, (256, 256, 256, 256), source)(torch.randn(500, 256, generator=source))
    assert 0.7 < float(found.detach().square().mean()) < 1.4


def test_weights_have_the_asked_variance_and_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    found = weights((1000, 50), 25, generator(0), gain=2.0)
    assert torch.equal(before, torch.get_rng_state())
    assert abs(float(found.detach().var()) - 0.08) < 0.003
    assert torch.equal(found, weights((1000, 50), 25, generator(0), gain=2.0))


@pytest.mark.parametrize(("atoms", "expected"), [(1, [1, 1, 1, 1, 1]), (5, [1, 2, 1, 1]), (8, [2, 2, 1]), (99, [5])])
def test_parts_are_environments_of_consecutive_structures(atoms, expected):
    frames = [molecule("CH4"), molecule("H2O"), Atoms("H"), molecule("CO"), bulk("C", cubic=True)]

    def known(chosen):
        return environments(Structures.from_ase(chosen), RadialBasis(cutoff=2.5, size=3), (1, 6, 8), 1)

    found, start = list(parts(known(frames), atoms=atoms)), 0
    assert [part.structures for part in found] == expected
    for part in found:
        alone = known(frames[start : start + part.structures])
        for name in ("species", "structure", "first", "second", "vectors", "radial", "radial_slope", "harmonics_slope"):
            assert torch.equal(getattr(part, name), getattr(alone, name))
        start += part.structures
