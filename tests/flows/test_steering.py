"""One flow is trained for a range of temperatures: from energies alone, and from samples of some of them."""

import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.counted import Counted
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.steerable import Steered
from bayesmol.flows.steering import TemperatureSteering
from bayesmol.inference.importance import effective_size
from bayesmol.inference.random import generator

LINES = torch.zeros(2, dtype=torch.bool)


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
    data = TemperatureSteering()._data(WithVolume(), x, None)
    torch.testing.assert_close(data["energy"], harmonic.reduced_energy(x))


def test_samples_of_several_temperatures_serve_all(harmonic, normal):
    """Weighted, draws at 1, 2 and 3 times the temperature have the variances of any temperature between."""
    ladder = torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)  # in any order
    root = torch.linalg.cholesky(torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=torch.float64))
    centre = torch.tensor([1.0, -0.5], dtype=torch.float64)
    rows = torch.cat([centre + t.sqrt() * normal(4000, 2) @ root.mT for t in ladder])
    steering = TemperatureSteering(hottest=3.0)
    data = steering._data(harmonic, rows, ladder.repeat_interleave(4000))
    data = steering.refresh(None, Counted(harmonic), data, 0, generator(0))
    assert float(data["steps"][0]) > 0 and float(data["steps"][1:].abs().max()) == 0
    moved = (data["x"] != rows[ladder.repeat_interleave(4000).argsort(stable=True)]).any(1)
    assert 0 < int(moved.sum()) <= steering.moved and not bool(moved[4000:].any())
    torch.testing.assert_close(data["energy"], harmonic.reduced_energy(data["x"]))
    low = data["picked_ratios"] < 1.3
    for part in (low, ~low):
        variances = ((data["picked_x"][part] - centre) / data["picked_ratios"][part].sqrt()[:, None]).var(0)
        torch.testing.assert_close(variances, torch.tensor([1.25, 1.0], dtype=torch.float64), rtol=0.1, atol=0)
    assert float(data["picked_weights"].min()) > 0.8


def test_samples_have_no_say_where_they_do_not_reach(harmonic, normal):
    """Draws at the coldest temperature alone know nothing of one thirty times as high."""
    root = torch.linalg.cholesky(torch.tensor([[1.25, 0.5], [0.5, 1.0]], dtype=torch.float64))
    rows = torch.tensor([1.0, -0.5], dtype=torch.float64) + normal(400, 2) @ root.mT
    steering = TemperatureSteering(hottest=30.0, moved=0)
    data = steering.refresh(None, Counted(harmonic), steering._data(harmonic, rows, None), 0, generator(0))
    order = data["picked_ratios"].argsort()
    assert float(data["picked_weights"][order[-1]]) < 0.2 < 0.5 < float(data["picked_weights"][order[0]])


def test_bad_input(harmonic, affine):
    for settings in (
        {"coldest": 4.0},
        {"strata": 0},
        {"forward": 0.0, "reverse": 0.0},
        {"opening": 1.0},
        {"moved": -1},
        {"reference": 0.0},
    ):
        with pytest.raises(DataError):
            TemperatureSteering(**settings)
    with pytest.raises(DataError, match="samples"):
        TemperatureSteering(reverse=0.0).fit(affine([0.0, 0.0], [0.0, 0.0]), harmonic, seed=0)
    with pytest.raises(ShapeError, match="temperatures"):
        TemperatureSteering().fit(affine([0.0, 0.0], [0.0, 0.0]), harmonic, torch.zeros(3, 2), torch.ones(2), seed=0)


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
