import math

import pytest
import torch

from bayesmol.calibration.blockwise import BlockConformal, consecutive, correlation_time
from bayesmol.calibration.conformal import Conformal
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian
from bayesmol.posterior.estimate import effective_sample_size


def posterior_of(*shape):
    return Gaussian(torch.zeros(*shape).double(), torch.ones(*shape).double(), unit="eV")


def streams(count, steps, seed, coefficient=0.95):
    """Stationary AR(1) streams of unit variance, one a row."""
    values = torch.randn(count, steps, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    scale = math.sqrt(1 - coefficient**2)
    for t in range(1, steps):
        values[:, t] = coefficient * values[:, t - 1] + scale * values[:, t]
    return values


def test_effective_sample_size_of_an_autoregressive_stream():
    values = streams(40, 5000, seed=0)
    exact = (1 - 0.95) / (1 + 0.95)
    assert float(effective_sample_size(values)) / values.numel() == pytest.approx(exact, rel=0.1)
    # the errors' absolute values forget faster; their squares have φ²
    assert correlation_time(values[0].square()) == pytest.approx((1 + 0.95**2) / (1 - 0.95**2), rel=0.35)
    assert correlation_time(torch.tensor([0.0, 1.0] * 10)) == 1


def test_long_run_coverage_of_a_correlated_stream():
    values, covered = streams(4, 30_000, seed=1), []
    for stream in values:
        rule = BlockConformal().fit(posterior_of(10_000), stream[:10_000])
        new = stream[10_000:]
        covered.append(rule.interval(posterior_of(len(new)), 0.9).covered(new))
        assert 20 < rule.length < 80 and rule.blocks == 10_000 // rule.length
    assert sum(covered) / 4 == pytest.approx(0.9, abs=0.02)


def test_short_streams_are_covered_where_steps_as_units_fail():
    # 150 steps have the memory of a few: counted as 150 independent ones they miss the level
    values, level, plain, covered = streams(600, 1150, seed=2), 0.8, [], []
    for stream in values:
        old, new = stream[:150], stream[-500:]
        radius = BlockConformal(length=15).fit(posterior_of(150), old).radius(level)
        covered.append(float((new.abs() <= radius).double().mean()))
        radius = float(Conformal().fit(posterior_of(150), old).radii(level))
        plain.append(float((new.abs() <= radius).double().mean()))
    error = float(torch.tensor(covered).std()) / math.sqrt(len(values))
    assert sum(plain) / 600 < level - 3 * error
    assert sum(covered) / 600 > level - 3 * error


def test_too_few_blocks_are_infinite_and_say_so():
    stream = streams(1, 2000, seed=3)[0]
    rule = BlockConformal(length=250).fit(posterior_of(2000), stream)
    assert rule.blocks == 8
    interval = rule.interval(posterior_of(3), 0.9)
    assert bool(interval.width.isinf().all()) and "needs 9 blocks, got 8 blocks of 250 steps" in interval.guarantee
    assert math.isfinite(rule.radius(0.8))
    sentence = rule.guarantee(0.8)
    assert "about 0.8" in sentence and "approximate" in sentence and "stationary" in sentence


def test_blocks_are_the_structures_of_the_hierarchical_rule(normal):
    truth, frames = normal(120, 3), torch.arange(60).repeat_interleave(2)
    block = (torch.arange(60) // 5)[frames]
    for together in (False, True):
        rule = BlockConformal(simultaneous=together, length=5).fit(posterior_of(120, 3), truth, groups=frames)
        want = Conformal(unit="structure", simultaneous=together).fit(posterior_of(120, 3), truth, groups=block)
        for level in (0.5, 0.9):
            assert rule.radius(level) == pytest.approx(float(want.radii(level)), abs=1e-14)
    assert "all of 5 new steps together" in rule.guarantee(0.9)


def test_consecutive_blocks():
    assert consecutive(7, 3).tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert consecutive(2, 3).tolist() == [0, 0] and consecutive(3, 1).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="length"):
        consecutive(3, 0)


def test_bad_input(normal):
    with pytest.raises(DataError, match="order in time"):
        BlockConformal().fit(posterior_of(4), normal(4), groups=torch.tensor([0, 1, 3, 2]))
    with pytest.raises(DataError, match="at least 4"):
        BlockConformal().fit(posterior_of(3), normal(3))
