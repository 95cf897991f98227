"""SGOOP against the exact optimum on a two-dimensional potential of three wells in a row."""

import math

import numpy as np
import pytest
import torch

from bayesmol.dynamics.sgoop import SGOOP, spectral_gap
from bayesmol.errors import ConvergenceError, DataError

TILT, DIFFUSION = math.radians(35), 1.0
SPEC = SGOOP(lag=40, states=3, bins=24, directions=36, draws=40)


def energy(x, y):
    """Three wells 1.5 apart along the tilted axis, 3 kT deep, in a channel with a lower well in the middle."""
    along, across = math.cos(TILT) * x + math.sin(TILT) * y, math.cos(TILT) * y - math.sin(TILT) * x
    return (
        1.5 * (1 + np.cos(2 * np.pi * along / 1.5 + np.pi))
        + (along / 2.2) ** 8
        + 2 * across**2
        - 0.5 * np.exp(-(along**2))
    )


def walk(walkers, frames, seed):
    """Euler–Maruyama steps of 0.005, each a frame; forces by central differences."""
    source, h, e = np.random.default_rng(seed), 0.005, 1e-4
    place = source.choice([-1.5, 0.0, 1.5], walkers)
    x, y, out = place * math.cos(TILT), place * math.sin(TILT), []
    for step in range(frames + 200):
        fx = (energy(x + e, y) - energy(x - e, y)) / (2 * e)
        fy = (energy(x, y + e) - energy(x, y - e)) / (2 * e)
        x = x - DIFFUSION * h * fx + math.sqrt(2 * DIFFUSION * h) * source.standard_normal(walkers)
        y = y - DIFFUSION * h * fy + math.sqrt(2 * DIFFUSION * h) * source.standard_normal(walkers)
        if step >= 200:
            out.append(np.stack([x, y], 1))
    return list(torch.as_tensor(np.stack(out, 1)))


def exact_angle(data):
    """Angle of the widest gap by quadrature of the Boltzmann density, at the bins that the data have."""
    grid = np.linspace(-3, 3, 301)
    x, y = np.meshgrid(grid, grid, indexing="ij")
    mass, frames = np.exp(-energy(x, y)).ravel(), torch.cat(data).numpy()
    points, gaps = np.stack([x.ravel(), y.ravel()], 1), []
    angles = np.radians(np.arange(0.0, 180.0, 1.0))
    for angle in angles:
        c = np.array([math.cos(angle), math.sin(angle)])
        low, high = (frames @ c).min(), (frames @ c).max()
        density, _ = np.histogram(points @ c, 24, (low, high), weights=mass)
        density = torch.as_tensor(density / density.sum()).clamp_min(1e-6)
        hopping = torch.tensor(DIFFUSION * 0.005 * 40 / ((high - low) / 24) ** 2, dtype=torch.float64)
        gaps.append(float(spectral_gap(density, hopping, 3)))
    return angles[int(np.argmax(gaps))]


def difference(a, b):
    """Degrees between two axes."""
    return abs((math.degrees(a - b) + 90) % 180 - 90)


@pytest.fixture(scope="module")
def data():
    return walk(60, 500, 0)


@pytest.fixture(scope="module")
def fitted(data):
    return SPEC.fit(data, seed=0)


def test_direction_is_the_exact_optimum(data, fitted):
    exact = exact_angle(data)
    angle = math.atan2(float(fitted.direction[1]), float(fitted.direction[0]))
    assert difference(exact, TILT) < 5
    assert difference(angle, exact) < 5


def test_posterior_of_the_angle(fitted):
    angles = fitted.angles()
    assert angles.unit == "rad" and 0 < math.degrees(float(angles.stddev)) < 15
    torch.testing.assert_close(fitted.draws.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert bool((fitted.draws @ fitted.direction >= 0).all())
    assert 0 < float(fitted.gap().mean) < 1


def test_unit_of_a_feature_changes_only_its_coefficient(data, fitted):
    scaled = [part * torch.tensor([1.0, 100.0]) for part in data]
    direction = SPEC.fit(scaled, seed=0).direction * torch.tensor([1.0, 100.0])
    cosine = torch.nn.functional.cosine_similarity(direction, fitted.direction, dim=0)
    assert float(cosine.abs()) > 0.9999


def test_third_feature_of_noise_is_left_out(data, normal):
    wider = [torch.cat([part, 0.5 * normal(len(part), 1)], 1) for part in data]
    direction = SGOOP(lag=40, states=3, bins=24, directions=120, draws=2).fit(wider, seed=0).direction
    target = torch.tensor([math.cos(TILT), math.sin(TILT), 0.0], dtype=torch.float64)
    assert float((direction @ target).abs()) > math.cos(math.radians(20))


def test_gap_of_free_diffusion_on_a_line():
    """Flat density: ω_k = 2 a (1 − cos πk / n)."""
    n, a = 20, 0.7
    omega = [2 * a * (1 - math.cos(math.pi * k / n)) for k in range(4)]
    density = torch.full((2, n), 1 / n, dtype=torch.float64)
    got = spectral_gap(density, torch.full((2,), a, dtype=torch.float64), 3)
    torch.testing.assert_close(got, torch.full((2,), math.exp(-omega[2]) - math.exp(-omega[3])).double())


def test_gap_is_that_of_the_rate_matrix(normal):
    p = torch.softmax(normal(12), 0)
    rates = torch.zeros(12, 12, dtype=torch.float64)
    for n in range(11):
        rates[n, n + 1], rates[n + 1, n] = (p[n + 1] / p[n]).sqrt(), (p[n] / p[n + 1]).sqrt()
    rates -= rates.sum(1).diag()
    values = torch.linalg.eigvals(torch.matrix_exp(0.3 * rates)).real.sort(descending=True).values
    got = spectral_gap(p, torch.tensor(0.3, dtype=torch.float64), 2)
    torch.testing.assert_close(got, values[1] - values[2])


def test_what_has_no_direction(normal):
    with pytest.raises(DataError, match="two features"):
        SPEC.fit(normal(100, 1), seed=0)
    with pytest.raises(DataError, match="none constant"):
        SPEC.fit(torch.cat([normal(100, 1), torch.ones(100, 1)], 1), seed=0)
    with pytest.raises(ConvergenceError, match="two frames"):
        SPEC.fit([normal(1, 2), normal(1, 2)], seed=0)
    with pytest.raises(DataError):
        SGOOP(lag=1, states=1)
