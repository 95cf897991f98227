import math

import pytest
import torch

from bayesmol.dynamics.weights import FEWEST, bandwidth, block_weights
from bayesmol.errors import ConvergenceError, DataError

ONE = torch.zeros(60, dtype=torch.long)


def test_far_blocks_have_exponential_weights_with_the_tails_of_students_t():
    weights = block_weights(ONE, 100.0, 1.0, 4000, seed=0)
    assert weights.freedom == pytest.approx(60)
    assert bool((weights.values >= 0).all())
    assert torch.allclose(weights.values.mean(1), torch.ones(4000, dtype=torch.float64))
    # E[ν/χ²] = ν/(ν − 2).
    assert float((weights.values - 1).square().mean()) == pytest.approx(60 / 58, rel=0.06)


def test_near_blocks_are_correlated_by_the_kernel():
    weights = block_weights(ONE, 1.0, 2.0, 8000, seed=1).values
    found = torch.corrcoef(weights.mT)
    place = torch.arange(60.0)
    mean = float(torch.exp(-(place - place[:, None]).square() / 8).mean())
    for apart in (1, 2, 4):
        wanted = (math.exp(-(apart**2) / 8) - mean) / (1 - mean)  # division by the sum takes the mean away
        assert float(found.diagonal(apart).mean()) == pytest.approx(wanted, abs=0.06)


def test_trajectories_are_independent():
    trajectory = torch.arange(40) // 10
    weights = block_weights(trajectory, 1.0, 30.0, 4000, seed=2)
    found = torch.corrcoef(weights.values.mT)
    assert float(found[9, 10]) == pytest.approx(-1 / 3, abs=0.1), "of four independent numbers whose sum is fixed"
    assert float(found[8, 9]) > 0.9
    assert 4 <= weights.freedom < 5


def test_the_spread_of_a_mean_is_that_of_its_long_run_variance():
    source, time, blocks = torch.Generator().manual_seed(3), 2.0, 1000
    decay = math.exp(-1 / time)
    noise = torch.randn(blocks, generator=source, dtype=torch.float64) * math.sqrt(1 - decay**2)
    x = [noise[0] / math.sqrt(1 - decay**2)]
    for one in noise[1:]:
        x.append(decay * x[-1] + one)
    values = torch.stack(x)
    weights = block_weights(torch.zeros(blocks, dtype=torch.long), 1.0, 5.6 * time, 400, seed=4)
    means = (weights.values @ values) / weights.values.sum(1)
    wanted = math.sqrt((1 + decay) / (1 - decay) / blocks)
    # ν = 50 independent blocks: the error itself is known to ±20 % (two standard errors).
    assert float(means.std()) == pytest.approx(wanted, rel=0.25)


def test_same_seed_same_weights():
    assert torch.equal(block_weights(ONE, 1.0, 2.0, 3, seed=5).values, block_weights(ONE, 1.0, 2.0, 3, seed=5).values)


def test_the_bandwidth_follows_lag_and_timescale_and_gives_way_where_data_are_few():
    assert bandwidth(100, 10.0, 10**6) == 300
    assert bandwidth(10, 100.0, 10**6) == pytest.approx(560)
    few = bandwidth(10, 100.0, 8000)
    assert 170 <= few < 560 and 8000 / (math.sqrt(math.pi) * few) >= FEWEST


def test_too_short_trajectories_have_no_error_bar():
    with pytest.raises(ConvergenceError, match="at least 3014 frames"):
        bandwidth(10, 100.0, 2000)
    with pytest.raises(ConvergenceError, match="independent"):
        block_weights(ONE[:4], 1.0, 100.0, 10, seed=0)
    with pytest.raises(DataError, match="blocks, draws"):
        block_weights(ONE[:1], 1.0, 1.0, 10, seed=0)


def test_short_trajectories_are_as_many_degrees_of_freedom():
    assert bandwidth(1, 100.0, 1500, trajectories=50) == pytest.approx(170)
    with pytest.raises(ConvergenceError, match="at least"):
        bandwidth(1, 100.0, 1500, trajectories=9)


def test_blocks_of_unequal_shares_have_less_freedom():
    alone = torch.arange(60)
    shares = torch.ones(60, dtype=torch.float64)
    shares[0] = 59
    assert block_weights(alone, 1.0, 1.0, 10, shares=shares, seed=0).freedom == pytest.approx(118**2 / (59**2 + 59))
