"""Perceptrons against torch modules and automatic derivatives, and the same in torch and in JAX."""

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.inference.perceptron import Perceptron

WIDTHS = [(6,), (6, 5)]


def module(perceptron, vector):
    """The perceptron of one kind as a torch module."""
    layers, start, arrays = [], 0, []
    for shape in perceptron.shapes:
        size = int(np.prod(shape))
        arrays.append(vector[start : start + size].reshape(shape))
        start += size
    for matrix, bias in zip(arrays[:-2:2], arrays[1:-2:2], strict=True):
        layer = torch.nn.Linear(*matrix.shape).double()
        layer.weight.data, layer.bias.data = matrix.T / len(matrix) ** 0.5, bias
        layers += [layer, torch.nn.SiLU()]
    last = torch.nn.Linear(len(arrays[-2]), 1).double()
    last.weight.data, last.bias.data = arrays[-2][None] / len(arrays[-2]) ** 0.5, arrays[-1]
    return torch.nn.Sequential(*layers, last)


@pytest.mark.parametrize("widths", WIDTHS)
def test_values_and_gradients_are_those_of_a_module(normal, widths):
    perceptron = Perceptron(4, widths, kinds=2, scale=0.3)
    vector, kinds = normal(perceptron.parameters), torch.tensor([1, 0, 1, 1, 0, 1])
    inputs = normal(6, 4).requires_grad_()
    found, slopes = perceptron.values(vector, inputs, kinds)
    both = torch.stack([0.3 * module(perceptron, part)(inputs)[:, 0] for part in vector.chunk(2)])
    expected = both[kinds, torch.arange(6)]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(slopes, torch.autograd.grad(expected.sum(), inputs)[0])


@pytest.mark.parametrize("widths", WIDTHS)
def test_torch_and_jax_agree(normal, widths):
    import jax

    perceptron = Perceptron(4, widths, kinds=3)
    vector, inputs, counts = normal(perceptron.parameters), normal(9, 4), (3, 4, 2)
    found = perceptron.sorted_values(vector, inputs, counts)
    with jax.enable_x64(True):
        arrays = (jax.numpy.asarray(part.numpy()) for part in (vector, inputs))
        compiled = jax.jit(perceptron.sorted_values, static_argnums=2)
        other = [np.asarray(part) for part in compiled(*arrays, counts)]
    for ours, theirs in zip(found, other, strict=True):
        assert theirs.dtype == np.float64
        torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-10, atol=1e-10)


def test_a_draw_of_the_prior_is_of_order_scale(source):
    perceptron = Perceptron(50, (64, 64), scale=2.0)
    inputs = torch.randn(200, 50, generator=source, dtype=torch.float64)
    kinds, spread = torch.zeros(200, dtype=torch.long), []
    for _ in range(20):
        vector = torch.randn(perceptron.parameters, generator=source, dtype=torch.float64)
        spread.append(perceptron.values(vector, inputs, kinds)[0].square().mean())
    assert 0.5 * 4 < float(torch.stack(spread).mean()) < 2 * 4


def test_a_kind_that_is_absent_changes_nothing(normal):
    perceptron = Perceptron(3, (4,), kinds=3)
    vector, inputs = normal(perceptron.parameters), normal(5, 3)
    found = perceptron.values(vector, inputs, torch.tensor([0, 2, 2, 0, 0]))[0]
    assert found.shape == (5,)
    changed = vector.clone()
    changed[perceptron.parameters // 3 : 2 * perceptron.parameters // 3] += 1
    torch.testing.assert_close(perceptron.values(changed, inputs, torch.tensor([0, 2, 2, 0, 0]))[0], found)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="widths"):
        Perceptron(3, ())
    with pytest.raises(DataError, match="scale"):
        Perceptron(3, (4,), scale=0.0)
