"""Free-energy differences between densities, against closed forms."""

import math

import pytest
import torch

from bayesmol.errors import ShapeError
from bayesmol.flows.autoregressive import Autoregressive
from bayesmol.flows.coordinates import Cartesian, Composed
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.differences import free_energy_difference
from bayesmol.flows.fitted import FittedGenerator
from bayesmol.flows.whitened import whitening
from bayesmol.testing import assert_calibrated

ARCHITECTURE = Autoregressive(width=4, bins=4)


def harmonic(stiffness, centre, spread=1.0, dimension=1):
    """An oscillator, and a flow that is its density with the deviation ``spread`` times too large."""

    def energy(x):
        return stiffness * (x - centre).square().sum(1) / 2

    rows = centre + spread / math.sqrt(stiffness) * torch.linspace(-2.2, 2.2, 999, dtype=torch.float64)[:, None]
    rows = rows.expand(-1, dimension) + 1e-3 * torch.randn(999, dimension).double() * (dimension > 1)
    plain = Cartesian(dimension)
    system = Composed([plain, whitening(rows, plain.circular)])
    flow = ARCHITECTURE.build(system.circular, seed=0).double().requires_grad_(False)
    density = BoltzmannDensity(energy, dimension, start=torch.full((1, dimension), float(centre)).double())
    return FittedGenerator(density, system, (flow,), (), ARCHITECTURE, (0,))


@pytest.mark.parametrize("shift", [0.5, 30.0])
def test_harmonic_oscillators(shift):
    first, second = harmonic(1.0, 0.0), harmonic(4.0, shift)
    difference = free_energy_difference(first, second, draws=20_000, seed=0)
    assert float(difference.standard_error) < 0.02
    assert abs(float(difference.value) - math.log(4) / 2) < 4 * float(difference.standard_error)


def test_the_error_covers():
    first, second = harmonic(1.0, 0.0), harmonic(2.0, 0.3)
    _ = first.trust, second.trust
    found = [free_energy_difference(first, second, draws=1000, seed=seed) for seed in range(120)]
    truth = torch.tensor(math.log(2) / 2, dtype=torch.float64)
    hits = sum(bool(one.interval(0.95).contains(truth)) for one in found)
    assert_calibrated(hits, 120, 0.95, confidence=0.999)


def test_no_number_from_a_wrong_flow():
    wrong = harmonic(1.0, 0.0)
    wrong = wrong.on(
        BoltzmannDensity(lambda x: 50 * (x - 9).square().sum(1), 1, start=torch.full((1, 1), 9.0).double())
    )
    difference = free_energy_difference(harmonic(1.0, 0.0), wrong, draws=1000, seed=0)
    assert math.isnan(float(difference.value))
    assert "second" in difference.reason


def test_systems_must_be_the_same():
    with pytest.raises(ShapeError, match="second"):
        free_energy_difference(harmonic(1.0, 0.0), harmonic(1.0, 0.0, dimension=2), seed=0)
