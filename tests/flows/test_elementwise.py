"""Maps of single coordinates: identity at zero, inverse, slope by finite differences, circles."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.conditioners import reproducible
from bayesmol.flows.elementwise import Marginals, Shifts, Splines

CIRCULAR = torch.tensor([True, False])


def families():
    with reproducible(0):
        return [Splines(CIRCULAR, 6, 5.0).double(), Shifts(CIRCULAR)]


def planes():
    x = torch.stack([torch.linspace(-3.1, 3.1, 41), torch.linspace(-7.0, 7.0, 41)]).double()
    return x, lambda maps: torch.randn(maps.numbers, 2, 41, generator=torch.Generator().manual_seed(1)).double() / 2


def around(x):
    return torch.where(CIRCULAR[:, None], torch.remainder(x + math.pi, 2 * math.pi) - math.pi, x)


@pytest.mark.parametrize("maps", families(), ids=["splines", "shifts"])
def test_zero_is_the_identity(maps):
    x, _ = planes()
    z, slope = maps(x, torch.zeros(maps.numbers, 2, 1).double())
    torch.testing.assert_close(around(z - x), torch.zeros_like(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(slope, torch.zeros_like(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("maps", families(), ids=["splines", "shifts"])
def test_inverse_and_slope(maps):
    x, random = planes()
    parameters = random(maps)
    z, slope = maps(x, parameters)
    back, other = maps(z, parameters, inverse=True)
    torch.testing.assert_close(around(back - x), torch.zeros_like(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(other, -slope, rtol=0, atol=1e-6)
    moved, _ = maps(x + 1e-6, parameters)
    torch.testing.assert_close(around(moved - z) / 1e-6, slope.exp(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("maps", families(), ids=["splines", "shifts"])
def test_circles_close(maps):
    x, random = planes()
    parameters = random(maps)
    z, slope = maps(x, parameters)
    turned, again = maps(x + 2 * math.pi * CIRCULAR[:, None], parameters)
    torch.testing.assert_close(around(turned - z), torch.zeros_like(x), rtol=0, atol=1e-6)
    torch.testing.assert_close(again, slope, rtol=0, atol=1e-6)


def test_marginals_add_up():
    maps = families()[0]
    layer, x = Marginals(maps, 2).double(), planes()[0].T
    torch.nn.init.normal_(layer.weight, std=0.5)
    z, volume = layer(x)
    back, other = layer.inverse(z)
    torch.testing.assert_close(around((back - x).T), torch.zeros(2, 41).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(other, -volume, rtol=0, atol=1e-6)
    assert volume.shape == (41,)


@pytest.mark.parametrize(("bins", "bound"), [(1, 5.0), (300, 5.0), (8, 0.0), (8, math.inf)])
def test_bad_sizes(bins, bound):
    with pytest.raises(DataError, match="bins"):
        Splines(CIRCULAR, bins, bound)
