"""Flows at many temperatures: exact scaling, harmonic variances, rows with temperatures of their own."""

import math

import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.objectives import ReverseKL
from bayesmol.flows.optimisation import Optimisation
from bayesmol.flows.proposal import Proposal
from bayesmol.flows.steerable import AdditiveCouplings, Steered
from bayesmol.inference.importance import effective_size

LINES = torch.zeros(2, dtype=torch.bool)


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


def test_rows_may_have_temperatures_of_their_own(source):
    flow = shaken(Couplings(layers=2, width=16).build(LINES, seed=0, context=1), source)
    x, temperatures = torch.randn(6, 2, generator=source, dtype=torch.float64), torch.linspace(1, 3, 6)
    with torch.no_grad():
        together = Steered(flow, temperatures).log_prob(x)
        one_by_one = torch.cat([Steered(flow, float(t)).log_prob(x[i : i + 1]) for i, t in enumerate(temperatures)])
    torch.testing.assert_close(together, one_by_one)


def test_bad_input(affine):
    with pytest.raises(DataError, match="temperature"):
        Steered(affine([0.0], [0.0]), -1.0)
    with pytest.raises(DataError, match="context"):
        Steered(Couplings(layers=1).build(LINES, seed=0, context=2), 2.0)
