"""Free-energy profiles: exact densities, bands that hold, empty bins, periods."""

import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.inference.profiles import free_energy_profile
from bayesmol.testing import assert_calibrated

NORMAL = torch.distributions.Normal(torch.tensor(0.0).double(), torch.tensor(1.0).double())


def exact(edges):
    return -(NORMAL.cdf(edges).diff() / edges.diff()).log()


def draws(source, size, scale=1.3):
    """Weighted draws of the standard normal law."""
    x = scale * torch.randn(size, generator=source, dtype=torch.float64)
    return x, -x.square() / 2 + x.square() / (2 * scale**2)


def test_weighted_profile(source):
    x, log_weights = draws(source, 50_000)
    found = free_energy_profile(x, log_weights, bins=20, span=(-2.5, 2.5))
    gap = (found.free_energy.value - exact(found.edges)) / found.free_energy.standard_error
    assert float(gap.abs().max()) < 4 and 0.5 < float(gap.square().mean()) < 2
    assert bool(found.simultaneous().contains(exact(found.edges)).all())
    wider = found.simultaneous().width / found.pointwise().width
    assert bool((wider > 1.3).all()) and bool((wider < 1.8).all())
    torch.testing.assert_close(found.centres[0], found.edges[:2].mean())


def test_periodic_values_are_brought_to_one_period(source):
    angle = torch.randn(5000, generator=source, dtype=torch.float64)
    first = free_energy_profile(angle, periodic=True, bins=12)
    moved = free_energy_profile(angle + 4 * math.pi, periodic=True, bins=12)
    torch.testing.assert_close(first.free_energy.value, moved.free_energy.value)
    assert float(first.edges[0]) == -math.pi and float(first.edges[-1]) == math.pi
    total = (-first.free_energy.value).exp().sum() * (2 * math.pi / 12)
    torch.testing.assert_close(total, torch.tensor(1.0).double())


def test_empty_and_poor_bins_have_infinite_bands():
    x = torch.cat([torch.full((500,), 0.5), torch.full((2,), 1.5), torch.full((300,), 3.0)])
    found = free_energy_profile(x, bins=4, span=(0.0, 4.0))
    for band in (found.pointwise(), found.simultaneous()):
        assert torch.isinf(band.width).tolist() == [False, True, True, False]
    assert float(found.free_energy.value[2]) == math.inf
    whole = free_energy_profile(x, bins=2)
    assert float((-whole.free_energy.value).exp() @ whole.edges.diff()) == pytest.approx(1)


def test_draws_outside_the_span_belong_to_the_density():
    found = free_energy_profile(torch.tensor([0.5] * 30 + [9.0] * 30), bins=1, span=(0.0, 1.0))
    assert float(found.free_energy.value) == pytest.approx(math.log(2))


def test_bad_input():
    with pytest.raises(ShapeError, match="coordinate"):
        free_energy_profile(torch.tensor([0.0, math.nan]))
    with pytest.raises(DataError, match="span"):
        free_energy_profile(torch.zeros(5))
    with pytest.raises(DataError, match="span"):
        free_energy_profile(torch.arange(5.0), bins=0)


@pytest.mark.slow
def test_bands_cover(source):
    trials, together, one = 600, 0, 0
    for _ in range(trials):
        x, log_weights = draws(source, 5000)
        found = free_energy_profile(x, log_weights, bins=12, span=(-2.0, 2.0))
        truth = exact(found.edges)
        together += bool(found.simultaneous().contains(truth).all())
        one += bool(found.pointwise().contains(truth)[3])
    assert_calibrated(together, trials, 0.95)
    assert_calibrated(one, trials, 0.95)
