"""Temperature annealing: the ladder, targets at other temperatures, and a Gaussian that is reached."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.tempering import TemperatureAnnealing, heated


@pytest.fixture
def density(gaussian):
    return BoltzmannDensity(gaussian.reduced_energy, 2, 1.5)


def test_ladder_falls_from_the_hottest_to_the_target():
    spec = TemperatureAnnealing(hottest=4.0, coolings=2, first=3)
    assert spec.rounds == 6
    assert [spec.ratio(i) for i in range(6)] == pytest.approx([4, 4, 4, 2, 1, 1])


def test_target_at_another_temperature(normal, gaussian, density):
    x = normal(5, 2)
    torch.testing.assert_close(heated(density, 2.0).reduced_energy(x), density.reduced_energy(x) / 2)
    with pytest.raises(DataError, match="temperature"):
        heated(gaussian, 2.0)


def test_volumes_are_not_heated(normal, density):
    from bayesmol.flows.viewed import Viewed

    class Doubling:
        """y = x / 2, with the volume 2² of each."""

        dimension, circular = 2, torch.zeros(2, dtype=torch.bool)

        def inverse(self, y, context=None):
            return 2 * y, torch.full((len(y),), 2 * math.log(2), dtype=y.dtype)

    y = normal(5, 2)
    got = heated(Viewed(density, Doubling()), 3.0).reduced_energy(y)
    torch.testing.assert_close(got, density.reduced_energy(2 * y) / 3 - 2 * math.log(2))


def test_gaussian_is_reached(affine, gaussian):
    flow = affine([0.0, 0.0], [0.5, 0.5])
    settings = Optimisation(steps=400, batch=128, rate=0.05)
    spec = TemperatureAnnealing(settings, hottest=2.0, coolings=3, first=3, draws=1000)
    training = spec.fit(flow, BoltzmannDensity(gaussian.reduced_energy, 2), gaussian.sample(500), seed=0)
    assert training.forward_ess[-1][1] > 0.999
    torch.testing.assert_close(flow.transform.shift.detach(), gaussian.mean, atol=0.02, rtol=0)


def test_bad_settings():
    with pytest.raises(DataError, match="hottest"):
        TemperatureAnnealing(hottest=1.0)
