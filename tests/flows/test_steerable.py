"""Flows at many temperatures: exact scaling, harmonic variances, and a double well steered to twice its temperature."""

import math

import pytest
import torch

from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.density import BoltzmannDensity
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.objectives import ReverseKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.steerable import AdditiveCouplings, SteerableFlow, Steered, TemperatureSteering
from bayesmol.inference.importance import effective_size
from bayesmol.inference.random import generator

LINES = torch.zeros(2, dtype=torch.bool)


@pytest.fixture
def harmonic():
    """Correlated Gaussian about (1, -0.5), of variances 1.25 and 1 at temperature 1."""
    inverse = torch.linalg.inv(torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=torch.float64))
    centre = torch.tensor([1.0, -0.5], dtype=torch.float64)

    def energy(x):
        apart = x - centre.to(x)
        return ((apart @ inverse.to(x)) * apart).sum(1) / 2

    return BoltzmannDensity(energy, 2)


def shaken(flow, source):
    for weight in flow.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=source)
    return flow.double()


def test_a_constant_volume_scales_with_the_temperature(source):
    flow = shaken(AdditiveCouplings(layers=4, width=16).build(torch.zeros(3, dtype=torch.bool), seed=0), source)
    x = torch.randn(50, 3, generator=source, dtype=torch.float64)
    with torch.no_grad():
        cold, hot = flow.log_prob(x), Steered(flow, 750.0, 300.0).log_prob(x)
    rest = hot - cold / 2.5
    torch.testing.assert_close(rest, rest[:1].expand(50), rtol=0, atol=1e-9)
    assert float(cold.std()) > 1


@pytest.mark.parametrize("context", [0, 1])
@torch.no_grad()
def test_draws_carry_their_density(source, context):
    circular = torch.tensor([False, True, False])
    flow = shaken(Couplings(layers=2, width=16).build(circular, seed=0, context=context), source)
    steered = Steered(flow, 2.0)
    assert isinstance(steered, Proposal)
    x, log_q = steered.sample(200, seed=0)
    torch.testing.assert_close(log_q, steered.log_prob(x), rtol=1e-7, atol=1e-7)
    assert float(x[:, 1].abs().max()) <= math.pi
    same = flow.log_prob(x, torch.zeros(200, 1, dtype=torch.float64) if context else None)
    torch.testing.assert_close(Steered(flow, 1.0).log_prob(x), same)


def test_harmonic_variances_are_proportional_to_the_temperature(harmonic):
    flow = AdditiveCouplings(layers=2, width=16, depth=1).build(LINES, seed=0)
    ReverseKL(Optimisation(steps=150, batch=256, rate=2e-2)).fit(flow, harmonic, seed=0)
    for temperature in (0.5, 1.0, 3.0):
        with torch.no_grad():
            x, log_q = Steered(flow, temperature).sample(40_000, seed=1)
        assert effective_size(-harmonic.at(temperature).reduced_energy(x) - log_q).fraction > 0.99
        torch.testing.assert_close(x.var(0) / temperature, torch.tensor([1.25, 1.0]), rtol=0.02, atol=0)


def test_the_range_of_training_is_kept(affine):
    steerable = SteerableFlow(affine([0.0], [0.0]), 300.0, 300.0, 1000.0)
    x, _ = steerable.at(1000.0).sample(20_000, seed=0)
    assert float(x.var().detach()) == pytest.approx(10 / 3, rel=0.05)
    with pytest.raises(ApplicabilityError, match="from 300 to 1000"):
        steerable.at(1001.0)


def test_energies_alone(harmonic):
    flow = Couplings(layers=2, width=16, bins=4, kind="affine").build(LINES, seed=0, context=1)
    steering = TemperatureSteering(Optimisation(steps=90, batch=128, rate=2e-2), hottest=3.0, strata=2)
    training = steering.fit(flow, harmonic, seed=0)
    assert training.skipped == 0
    for temperature in (1.0, 3.0):
        with torch.no_grad():
            x, log_q = Steered(flow, temperature).sample(4000, seed=1)
        assert effective_size(-harmonic.at(temperature).reduced_energy(x) - log_q).fraction > 0.9


def test_colder_temperatures_are_let_in():
    steering = TemperatureSteering(hottest=4.0, opening=0.5)
    coldest = [float(steering.refresh(None, None, {}, turn, None)["coldest"]) for turn in (0, 25, 50, 99)]
    assert coldest == pytest.approx([4.0, 2.0, 1.0, 1.0])
    with_samples = steering.refresh(None, None, {"x": torch.zeros(2, 2)}, 0, None)
    assert float(with_samples["coldest"]) == 1.0


def test_samples_know_their_energy(harmonic, normal):
    """Of a density with a volume the energy alone scales."""

    class WithVolume:
        dimension, temperature = 2, 1.0

        def __init__(self, temperature=1.0):
            self.temperature = temperature

        def at(self, temperature):
            return WithVolume(temperature)

        def reduced_energy(self, x):
            return harmonic.at(self.temperature).reduced_energy(x) - x[:, 0]

    x = normal(20, 2)
    data = TemperatureSteering()._data(WithVolume(), x)
    torch.testing.assert_close(data["energy"], harmonic.reduced_energy(x))


def test_bad_input(harmonic, affine):
    for settings in ({"coldest": 4.0}, {"strata": 0}, {"forward": 0.0, "reverse": 0.0}, {"opening": 1.0}):
        with pytest.raises(DataError):
            TemperatureSteering(**settings)
    with pytest.raises(DataError, match="samples"):
        TemperatureSteering(reverse=0.0).fit(affine([0.0, 0.0], [0.0, 0.0]), harmonic, seed=0)
    with pytest.raises(DataError, match="temperature"):
        Steered(affine([0.0], [0.0]), -1.0)
    with pytest.raises(DataError, match="context"):
        Steered(Couplings(layers=1).build(LINES, seed=0, context=2), 2.0)


def exact_samples(size, seed):
    """Double well at temperature 1, by the inverse of its distribution function."""
    source = generator(seed)
    grid = torch.linspace(-3, 3, 20_001, dtype=torch.float64)
    levels = (-(grid - 4 * grid.square() + grid**4)).exp().cumsum(0)
    place = torch.searchsorted(levels, levels[-1] * torch.rand(size, generator=source, dtype=torch.float64))
    return torch.stack([grid[place], torch.randn(size, generator=source, dtype=torch.float64)], 1)


@pytest.mark.slow
def test_a_double_well_steered_to_twice_its_temperature():
    """From samples at T = 1: free-energy difference at T = 2 within 0.1 kT, from the flow alone and with weights."""
    density = double_well()
    flow = Couplings(layers=2, width=32, bins=8).build(LINES, seed=0, context=1)
    steering = TemperatureSteering(Optimisation(steps=400, batch=256, rate=5e-3), hottest=2.0, strata=2)
    steering.fit(flow, density, exact_samples(4000, 1), seed=0)
    hot = density.at(2.0)
    with torch.no_grad():
        x, log_q = Steered(flow, 2.0).sample(40_000, seed=3)
    shares = hot.known().populations
    truth = math.log(shares[0] / shares[1])
    weights = (-hot.reduced_energy(x) - log_q).double().softmax(0)
    for share in ((x[:, 0] < 0).double().mean(), weights[x[:, 0] < 0].sum()):
        assert float(torch.log(share / (1 - share))) == pytest.approx(truth, abs=0.1)
    assert effective_size(-hot.reduced_energy(x) - log_q).fraction > 0.8
