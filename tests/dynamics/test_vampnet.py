"""VAMPnets on a two-state signal, and on the double well whose slow rate is known."""

import math

import pytest
import torch

from bayesmol.data.exact import double_well
from bayesmol.data.exact_spectra import euler_chain
from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.vampnet import VAMPNet
from bayesmol.errors import ConvergenceError, DataError, ShapeError


@pytest.fixture(scope="module")
def telegraph():
    """Two states at ±1 in the first feature, left with probability 0.02, under noise; the second feature is noise."""
    source = torch.Generator().manual_seed(5)
    flips = torch.rand(6000, generator=source) < 0.02
    state = 1.0 - 2.0 * (flips.cumsum(0) % 2)
    noise = 0.4 * torch.randn(6000, 2, generator=source, dtype=torch.float64)
    return torch.stack([state.double(), torch.zeros(6000, dtype=torch.float64)], 1) + noise


@pytest.fixture(scope="module")
def fitted(telegraph):
    spec = VAMPNet(lag=5, states=2, members=2, widths=(8,), epochs=8, batch=200, learning_rate=0.02, draws=200)
    return spec.fit(Trajectories.of(telegraph, time_step=0.5, unit="ps"), seed=0)


def test_finds_the_hidden_states(telegraph, fitted):
    values = fitted.memberships(telegraph[:500]).mean
    torch.testing.assert_close(values.sum(1), torch.ones(500, dtype=torch.float64))
    right = (values.argmax(1) == (telegraph[:500, 0] > 0)).double().mean()
    assert float((right - 0.5).abs()) > 0.45  # the names of the states are free


def test_timescale_has_its_unit_and_covers_the_truth(fitted):
    times = fitted.timescales()
    interval = times.interval(0.95)
    truth = -0.5 / math.log(1 - 2 * 0.02)
    assert times.unit == "ps" and times.values.shape == (1, 400, 1)
    assert float(interval.lower) < truth < float(interval.upper)
    assert float(interval.width) < truth


def test_score_on_blocks_left_out_is_near_the_exact_one(fitted):
    exact = 1 + (1 - 2 * 0.02) ** 10
    assert fitted.scores.shape == (2,)
    assert float((fitted.scores - exact).abs().max()) < 0.15


def test_members_differ_and_the_seed_fixes_them(telegraph):
    spec = VAMPNet(lag=5, states=2, members=2, widths=(4,), epochs=1, draws=10)
    first, again, other = (spec.fit(telegraph, seed=seed) for seed in (1, 1, 2))
    x = telegraph[:50]
    assert torch.equal(first.memberships(x).values, again.memberships(x).values)
    assert torch.equal(first.timescales().values, again.timescales().values)
    assert not torch.equal(first.networks[0](x), first.networks[1](x))
    assert not torch.equal(first.networks[0](x), other.networks[0](x))


def test_a_network_is_a_basis(telegraph, fitted):
    network = fitted.networks[0]
    assert network.functions == 2 and network.constant
    assert not any(part.requires_grad for part in (*network.weights, *network.biases))
    with pytest.raises(ShapeError):
        network(telegraph[:, :1])


def test_what_cannot_be_trained(telegraph):
    with pytest.raises(ConvergenceError, match="500 pairs"):
        VAMPNet(lag=5, states=2).fit(telegraph[:300], seed=0)
    with pytest.raises(DataError, match="features"):
        VAMPNet(lag=5, states=2).fit(torch.zeros(1000, dtype=torch.int64), seed=0)
    for wrong in ({"lag": 0, "states": 2}, {"lag": 1, "states": 1}, {"lag": 1, "states": 2, "held_out": 1.0}):
        with pytest.raises(DataError):
            VAMPNet(**wrong)


@pytest.mark.slow
def test_double_well_rate_within_three_percent():
    """V = 5 (x² − 1)²: κ₂ = 0.05552. The trajectories are 18,000 relaxation times, which give it to 1 %."""
    data = double_well().simulate(161, trajectories=2000, step=1e-3, steps=1000, seed=0)
    spec = VAMPNet(lag=1, states=2, members=3, widths=(16, 16), epochs=6, learning_rate=0.01, draws=200)
    rates = spec.fit(data, seed=0).timescales().apply(lambda t: 1 / t, "")
    assert float(rates.mean) == pytest.approx(0.05552, rel=0.03)
    chain = 1 / float(euler_chain(double_well(), step=1e-3, steps=1000).timescales(1)[0])
    interval = rates.interval(0.99)
    assert float(interval.lower) < chain < float(interval.upper)
    assert float(interval.width) < 0.1 * chain
