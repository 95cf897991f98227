import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.surface_errors import surface_error
from bayesmol.inference.conjugate import posterior_from_rows
from bayesmol.posterior import Draws
from bayesmol.testing import assert_calibrated

GRID = torch.linspace(-3.0, 3.0, 2001, dtype=torch.float64)


def features(x):
    """A line in a box: the walls keep the density, the waves are what is learned."""
    return torch.cat([torch.cos(k * x[:, :1]) for k in (1, 2, 3)] + [torch.sin(k * x[:, :1]) for k in (1, 2)], 1)


def wall(x):
    return (x[:, 0] / 2).square().square()


def linear(mean, root):
    """Density of a mean energy that is linear in features, and its posterior."""

    def surfaces(x, draws, seed):
        source = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
        normal = torch.randn(draws, root.shape[1], generator=source, dtype=torch.float64)
        return wall(x) + (mean + normal @ root.T) @ features(x).T

    return BoltzmannDensity(lambda x: wall(x) + features(x) @ mean, 1, surfaces=surfaces)


def expectation(weights, observable=lambda x: x[:, 0].square()):
    """By quadrature; one row of weights for each surface."""
    x = GRID[:, None]
    shares = (-wall(x) - torch.atleast_2d(weights) @ features(x).T).softmax(1)
    return shares @ observable(x)


def sample(mean, size, seed, flatness=0.7):
    """Draws of a flatter density with the weights of the one of the mean, exact up to the grid."""
    x = GRID[:, None]
    energy = wall(x) + features(x) @ mean
    law = (-flatness * energy).softmax(0)
    source = torch.Generator().manual_seed(seed)
    picked = torch.multinomial(law, size, replacement=True, generator=source)
    values = (GRID[picked])[None, :, None]
    return Draws(values, (-(1 - flatness) * energy[picked])[None], unit="")


MEAN = torch.tensor([0.5, -0.8, 0.2, 0.3, -0.4], dtype=torch.float64)


def square(values):
    return values[:, 0].square()


def test_shares_are_those_of_quadrature():
    root = 0.25 * torch.eye(5, dtype=torch.float64)
    found = surface_error(linear(MEAN, root), sample(MEAN, 8000, 0), square, seed=1, surfaces=400)
    source = torch.Generator().manual_seed(7)
    exact = expectation(MEAN + torch.randn(4000, 5, generator=source, dtype=torch.float64) @ root.T)
    assert float(found.epistemic) == pytest.approx(float(exact.std()), rel=0.12)
    assert abs(float(found.total.value - exact.mean())) < 4 * float(exact.std()) / 400**0.5 + 4 * float(found.sampling)
    plain = sample(MEAN, 8000, 0).expectation(square)
    assert float(found.sampling) == pytest.approx(float(plain.standard_error), rel=0.3)
    total = float(found.total.standard_error) ** 2
    assert total == pytest.approx(float(found.sampling) ** 2 + float(found.epistemic) ** 2, rel=1e-6)
    assert found.expectations.shape == found.effective_sample_sizes.shape == (400,)


def test_small_variance_is_linear_response():
    r"""Var ≈ cᵀ S c with c = −Cov(O, φ) / kT."""
    root = 0.02 * torch.tril(torch.ones(5, 5, dtype=torch.float64))
    x = GRID[:, None]
    law = (-wall(x) - features(x) @ MEAN).softmax(0)
    observable, phi = x[:, 0].square(), features(x)
    slope = -(law * observable) @ (phi - law @ phi)
    want = float((slope @ root).norm())
    found = surface_error(linear(MEAN, root), sample(MEAN, 20000, 3), square, seed=2, surfaces=1500)
    assert float(found.epistemic) == pytest.approx(want, rel=0.08)


def test_a_constant_shift_of_the_energy_is_no_error():
    density = linear(MEAN, torch.zeros(5, 5, dtype=torch.float64))
    shifted = BoltzmannDensity(density.energy, 1, surfaces=lambda x, n, s: density.surfaces(x, n, s) + 5.0)
    draws = sample(MEAN, 2000, 0)
    found = surface_error(shifted, draws, square, seed=0, surfaces=20)
    assert float(found.epistemic) < 1e-12
    assert float(found.total.value) == pytest.approx(float(draws.expectation(square).value), abs=1e-12)


