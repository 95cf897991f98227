"""Estimates from log-weights: Gaussians with closed forms, coverage, degenerate weights."""

import math

import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.importance import (
    effective_size,
    forward_effective_size,
    k_hat_limit,
    log_partition,
    partition_bounds,
    populations,
    smoothed_weights,
)
from bayesmol.testing import assert_calibrated

HALF = math.log(2 * math.pi) / 2
BAD = [torch.tensor([0.0, math.nan]), torch.tensor([0.0, math.inf]), torch.full((3,), -math.inf)]


def mismatch(source, draws, scale):
    """Draws of a normal proposal of this deviation, log-weights of the unnormalised standard normal target."""
    x = scale * torch.randn(draws, generator=source, dtype=torch.float64)
    return x, -x.square() / 2 + x.square() / (2 * scale**2) + HALF + math.log(scale)


def second_moment(scale):
    """⟨w²⟩ / ⟨w⟩² for the mismatch of scale."""
    return scale**2 / math.sqrt(2 * scale**2 - 1)


@pytest.mark.parametrize("scale", [1.2, 2.0])
def test_effective_sizes_of_a_gaussian_mismatch(source, scale):
    _, log_weights = mismatch(source, 400_000, scale)
    found = effective_size(log_weights)
    assert found.fraction == pytest.approx(1 / second_moment(scale), rel=0.02)
    _, at_target = mismatch(source, 400_000, 1.0)
    x = torch.randn(400_000, generator=source, dtype=torch.float64)
    at_target = -x.square() / 2 + x.square() / (2 * scale**2)
    assert forward_effective_size(at_target).fraction == pytest.approx(1 / second_moment(scale), rel=0.02)
    assert str(effective_size(torch.zeros(2000))) == "2000 of 2000 (100 %)"


def test_a_dropped_mode_is_seen_only_by_the_forward_size(source):
    """A proposal on one of two far equal modes: a perfect effective size, a forward one of nothing."""
    x = torch.randn(2000, generator=source, dtype=torch.float64) + 20 * (torch.arange(2000) % 2)
    target = torch.logaddexp(-x.square() / 2, -(x - 20).square() / 2)
    log_weights = target + x.square() / 2
    assert effective_size(log_weights[::2]).fraction > 0.999
    assert forward_effective_size(log_weights).fraction < 0.01
    assert forward_effective_size(torch.tensor([0.0, math.inf])).effective == 0


def test_log_partition_and_bounds(source):
    _, log_weights = mismatch(source, 20_000, 1.5)
    found = log_partition(log_weights)
    assert abs(float(found.value) - HALF) < 3 * float(found.standard_error)
    exact = math.sqrt((second_moment(1.5) - 1) / 20_000)
    assert float(found.standard_error) == pytest.approx(exact, rel=0.05)
    shifted = log_partition(log_weights + 2000)
    assert float(shifted.value) == pytest.approx(float(found.value) + 2000)
    x = torch.randn(20_000, generator=source, dtype=torch.float64)
    at_target = -x.square() / 2 + x.square() / (2 * 1.5**2) + HALF + math.log(1.5)
    bounds = partition_bounds(log_weights, at_target)
    # KL divergences of the two normal laws in both directions.
    reverse, forward = (1.5**2 - 1) / 2 - math.log(1.5), (1 / 1.5**2 - 1) / 2 + math.log(1.5)
    assert abs(float(bounds.lower.value) - (HALF - reverse)) < 4 * float(bounds.lower.standard_error)
    assert abs(float(bounds.upper.value) - (HALF + forward)) < 4 * float(bounds.upper.standard_error)
    assert abs(float(bounds.gap.value) - reverse - forward) < 4 * float(bounds.gap.standard_error)
    cut = partition_bounds(torch.tensor([0.0, -math.inf]), torch.zeros(5))
    assert float(cut.lower.value) == -math.inf and float(cut.gap.value) == math.inf


def test_blocks_widen_the_errors_of_repeated_draws(source):
    _, log_weights = mismatch(source, 500, 1.5)
    repeated = log_weights.repeat_interleave(8)
    plain, blocked = log_partition(repeated), log_partition(repeated, block=8)
    assert float(blocked.standard_error) == pytest.approx(float(log_partition(log_weights).standard_error))
    assert float(plain.standard_error) < 0.4 * float(blocked.standard_error)
    labels = torch.randint(2, (500,), generator=source)
    whole = populations(labels, log_weights, states=2)
    found = populations(labels.repeat_interleave(8), repeated, states=2, block=8)
    torch.testing.assert_close(found.covariance, whole.covariance)


