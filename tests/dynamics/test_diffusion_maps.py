"""Diffusion maps against the spectra of the circle, the interval and the Ornstein–Uhlenbeck process."""

import math

import pytest
import torch

from bayesmol.dynamics.diffusion_maps import DiffusionMap, kernel_scale
from bayesmol.errors import ApplicabilityError, DataError


def circle(points, density=0.0):
    """Points on the unit circle at quantiles of the density 1 + density · cos θ."""
    target = (torch.arange(points, dtype=torch.float64) + 0.5) / points * 2 * math.pi
    theta = target.clone()
    for _ in range(100):
        theta = theta - (theta + density * theta.sin() - target) / (1 + density * theta.cos())
    return torch.stack([theta.cos(), theta.sin()], 1)


@pytest.mark.parametrize("density", [0.0, 0.6])
def test_circle_has_the_spectrum_of_the_laplacian(density):
    fitted = DiffusionMap(coordinates=5).fit(circle(400, density))
    rates = -fitted.values[1:6].log() / fitted.scale
    wanted = torch.tensor([1.0, 1, 4, 4, 9], dtype=torch.float64)
    torch.testing.assert_close(rates, wanted, rtol=0.03, atol=0)


def test_without_alpha_the_density_of_the_frames_shifts_the_spectrum():
    fitted = DiffusionMap(coordinates=5, alpha=0.0).fit(circle(400, 0.6))
    rates = -fitted.values[1:6].log() / fitted.scale
    assert float((rates / torch.tensor([1.0, 1, 4, 4, 9]) - 1).abs().max()) > 0.06


def test_half_alpha_gives_the_generator_of_overdamped_langevin_dynamics():
    p = (torch.arange(600, dtype=torch.float64) + 0.5) / 600
    fitted = DiffusionMap(coordinates=2, alpha=0.5, scale=0.02).fit(torch.special.ndtri(p)[:, None])
    rates = -fitted.values[1:3].log() / fitted.scale
    torch.testing.assert_close(rates, torch.tensor([1.0, 2.0], dtype=torch.float64), rtol=0.05, atol=0)


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_dimension_of_a_cloud_by_the_slope_of_the_kernel_sum(normal, dimension):
    x = torch.cat([normal(500, dimension), torch.zeros(500, 2, dtype=torch.float64)], 1)
    squared = torch.nn.functional.pdist(x).square()
    matrix = torch.zeros(500, 500, dtype=torch.float64)
    matrix[tuple(torch.triu_indices(500, 500, 1))] = squared
    scale, found = kernel_scale(matrix + matrix.mT)
    assert found == dimension
    stretched, _ = kernel_scale(9 * (matrix + matrix.mT))
    assert stretched == pytest.approx(9 * scale, rel=1e-6)


def test_extension_is_exact_at_the_points_and_right_between_them():
    fitted = DiffusionMap(coordinates=2).fit(circle(200))
    torch.testing.assert_close(fitted(circle(200)), fitted.vectors[:, 1:3], rtol=1e-8, atol=1e-8)
    between = fitted(circle(77))
    radius = between.square().sum(1).sqrt()  # (√2 cos, √2 sin) up to a rotation
    torch.testing.assert_close(radius, torch.full_like(radius, math.sqrt(2)), rtol=1e-6, atol=1e-6)
    assert fitted.functions == 2 and not fitted.constant


def test_a_frame_far_from_all_points_is_refused():
    fitted = DiffusionMap(coordinates=2).fit(circle(200))
    with pytest.raises(ApplicabilityError, match="1 beyond"):
        fitted(torch.tensor([[1.0, 0.0], [9.0, 0.0]], dtype=torch.float64))


def test_draws_solve_the_weighted_walk(source):
    x = circle(120)[torch.randperm(120, generator=source)]
    fitted = DiffusionMap(coordinates=2, scale=0.1).fit(x)
    weights = 1 + 0.1 * torch.randn(3, 120, generator=source, dtype=torch.float64)
    kernel = torch.exp(torch.cdist(x, x).square() / -0.4)
    got = fitted._perturbed(kernel, weights)[:, :4]
    for w, values in zip(weights, got, strict=True):
        r = w / (kernel @ w)
        walk = r[:, None] * kernel * r
        exact = torch.linalg.eigvals(walk / walk.sum(1, keepdim=True)).real.sort(descending=True).values
        torch.testing.assert_close(values, exact[:4], rtol=2e-4, atol=0)


def test_spread_of_the_rates_is_that_of_repeated_samples(source):
    def sample():
        theta = 2 * math.pi * torch.rand(150, generator=source, dtype=torch.float64)
        return torch.stack([theta.cos(), theta.sin()], 1)

    spec = DiffusionMap(coordinates=2, scale=0.1)
    fits = [spec.fit(sample()) for _ in range(60)]
    sums = torch.stack([(-f.values[1:3].log() / f.scale).sum() for f in fits])
    spreads = [fits[k].rates(100, seed=k).apply(lambda d: d.sum(-1), "").stddev for k in range(6)]
    assert 0.6 < float(torch.stack(spreads).mean() / sums.std()) < 1.6


def test_slow_coordinate_of_low_variance_is_not_seen_without_time(normal):
    """The map sees the wide fast direction; TICA sees the slow narrow one."""
    slow, fast = torch.zeros(4000, dtype=torch.float64), normal(4000)
    noise = normal(4000)
    for t in range(1, 4000):
        slow[t] = 0.98 * slow[t - 1] + (1 - 0.98**2) ** 0.5 * noise[t]
    x = torch.stack([0.3 * slow, fast], 1)
    coordinate = DiffusionMap(coordinates=1, alpha=0.0, points=500).fit(x)(x)[:, 0]
    overlap = torch.corrcoef(torch.stack([coordinate, slow, fast]))[0].abs()
    assert overlap[2] > 0.8 > 0.3 > overlap[1]


def test_what_cannot_be_mapped(normal):
    with pytest.raises(DataError, match="frames that differ"):
        DiffusionMap().fit(torch.ones(50, 2))
    with pytest.raises(DataError, match="more than 3 frames"):
        DiffusionMap(coordinates=2).fit(normal(3, 2))
    for wrong in ({"coordinates": 0}, {"scale": -1.0}, {"alpha": 1.5}):
        with pytest.raises(DataError):
            DiffusionMap(**wrong)
