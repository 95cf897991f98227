"""Memory of walkers, drift, standstill and tails against what they are by construction."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from bayesmol.inference.chains import r_hat
from bayesmol.wavefunctions.energy_checks import drift, longest_standstill, mixing, tail_index


def chains(source, walkers, draws, tau=1.0):
    phi = (tau - 1) / (tau + 1)
    noise = source.standard_normal((walkers, draws))
    noise[:, 0] /= math.sqrt(1 - phi**2)
    return torch.from_numpy(math.sqrt(1 - phi**2) * lfilter([1], [1, -phi], noise, axis=1))


def test_short_chains_that_agree_are_not_taken_for_stuck():
    values = chains(np.random.default_rng(0), 512, 50, 2.0)
    assert float(r_hat(values.unsqueeze(2))) > 1.015, "the usual one takes them for stuck"
    assert mixing(values).r_hat < 1.01


def test_memory_is_the_persistent_share_of_the_variance():
    source = np.random.default_rng(1)
    values = chains(source, 4000, 40) + 0.3 * chains(source, 4000, 4)[:, :1]
    found = mixing(values)
    assert found.r_hat == pytest.approx(math.sqrt(1 + 0.09), abs=0.01)
    assert found.r_hat > found.chance


def test_chance_is_passed_rarely():
    source = np.random.default_rng(2)
    passed = [one.r_hat > one.chance for one in (mixing(chains(source, 32, 40)) for _ in range(300))]
    assert sum(passed) <= 3


def test_it_does_not_depend_on_units_and_monotone_maps_of_the_location():
    values = chains(np.random.default_rng(3), 32, 60)
    assert mixing(27.2 * values - 8).r_hat == pytest.approx(mixing(values).r_hat, abs=1e-6)


def test_spread_and_location_both_count():
    source = np.random.default_rng(4)
    moved, widened = chains(source, 64, 100), chains(source, 64, 100)
    moved[:8] += 2.0
    widened[:32] *= 2.0
    assert mixing(moved).r_hat > 1.05 and mixing(widened).r_hat > 1.05


def test_few_walkers_are_judged_by_the_usual_r_hat():
    values = chains(np.random.default_rng(5), 4, 500)
    assert mixing(values) == (float(r_hat(values.unsqueeze(2))), 1.0)


def test_walkers_that_never_move():
    values = chains(np.random.default_rng(6), 32, 4)[:, :1].expand(32, 50)
    assert mixing(values).r_hat == math.inf


@pytest.mark.parametrize("walkers", [4, 64])
def test_drift(walkers):
    source = np.random.default_rng(7)
    still = [drift(chains(source, walkers, 200)) for _ in range(200)]
    statistics = np.array([one.statistic for one in still])
    assert statistics.std() == pytest.approx(1.0, abs=0.2)
    assert all(abs(one.statistic) < one.limit for one in still)
    falling = drift(chains(source, walkers, 200) + torch.linspace(2, 0, 200))
    assert falling.statistic > falling.limit
    assert drift(torch.zeros(walkers, 8)).statistic == 0.0


def test_standstill():
    values = chains(np.random.default_rng(8), 32, 200)
    assert longest_standstill(values)[0] == 0
    values[5, 20:60] = values[5, 20].item()
    longest, limit = longest_standstill(values)
    assert longest == 39 and longest > limit


def test_repetitions_by_chance_are_no_standstill():
    source = np.random.default_rng(9)
    moves = torch.from_numpy(source.random((64, 200)) < 0.6).long().cumsum(1)
    values = chains(source, 64, 200).gather(1, moves.clamp_max(199))
    longest, limit = longest_standstill(values)
    assert 2 < longest < limit
    assert longest_standstill(torch.zeros(4, 50))[0] == 49


@pytest.mark.parametrize("k", [1 / 3, 0.8])
def test_tail_index(k):
    source = np.random.default_rng(10)
    pareto = torch.from_numpy(source.choice([-1.0, 1.0], (200, 250)) * source.random((200, 250)) ** -k)
    found, error = tail_index(pareto)
    assert abs(found - k) < 4 * error and error < 0.1


def test_tail_index_of_no_tail():
    assert tail_index(torch.zeros(10, 10))[0] == -math.inf
    assert tail_index(chains(np.random.default_rng(11), 100, 100))[0] < 0.25
    assert tail_index(torch.zeros(2, 5))[0] == math.inf
