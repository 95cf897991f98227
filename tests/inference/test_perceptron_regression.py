"""Perceptrons observed in sums and derivatives: closed forms, torch and JAX, and a posterior that covers the truth."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.chains import Chains, r_hat
from bayesmol.inference.perceptron import Perceptron
from bayesmol.inference.perceptron_regression import (
    PerceptronFit,
    PerceptronRegression,
    PerceptronRows,
    _Density,
    _observed,
)
from bayesmol.testing import assert_calibrated

KINDS = torch.tensor([0, 1, 1])


def geometry(places):
    """Inputs (groups, 3, 4) of three members on a line, smooth functions of their places (groups, 3)."""
    gaps = places.unsqueeze(-1) - places.unsqueeze(-2)
    waves = torch.stack([torch.sin(gaps), torch.cos(gaps), torch.cos(2 * gaps)], -1).sum(-2)
    return torch.cat([waves, (gaps.square() / 4).sum(-1, keepdim=True) - 1], -1)


def observed(perceptron, vector, places, noise, source):
    """Rows of a true perceptron, with noise."""
    places = places.clone().requires_grad_()
    inputs, kinds = geometry(places), KINDS.expand(len(places), 3).contiguous()
    jacobian = torch.func.vmap(torch.func.jacrev(geometry))(places.detach())
    values = perceptron.values(vector, inputs.flatten(0, 1), kinds.flatten())[0].unflatten(0, (-1, 3)).sum(1)
    forces = -torch.autograd.grad(values.sum(), places)[0]
    kind = {"generator": source, "dtype": torch.float64}
    sums = values.detach() + noise[0] * torch.randn(values.shape, **kind)
    noisy = forces + noise[1] * torch.randn(forces.shape, **kind)
    return PerceptronRows(inputs.detach(), kinds, -jacobian, sums, noisy), values.detach(), forces


def example(normal, source, groups=30, noise=(0.05, 0.1)):
    perceptron = Perceptron(4, (5,), kinds=2)
    return perceptron, *observed(perceptron, normal(perceptron.parameters), normal(groups, 3), noise, source)


def test_rows_are_sums_and_minus_gradients(normal, source):
    perceptron, rows, values, forces = example(normal, source, noise=(0.0, 0.0))
    vector = normal(perceptron.parameters)
    rows, values, forces = observed(perceptron, vector, normal(8, 3), (0.0, 0.0), source)
    found = _observed(perceptron, rows.counts(2), vector, rows.arrays())
    torch.testing.assert_close(found[0], values)
    torch.testing.assert_close(found[1], forces)


def test_density_is_that_of_normal_laws(normal, source):
    perceptron, rows, _, _ = example(normal, source)
    vector, laws = normal(2 + perceptron.parameters), torch.distributions
    density = _Density(perceptron, rows.counts(2), (0.1, 0.2), 0.5)
    found = _observed(perceptron, rows.counts(2), vector[2:], rows.arrays())
    deviations = torch.tensor([0.1, 0.2]).double() * (0.5 * vector[:2]).exp()
    expected = laws.Normal(found[0], deviations[0]).log_prob(rows.sums).sum()
    expected = expected + laws.Normal(found[1], deviations[1]).log_prob(rows.derivatives).sum()
    expected = expected + laws.Normal(0.0, 1.0).log_prob(vector).sum()
    constant = 0.5 * math.log(2 * math.pi) * (rows.sums.numel() + rows.derivatives.numel() + len(vector))
    torch.testing.assert_close(density(vector, rows.arrays()), expected + constant)


def test_density_and_gradient_are_the_same_in_jax(normal, source):
    import jax
    import numpy as np

    perceptron, rows, _, _ = example(normal, source)
    density = _Density(perceptron, rows.counts(2), (0.1, 0.2), 0.5)
    vector = normal(2 + perceptron.parameters).requires_grad_()
    value = density(vector, rows.arrays())
    (slope,) = torch.autograd.grad(value, vector)
    with jax.enable_x64(True):
        arrays = {name: jax.numpy.asarray(part.numpy()) for name, part in rows.arrays().items()}
        place = jax.numpy.asarray(vector.detach().numpy())
        other = [torch.tensor(np.array(part)) for part in jax.jit(jax.value_and_grad(density))(place, arrays)]
    torch.testing.assert_close(value.detach(), other[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(slope, other[1], rtol=1e-10, atol=1e-10)


def test_predictions_are_those_of_the_draws(normal, source):
    perceptron, rows, _, _ = example(normal, source)
    fit = PerceptronFit(perceptron, Chains(normal(2, 3, 2 + perceptron.parameters)), (0.1, 0.2), 0.5)
    sums, forces = fit.predict(rows.inputs, rows.kinds, rows.jacobians)
    assert sums.shape == (6, 30) and forces.shape == (6, 30, 3)
    expected = _observed(perceptron, rows.counts(2), fit.chains.values[1, 0, 2:], rows.arrays())
    torch.testing.assert_close(sums[3], expected[0])
    torch.testing.assert_close(forces[3], expected[1])
    white = fit.chains.values[0, 0, :2]
    torch.testing.assert_close(fit.noise_draws[0], torch.tensor([0.1, 0.2]).double() * (0.5 * white).exp())
    assert fit.predict(rows.inputs, rows.kinds, rows.jacobians, size=2)[0].shape == (2, 30)


@pytest.mark.slow
def test_posterior_covers_the_truth(normal, source):
    perceptron, rows, _, _ = example(normal, source, groups=40)
    vector = normal(perceptron.parameters)
    rows, _, _ = observed(perceptron, vector, normal(40, 3), (0.05, 0.1), source)
    new, values, forces = observed(perceptron, vector, normal(100, 3), (0.05, 0.1), source)
    regression = PerceptronRegression(perceptron, (0.1, 0.1), warmup=400, draws=400, climb=500)
    fit = regression.fit(rows, limit=None, seed=0)
    assert fit.chains.divergences < 8
    assert float(r_hat(fit.predict(rows.inputs, rows.kinds, rows.jacobians)[0].unflatten(0, (2, -1))).median()) < 1.05
    for k, true in enumerate((0.05, 0.1)):
        inside = fit.noise_draws[:, k].quantile(torch.tensor([0.005, 0.995]).double())
        assert float(inside[0]) < true < float(inside[1])
    found = fit.predict(new.inputs, new.kinds, new.jacobians, size=200)
    for truth, draws in ((values, found[0]), (forces[:, 0], found[1][..., 0])):
        lower, upper = draws.quantile(torch.tensor([0.05, 0.95]).double(), dim=0)
        hits = int(((lower < truth) & (truth < upper)).sum())
        assert_calibrated(hits, 100, 0.9, confidence=0.9999)


def test_bad_input_is_named(normal, source):
    perceptron, rows, _, _ = example(normal, source)
    with pytest.raises(ShapeError, match="sums"):
        PerceptronRows(rows.inputs, rows.kinds, rows.jacobians, rows.sums[:3], rows.derivatives)
    with pytest.raises(DataError, match="kinds"):
        rows.counts(1)
    with pytest.raises(ConvergenceError, match="start"):
        broken = PerceptronRows(rows.inputs, rows.kinds, rows.jacobians, rows.sums * math.nan, rows.derivatives)
        PerceptronRegression(perceptron, (0.1, 0.1), climb=2).fit(broken, seed=0)
