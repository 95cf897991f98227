"""Counting of evaluations, and energies that are not numbers."""

import math

import pytest
import torch

from bayesmol.flows.counted import Counted


class Steep:
    dimension = 1

    def reduced_energy(self, x):
        energy = x[:, 0] ** 4
        return torch.where(x[:, 0] < 0, math.nan, energy)


def test_evaluations_are_counted():
    target = Counted(Steep())
    target.reduced_energy(torch.ones(9000, 1))
    target.reduced_gradient(torch.ones(9000, 1))
    assert target.evaluations == 18_000


def test_no_number_is_no_density():
    energy, gradient = Counted(Steep()).reduced_gradient(torch.tensor([[-1.0], [2.0]]))
    assert energy.tolist() == [math.inf, 16.0] and gradient.tolist() == [[0.0], [32.0]]
    assert Counted(Steep()).reduced_energy(torch.tensor([[-1.0], [2.0]])).tolist() == [math.inf, 16.0]


def test_gradient_is_that_of_the_regularised_energy():
    target = Counted(Steep(), cut=5.0)
    x = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    energy, gradient = target.reduced_gradient(x)
    assert energy.tolist() == [1.0, 16.0, 81.0], "energies for weights are the true ones"
    leaf = x.clone().requires_grad_()
    target.regularised(leaf[:, 0] ** 4).sum().backward()
    torch.testing.assert_close(gradient, leaf.grad)
    assert float(target.regularised(torch.tensor([5.0]))) == 5.0


def test_another_target_for_a_while():
    target, other = Counted(Steep()), Steep()
    with pytest.raises(ZeroDivisionError), target.replaced(other):
        assert target.target is other
        raise ZeroDivisionError
    assert target.target is not other
