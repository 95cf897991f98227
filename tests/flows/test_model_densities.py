import math

import numpy as np
import pytest
import torch
from scipy import integrate

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.model_densities import double_well, gaussian_mixture, many_well, mueller_brown


def mixture():
    means = torch.tensor([[-2.0, 0.0], [2.5, 1.0]], dtype=torch.float64)
    scales, weights = (torch.tensor(v, dtype=torch.float64) for v in ([0.5, 0.8], [0.3, 0.7]))
    return gaussian_mixture(means, scales, weights)


DENSITIES = {"double well": double_well(), "mb": mueller_brown(), "many": many_well(dimension=6), "mixture": mixture()}


@pytest.mark.parametrize("name", DENSITIES)
def test_gradients_are_those_of_finite_differences(name, normal):
    density = DENSITIES[name]
    x = normal(6, density.dimension)
    _, gradient = density.reduced_gradient(x)
    for column in range(density.dimension):
        step = torch.zeros_like(x)
        step[:, column] = 1e-5
        slope = (density.reduced_energy(x + step) - density.reduced_energy(x - step)) / 2e-5
        torch.testing.assert_close(gradient[:, column], slope, rtol=1e-5, atol=1e-6)


def test_double_well_agrees_with_scipy_and_with_the_literature():
    density = double_well()
    for temperature in (0.5, 1.0, 3.0):
        known = density.at(temperature).known()
        parts = [
            integrate.quad(lambda x, t: math.exp(-(x - 4 * x * x + x**4) / t), *ends, (temperature,), epsrel=1e-11)[0]
            for ends in ((-8, 0), (0, 8))
        ]
        want = math.log(sum(parts)) + 0.5 * math.log(2 * math.pi * temperature)
        assert known.log_partition == pytest.approx(want, abs=1e-9)
        assert known.populations[1] == pytest.approx(parts[1] / sum(parts), abs=1e-10)
    known = density.known()
    assert known.log_partition == pytest.approx(5.95122, abs=1e-5)
    assert math.log(known.populations[0] / known.populations[1]) == pytest.approx(2.62939, abs=1e-5)


def test_double_well_without_tilt_is_symmetric_and_energies_follow_from_log_z():
    density = double_well(tilt=0.0)
    assert density.known().populations == pytest.approx((0.5, 0.5), abs=1e-12)
    h = 1e-4
    up, down = (density.at(math.exp(s)).known().log_partition for s in (h, -h))
    assert (up - down) / (2 * h) == pytest.approx(density.known().mean_energy, abs=1e-6)


def test_mueller_brown_minima_and_partition_function():
    density = mueller_brown(scale=1.0)
    energy, gradient = density.reduced_gradient(density.start)
    assert energy.tolist() == pytest.approx([-146.70, -108.17, -80.77], abs=0.01)
    assert float(gradient.abs().max()) < 0.01
    density = mueller_brown()
    known = density.known()
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(500))
    x, y = 3 * nodes - 0.3, 3 * nodes + 1.0
    grid, area = torch.cartesian_prod(x, y), 9 * torch.outer(weights, weights).flatten()
    terms = -density.reduced_energy(grid) + area.log()
    assert known.log_partition == pytest.approx(float(terms.logsumexp(0)), abs=1e-8)
    assert known.mean_energy == pytest.approx(float(terms.softmax(0) @ density.reduced_energy(grid)), abs=1e-8)
    assert density.states(density.start).tolist() == [0, 1, 2]
    shares = [float(terms.softmax(0)[density.states(grid) == s].sum()) for s in range(3)]
    assert known.populations == pytest.approx(shares, abs=1e-3)
    assert sum(known.populations) == pytest.approx(1.0, abs=1e-12)


def test_many_well_is_a_product_of_pairs():
    one, many = many_well(dimension=2).known(), many_well(dimension=8).known()
    assert many.log_partition == pytest.approx(4 * one.log_partition, abs=1e-10)
    assert many.mean_energy == pytest.approx(4 * one.mean_energy, abs=1e-10)
    assert many.populations[4] == pytest.approx(one.populations[1] ** 4, abs=1e-12)
    assert sum(many.populations) == pytest.approx(1.0, abs=1e-12)
    total = sum(
        integrate.quad(lambda a: math.exp(-(a**4) + 6 * a * a + a / 2), *ends, epsrel=1e-11)[0]
        for ends in ((-6, 0), (0, 6))
    )
    assert one.log_partition == pytest.approx(math.log(total) + 0.5 * math.log(2 * math.pi), abs=1e-9)
    density = many_well(dimension=4)
    x = torch.tensor([[1.0, 2.0, -1.5, 0.5]], dtype=torch.float64)
    want = (1 - 6 - 0.5) + 2 + (1.5**4 - 6 * 1.5**2 + 0.75) + 0.125
    assert float(density.reduced_energy(x)) == pytest.approx(want)
    assert density.states(x).tolist() == [1] and density.states(density.start).tolist() == [0, 2]


def test_mixture_is_normalised_and_its_populations_are_those_of_its_draws(source):
    density = mixture()
    assert density.known().log_partition == pytest.approx(0.0, abs=1e-8)
    size = 200_000
    picked = (torch.rand(size, generator=source, dtype=torch.float64) < 0.7).long()
    normal = torch.randn(size, 2, generator=source, dtype=torch.float64)
    x = density.start[picked] + torch.tensor([0.5, 0.8], dtype=torch.float64)[picked][:, None] * normal
    assert float((density.states(x) == 1).double().mean()) == pytest.approx(density.known().populations[1], abs=0.005)
    mean, error = density.reduced_energy(x).mean(), density.reduced_energy(x).std() / size**0.5
    assert abs(float(mean) - density.known().mean_energy) < 5 * float(error)


def test_mixture_in_space_is_known_at_unit_temperature_only():
    three = gaussian_mixture(torch.zeros(1, 3).double(), torch.ones(1).double(), torch.ones(1).double())
    assert three.known().log_partition == 0
    assert three.at(2.0).known() is None
    x = torch.ones(1, 3, dtype=torch.float64)
    assert float(three.reduced_energy(x)) == pytest.approx(1.5 + 1.5 * math.log(2 * math.pi))


def test_bad_input():
    with pytest.raises(DataError, match="even"):
        many_well(dimension=5)
    with pytest.raises(ShapeError, match="one row each"):
        gaussian_mixture(torch.zeros(2, 2), torch.ones(1), torch.ones(2))
    with pytest.raises(DataError, match="positive"):
        gaussian_mixture(torch.zeros(1, 2), torch.zeros(1), torch.ones(1))
    with pytest.raises(ShapeError, match="points, 2"):
        double_well().reduced_energy(torch.zeros(3, 5))