def test_populations(source):
    x, log_weights = mismatch(source, 100_000, 1.5)
    labels = torch.bucketize(x, torch.tensor([-1.0, 0.5]).double())
    found = populations(labels, log_weights, states=4)
    normal = torch.distributions.Normal(0.0, 1.0)
    edges = normal.cdf(torch.tensor([-1.0, 0.5])).double()
    exact = torch.tensor([edges[0], edges[1] - edges[0], 1 - edges[1]])
    gap = (found.shares.value[:3] - exact) / found.shares.standard_error[:3]
    assert float(gap.abs().max()) < 4
    torch.testing.assert_close(found.shares.value.sum(), torch.tensor(1.0).double())
    # Shares that always add up to one: no row of the covariance has a sum.
    torch.testing.assert_close(found.covariance.sum(1), torch.zeros(4).double(), rtol=0, atol=1e-12)
    assert float(found.shares.standard_error[3]) == math.inf
    difference = found.free_energy_difference(0, 2)
    assert abs(float(difference.value) + math.log(exact[2] / exact[0])) < 4 * float(difference.standard_error)
    weights = log_weights.softmax(0)
    share = found.shares.value
    influence = (labels == 0) / share[0] - (labels == 2) / share[2]
    want = (weights.square() * influence.square()).sum().sqrt()
    assert float(difference.standard_error) == pytest.approx(float(want), rel=1e-4)
    with pytest.raises(ConvergenceError, match="both states"):
        found.free_energy_difference(0, 3)


def test_a_negative_label_is_no_state():
    found = populations(torch.tensor([0, 0, -1, 1]), states=2)
    assert found.shares.value.tolist() == [0.5, 0.25]


def test_tail_index_flags_a_narrow_proposal(source):
    _, wide = mismatch(source, 20_000, 1.5)
    _, narrow = mismatch(source, 20_000, 0.5)
    assert smoothed_weights(wide).reliable
    found = smoothed_weights(narrow)
    # The tail of the weights has index 1 − s²: moments above 1/(1 − s²) are infinite.
    assert found.pareto_k == pytest.approx(0.75, abs=0.15)
    assert not smoothed_weights(mismatch(source, 20_000, 0.3)[1]).reliable
    assert not smoothed_weights(torch.zeros(10)).reliable
    assert found.limit == 0.7 and k_hat_limit(100) == 0.5 and k_hat_limit(1) == -math.inf


def test_one_draw_knows_no_error():
    assert float(log_partition(torch.zeros(1)).standard_error) == math.inf
    assert effective_size(torch.zeros(1)).effective == 1
    assert math.isinf(float(populations(torch.tensor([0]), states=1).shares.standard_error))


@pytest.mark.parametrize("log_weights", BAD)
def test_degenerate_weights(log_weights):
    for function in (effective_size, log_partition, smoothed_weights):
        with pytest.raises(DataError, match="log_weights"):
            function(log_weights)
    with pytest.raises(DataError, match="log_weights"):
        populations(torch.zeros(len(log_weights)).long(), log_weights, states=1)


def test_bad_input():
    with pytest.raises(ShapeError, match="at least one"):
        effective_size(torch.zeros(0))
    with pytest.raises(DataError, match="−∞"):
        forward_effective_size(torch.tensor([-math.inf]))
    with pytest.raises(ShapeError, match="labels"):
        populations(torch.zeros(3).long(), torch.zeros(4), states=1)
    with pytest.raises(DataError, match="below 2"):
        populations(torch.tensor([0, 2]), states=2)
    with pytest.raises(DataError, match="proposal"):
        partition_bounds(torch.tensor([math.inf]), torch.zeros(1))
    with pytest.raises(DataError, match="target"):
        partition_bounds(torch.zeros(1), torch.tensor([-math.inf]))


@pytest.mark.slow
def test_intervals_cover_where_the_tail_is_light(source):
    trials, hits, differences = 2000, 0, 0
    lower = torch.distributions.Normal(0.0, 1.0).cdf(torch.tensor(-1.0))
    exact = float((lower / (1 - lower)).log())
    for _ in range(trials):
        x, log_weights = mismatch(source, 1000, 1.5)
        found = log_partition(log_weights)
        hits += bool(abs(float(found.value) - HALF) < 1.96 * float(found.standard_error))
        states = populations((x < -1).long(), log_weights, states=2)
        difference = states.free_energy_difference(1, 0)
        differences += bool(abs(float(difference.value) - exact) < 1.96 * float(difference.standard_error))
    assert_calibrated(hits, trials, 0.95)
    assert_calibrated(differences, trials, 0.95)
