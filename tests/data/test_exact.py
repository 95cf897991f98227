"""Tests of the landscapes and of the simulation on them."""

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.data.exact import Landscape, double_well, prinz, quadruple_well, triple_well
from bayesmol.errors import DataError, ShapeError

ALL = [prinz, double_well, triple_well, quadruple_well]


def some_points(landscape, count=200):
    source = np.random.default_rng(0)
    return torch.as_tensor(source.uniform(landscape.lower, landscape.upper, (count, landscape.dims)))


@pytest.mark.parametrize("make", ALL)
def test_drift_is_minus_the_slope(make):
    landscape, h = make(), 1e-6
    points, drift = some_points(landscape), landscape.drift(some_points(landscape))
    for k in range(landscape.dims):
        shift = torch.zeros(landscape.dims, dtype=torch.float64)
        shift[k] = h
        slope = (landscape.energy(points + shift) - landscape.energy(points - shift)) / (2 * h)
        torch.testing.assert_close(drift[:, k], -slope, rtol=1e-6, atol=1e-5)


def test_drift_scales_with_diffusion_over_temperature():
    def energy(points):
        return points[:, 0] ** 2

    landscape = Landscape(energy, (-3.0,), (3.0,), temperature=0.5, diffusion=3.0)
    points = some_points(landscape)
    torch.testing.assert_close(landscape.drift(points), -12 * points)


@pytest.mark.parametrize("make", ALL)
def test_box_is_wide_enough(make):
    landscape = make()
    edges = [torch.linspace(a, b, 201) for a, b in zip(landscape.lower, landscape.upper, strict=True)]
    points = torch.cartesian_prod(*edges).reshape(-1, landscape.dims).double()
    low, high = torch.tensor(landscape.lower), torch.tensor(landscape.upper)
    border = ((points - low).abs() < 1e-6).any(1) | ((points - high).abs() < 1e-6).any(1)
    energy = landscape.energy(points)
    assert float(energy[border].min() - energy.min()) > 25 * landscape.temperature


@pytest.mark.parametrize("make", [prinz, double_well, triple_well])
def test_table_is_a_potential_within_a_millionth_of_kt(make):
    # A force that is constant in each cell is that of a potential which is linear there: the sum of the forces.
    landscape = make()
    centres, width = landscape._cells()
    ends = torch.cat([centres[:, 0] - width[0] / 2, centres[-1:, 0] + width[0] / 2])
    table = torch.cat([torch.zeros(1), -landscape.drift(centres)[:, 0].cumsum(0) * width[0]])
    energy = landscape.energy(ends[:, None])
    inside = energy - energy.min() < 25
    gap = (table - energy)[inside]
    assert float(gap.max() - gap.min()) < 1e-6


@pytest.mark.parametrize("make", ALL)
def test_equilibrium_follows_boltzmann(make):
    landscape = make()
    axes = [np.linspace(a, b, 801) for a, b in zip(landscape.lower, landscape.upper, strict=True)]
    grid = torch.cartesian_prod(*map(torch.as_tensor, axes)).reshape(-1, landscape.dims)
    weights = landscape.boltzmann(grid).numpy().reshape([801] * landscape.dims)
    drawn = landscape.equilibrium(4000, seed=1).numpy()
    for k, axis in enumerate(axes):
        marginal = weights.sum(tuple(j for j in range(landscape.dims) if j != k))
        law = np.cumsum(marginal) - marginal / 2
        assert stats.kstest(drawn[:, k], lambda x, a=axis, c=law: np.interp(x, a, c)).pvalue > 1e-3


@pytest.mark.parametrize("make", ALL)
def test_one_step_is_normal_about_the_drift(make):
    landscape, step, count = make(), 1e-3, 4000
    start = landscape.equilibrium(1, seed=2).expand(count, -1)
    path = landscape.simulate(2, trajectories=count, step=step, steps=1, start=start, seed=3)
    moved = torch.stack([part[1] - part[0] for part in path])
    score = (moved - step * landscape.drift(start[:1])) / (2 * step) ** 0.5
    for k in range(landscape.dims):
        assert stats.kstest(score[:, k].numpy(), "norm").pvalue > 1e-3


def test_simulation_is_an_ornstein_uhlenbeck_process_in_a_parabola():
    landscape = Landscape(lambda points: points[:, 0] ** 2, (-6.0,), (6.0,), temperature=1.0, diffusion=0.5)
    count, step, steps = 4000, 0.01, 40
    start = torch.full((count, 1), 1.5, dtype=torch.float64)
    path = landscape.simulate(3, trajectories=count, step=step, steps=steps, start=start, seed=0)
    last, rho = torch.stack([part[2, 0] for part in path]), 1 - step
    variance = 2 * 0.5 * step * (1 - rho ** (4 * steps)) / (1 - rho**2)
    score = (last - 1.5 * rho ** (2 * steps)) / variance**0.5
    assert stats.kstest(score.numpy(), "norm").pvalue > 1e-3


def test_the_edge_pushes_back_from_outside():
    landscape = quadruple_well()
    start = torch.tensor([[2.5, -2.6], [-2.5, 2.6]], dtype=torch.float64)
    path = landscape.simulate(2, trajectories=2, step=1e-3, steps=200, start=start, seed=0)
    assert all(bool((part[1].abs() < 2).all()) for part in path)


def test_shapes_seeds_and_time():
    first = prinz().simulate(7, trajectories=3, step=1e-4, steps=5, seed=4)
    again = prinz().simulate(7, trajectories=3, step=1e-4, steps=5, seed=4)
    other = prinz().simulate(7, trajectories=3, step=1e-4, steps=5, seed=5)
    assert len(first) == 3 and first.parts[0].shape == (7, 1) and first.time_step == pytest.approx(5e-4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.parts[0], other.parts[0])
    assert not torch.equal(first.parts[0], first.parts[1])


def test_bad_input():
    with pytest.raises(ShapeError, match="lower, upper"):
        Landscape(lambda x: x[:, 0], (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match="lower < upper"):
        Landscape(lambda x: x[:, 0], (1.0,), (0.0,))
    with pytest.raises(DataError, match="temperature"):
        Landscape(lambda x: x[:, 0], (0.0,), (1.0,), temperature=0.0)
    with pytest.raises(ShapeError, match="start"):
        prinz().simulate(5, trajectories=2, start=torch.zeros(3, 1, dtype=torch.float64), seed=0)
    with pytest.raises(DataError, match="frames"):
        prinz().simulate(0, seed=0)