def test_surfaces_that_the_draws_do_not_reach_have_no_error_bar():
    root = 8.0 * torch.eye(5, dtype=torch.float64)
    found = surface_error(linear(MEAN, root), sample(MEAN, 1000, 0), square, seed=0, surfaces=40)
    assert math.isinf(float(found.total.standard_error)) and "no error bar" in found.verdict
    assert bool(torch.isinf(found.total.interval(0.95).width))


def test_rows_without_weight_may_lie_outside_the_domain():
    density = linear(MEAN, 0.1 * torch.eye(5, dtype=torch.float64))
    outside = BoltzmannDensity(
        lambda x: torch.where(x[:, 0].abs() > 2.9, torch.inf, density.energy(x)), 1, surfaces=density.surfaces
    )
    draws = sample(MEAN, 2000, 0)
    kept = draws.values[..., 0].abs() <= 2.9
    weighted = Draws(draws.values, torch.where(kept, draws.log_weights, -torch.inf), unit="")
    found = surface_error(outside, weighted, square, seed=0, surfaces=30)
    assert bool(torch.isfinite(found.total.standard_error))
    values = torch.cat([draws.values, torch.full((1, 1, 1), 2.95, dtype=torch.float64)], 1)
    flat = Draws(values, torch.zeros(1, 2001, dtype=torch.float64), unit="")
    with pytest.raises(DataError, match="outside the domain"):
        surface_error(outside, flat, square, seed=0)


def test_observables_with_axes_and_chains():
    density = linear(MEAN, 0.1 * torch.eye(5, dtype=torch.float64))
    draws = sample(MEAN, 2000, 0)
    chains = Draws(draws.values.view(4, 500, 1), draws.log_weights.view(4, 500), unit="")
    both = surface_error(density, chains, lambda v: torch.cat([v, v.square()], 1), seed=0, surfaces=30, unit="Å")
    assert both.total.value.shape == (2,) and both.total.unit == "Å" and both.expectations.shape == (30, 2)


def test_bad_input():
    density = linear(MEAN, torch.eye(5, dtype=torch.float64))
    draws = sample(MEAN, 100, 0)
    with pytest.raises(DataError, match="surfaces"):
        surface_error(BoltzmannDensity(density.energy, 1), draws, square, seed=0)
    with pytest.raises(DataError, match="at least 20"):
        surface_error(density, draws, square, seed=0, surfaces=3)
    with pytest.raises(ShapeError, match="rows of 1"):
        surface_error(density, Draws(torch.zeros(1, 10, 2), unit=""), square, seed=0)


def repeated(seed, labels=24, noise=0.5):
    """Truth from the prior, noisy labels, the posterior that follows, draws from its mean: does the interval hold?"""
    source = torch.Generator().manual_seed(1000 + seed)
    truth = 0.6 * torch.randn(5, generator=source, dtype=torch.float64)
    x = 6 * torch.rand(labels, 1, generator=source, dtype=torch.float64) - 3
    targets = features(x) @ truth + noise * torch.randn(labels, generator=source, dtype=torch.float64)
    rows = torch.full((labels,), noise**2, dtype=torch.float64)
    posterior = posterior_from_rows(0.6 * features(x), targets, rows)
    root = 0.6 * posterior.spread(torch.eye(5, dtype=torch.float64))
    mean = 0.6 * posterior.mean
    found = surface_error(linear(mean, root), sample(mean, 3000, seed), square, seed=seed, surfaces=120, least=20)
    plain = sample(mean, 3000, seed).expectation(square)
    exact = float(expectation(truth))
    return [bool(part.interval(0.95).lower <= exact <= part.interval(0.95).upper) for part in (found.total, plain)]


@pytest.mark.slow
def test_total_interval_covers_over_repeated_fits_and_sampling_alone_does_not():
    hits = torch.tensor([repeated(seed) for seed in range(250)]).sum(0).tolist()
    assert_calibrated(hits[0], 250, 0.95, confidence=0.999)
    assert hits[1] < 0.6 * 250
