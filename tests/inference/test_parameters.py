"""A vector and a module have the same parameters, and the same predictions."""

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.parameters import Flattened


def network():
    layers = [torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2, bias=False)]
    return torch.nn.Sequential(*layers).double()


def test_vector_and_names_are_inverse(normal):
    module, flattened = network(), Flattened.of(network())
    vector = flattened.vector(module)
    assert len(vector) == flattened.size == 12 + 4 + 8
    for name, value in module.named_parameters():
        torch.testing.assert_close(flattened.named(vector)[name], value.detach(), rtol=0, atol=0)
    many = flattened.named(normal(2, 5, flattened.size))
    assert many["0.weight"].shape == (2, 5, 4, 3)


def test_call_is_the_module_and_leaves_it_alone(normal):
    module, flattened, inputs = network(), Flattened.of(network()), normal(7, 3)
    before, other = flattened.vector(module), normal(flattened.size)
    torch.testing.assert_close(flattened.call(module, before, inputs), module(inputs))
    expected = flattened.module(module, other)(inputs)
    torch.testing.assert_close(flattened.call(module, other, inputs), expected)
    torch.testing.assert_close(flattened.vector(module), before, rtol=0, atol=0)


def test_gradient_by_the_vector_is_that_of_the_module(normal):
    module, flattened, inputs = network(), Flattened.of(network()), normal(7, 3)
    vector = flattened.vector(module).requires_grad_()
    (slope,) = torch.autograd.grad(flattened.call(module, vector, inputs).square().sum(), vector)
    module(inputs).square().sum().backward()
    found = torch.cat([parameter.grad.reshape(-1) for parameter in module.parameters()])
    torch.testing.assert_close(slope, found)


def test_draws_run_together(normal):
    module, flattened, inputs = network(), Flattened.of(network()), normal(7, 3)
    draws = normal(6, flattened.size)
    found = torch.func.vmap(lambda vector: flattened.call(module, vector, inputs))(draws)
    torch.testing.assert_close(found[4], flattened.call(module, draws[4], inputs))


def test_some_parameters_only(normal):
    module = network()
    last = Flattened.of(module, lambda name: name.startswith("2"))
    assert last.names == ("2.weight",) and last.size == 8
    changed = last.module(module, torch.zeros(8, dtype=torch.float64))
    assert bool((changed(normal(7, 3)) == 0).all())
    torch.testing.assert_close(changed[0].weight, module[0].weight)
    module[0].requires_grad_(False)
    assert Flattened.of(module).names == ("2.weight",)


def test_scales_keep_the_variance(source):
    wide = torch.nn.Linear(400, 300).double()
    flattened = Flattened.of(wide)
    scales = flattened.scales(wide, width=2.0)
    named = flattened.named(scales)
    assert bool((named["weight"] == 0.1).all()) and bool((named["bias"] == 2.0).all())
    weights = scales * torch.randn(len(scales), generator=source, dtype=torch.float64)
    inputs = torch.randn(50, 400, generator=source, dtype=torch.float64)
    assert float(flattened.call(wide, weights, inputs).var()) == pytest.approx(4 + 4, rel=0.1)


def test_bad_input_is_named():
    with pytest.raises(DataError, match="chosen"):
        Flattened.of(network(), lambda name: False)
    with pytest.raises(ShapeError, match="vector"):
        Flattened.of(network()).named(torch.zeros(3))
