"""Cubic splines: partition of unity, polynomials exactly, and the oracle of SciPy."""

import numpy as np
import torch
from scipy.interpolate import CubicSpline

from bayesmol.potentials.tabulated_splines import spline_coefficients, spline_weights


def value(places, coefficients, step):
    left, weights, slopes = spline_weights(places, step)
    near = coefficients[left[:, None] + torch.arange(4)]
    return torch.einsum("pm,pmc->pc", weights, near), torch.einsum("pm,pmc->pc", slopes, near)


def test_weights_sum_to_one_and_their_slopes_to_zero(source):
    places = 3 * torch.rand(50, generator=source, dtype=torch.float64)
    _, weights, slopes = spline_weights(places, 0.3)
    torch.testing.assert_close(weights.sum(1), torch.ones(50, dtype=torch.float64))
    torch.testing.assert_close(slopes.sum(1), torch.zeros(50, dtype=torch.float64), atol=1e-14, rtol=0)


def test_cubic_polynomials_are_exact(source):
    knots = torch.linspace(0, 2, 9, dtype=torch.float64)
    slope = 1 - 2 * knots + 6 * knots**2
    values = (2 + knots - knots**2 + 2 * knots**3)[:, None]
    coefficients = spline_coefficients(values, slope[[0, -1], None], 0.25)
    places = 2 * torch.rand(40, generator=source, dtype=torch.float64)
    got, steep = value(places, coefficients, 0.25)
    torch.testing.assert_close(got[:, 0], 2 + places - places**2 + 2 * places**3)
    torch.testing.assert_close(steep[:, 0], 1 - 2 * places + 6 * places**2)


def test_as_scipy(normal, source):
    values, ends = normal(12, 3), normal(2, 3)
    coefficients = spline_coefficients(values, ends, 0.5)
    oracle = CubicSpline(0.5 * np.arange(12), values.numpy(), bc_type=((1, ends[0].numpy()), (1, ends[1].numpy())))
    places = 5.5 * torch.rand(60, generator=source, dtype=torch.float64)
    got, steep = value(places, coefficients, 0.5)
    torch.testing.assert_close(got, torch.from_numpy(oracle(places.numpy())))
    torch.testing.assert_close(steep, torch.from_numpy(oracle(places.numpy(), 1)))


def test_the_error_falls_with_the_fourth_power():
    errors = []
    for knots in (21, 41):
        places = torch.linspace(0, 3, knots, dtype=torch.float64)
        ends = torch.cos(places[[0, -1], None])
        coefficients = spline_coefficients(torch.sin(places)[:, None], ends, 3 / (knots - 1))
        fine = torch.linspace(0, 2.99, 500, dtype=torch.float64)
        errors.append(float((value(fine, coefficients, 3 / (knots - 1))[0][:, 0] - torch.sin(fine)).abs().max()))
    assert 12 < errors[0] / errors[1] < 20
