"""Perceptrons observed in sums and derivatives: automatic derivatives, torch and JAX."""

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.perceptron import Perceptron
from bayesmol.inference.perceptron_rows import PerceptronRows, observed

KINDS = torch.tensor([0, 1, 1])


def geometry(places):
    """Inputs (groups, 3, 4) of three members on a line, smooth functions of their places (groups, 3)."""
    gaps = places.unsqueeze(-1) - places.unsqueeze(-2)
    waves = torch.stack([torch.sin(gaps), torch.cos(gaps), torch.cos(2 * gaps)], -1).sum(-2)
    return torch.cat([waves, (gaps.square() / 4).sum(-1, keepdim=True) - 1], -1)


@pytest.fixture
def example(normal):
    """A perceptron, its weights, its rows, and sums and forces by automatic differentiation."""
    perceptron, places = Perceptron(4, (5,), kinds=2), normal(30, 3).requires_grad_()
    vector, kinds, inputs = normal(perceptron.parameters), KINDS.expand(30, 3).contiguous(), geometry(places)
    values = perceptron.values(vector, inputs.flatten(0, 1), kinds.flatten())[0].unflatten(0, (-1, 3)).sum(1)
    forces = -torch.autograd.grad(values.sum(), places)[0]
    jacobian = torch.func.vmap(torch.func.jacrev(geometry))(places.detach())
    rows = PerceptronRows(inputs.detach(), kinds, -jacobian, values.detach(), forces)
    return perceptron, vector, rows


def test_rows_are_sums_and_minus_gradients(example):
    perceptron, vector, rows = example
    sums, forces = observed(perceptron, rows.counts(2), vector, rows.arrays())
    torch.testing.assert_close(sums, rows.sums)
    torch.testing.assert_close(forces, rows.derivatives)


def test_values_and_their_gradient_are_the_same_in_jax(example, normal):
    import jax
    import numpy as np

    perceptron, vector, rows = example
    counts, weights = rows.counts(2), (normal(30), normal(30, 3))

    def total(place, data):
        sums, forces = observed(perceptron, counts, place, data)
        return (sums * data["weights"]).sum() + (forces * forces * data["squares"]).sum()

    data = rows.arrays() | {"weights": weights[0], "squares": weights[1]}
    value = total(vector.requires_grad_(), data)
    (slope,) = torch.autograd.grad(value, vector)
    with jax.enable_x64(True):
        arrays = {name: jax.numpy.asarray(part.numpy()) for name, part in data.items()}
        place = jax.numpy.asarray(vector.detach().numpy())
        other = [torch.tensor(np.array(part)) for part in jax.jit(jax.value_and_grad(total))(place, arrays)]
    torch.testing.assert_close(value.detach(), other[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(slope, other[1], rtol=1e-10, atol=1e-10)


def test_bad_input_is_named(example):
    _, _, rows = example
    with pytest.raises(ShapeError, match="sums"):
        PerceptronRows(rows.inputs, rows.kinds, rows.jacobians, rows.sums[:3], rows.derivatives)
    with pytest.raises(DataError, match="kinds"):
        rows.counts(1)
