import itertools
import math

import pytest
import torch

from bayesmol.acquisition import greedy_log_determinant, information_gain
from bayesmol.errors import DataError

NOISE = 0.3


def factors(count, rank=12, seed=0):
    source = torch.Generator().manual_seed(seed)
    sizes = torch.randint(1, 6, (count,), generator=source).tolist()
    return [torch.randn(size, rank, generator=source, dtype=torch.float64) / rank**0.5 for size in sizes]


def information(chosen, noise=NOISE):
    stacked = torch.cat(chosen)
    return 0.5 * float(torch.logdet(torch.eye(len(stacked)) + stacked @ stacked.T / noise**2))


def test_lazy_search_is_the_eager_search_with_gains_of_the_whole_matrix():
    pool = factors(40)
    indices, gains = greedy_log_determinant(pool, NOISE, 15)
    chosen, total = [], 0.0
    for index, gain in zip(indices, gains, strict=True):
        options = {i: information([pool[j] for j in [*chosen, i]]) for i in range(40) if i not in chosen}
        best = max(options, key=options.get)
        assert index == best
        assert gain == pytest.approx(options[best] - total, abs=1e-9)
        chosen, total = [*chosen, best], options[best]
    assert all(later <= earlier + 1e-9 for earlier, later in itertools.pairwise(gains))


def test_greedy_is_near_the_best_batch():
    pool = factors(12, rank=6, seed=3)
    indices, gains = greedy_log_determinant(pool, NOISE, 3)
    best = max(information([pool[i] for i in batch]) for batch in itertools.combinations(range(12), 3))
    assert sum(gains) == pytest.approx(information([pool[i] for i in indices]), abs=1e-9)
    assert (1 - 1 / math.e) * best <= sum(gains) <= best + 1e-9


def test_a_copy_has_only_noise_left_to_average():
    source = torch.Generator().manual_seed(1)
    strong, weak = torch.randn(3, 8, generator=source), 0.2 * torch.randn(3, 8, generator=source)
    pool = [strong.double(), strong.double(), weak.double()]
    indices, gains = greedy_log_determinant(pool, NOISE, 2)
    assert sorted(indices) == [0, 2] or gains[1] <= 1.5 * math.log(2)
    _, gains = greedy_log_determinant(pool[:2], NOISE, 2)
    assert gains[1] <= 1.5 * math.log(2) < gains[0]
    assert gains[1] == pytest.approx(information(pool[:2]) - information(pool[:1]), abs=1e-10)


def test_batch_is_not_the_most_uncertain_ones():
    # Five strong copies and one weaker independent direction: the best single ones would all be copies.
    basis = torch.eye(2, dtype=torch.float64)
    pool = [basis[:1]] * 5 + [0.7 * basis[1:]]
    indices, _ = greedy_log_determinant(pool, 0.1, 2)
    assert set(indices) == {0, 5}


def test_gain_of_a_conditional_covariance_is_a_difference():
    pool = factors(2, rank=5)
    first, second = pool
    left = torch.linalg.inv(torch.eye(5, dtype=torch.float64) + first.T @ first / NOISE**2)
    gain = information_gain(second @ left @ second.T, NOISE)
    assert gain == pytest.approx(information(pool) - information(pool[:1]), abs=1e-10)


def test_gains_stay_exact_when_the_whole_pool_is_chosen_at_small_noise():
    pool = factors(30)
    _, gains = greedy_log_determinant(pool, 1e-3, 30)
    assert sum(gains) == pytest.approx(information(pool, noise=1e-3), abs=1e-5)
    assert min(gains) > 0


def test_structures_that_are_in_the_batch_anyway_are_conditioned_on():
    pool = factors(20)
    indices, gains = greedy_log_determinant(pool, NOISE, 6, first=(11, 4))
    assert indices[:2] == [11, 4] and len(set(indices)) == 6
    assert sum(gains) == pytest.approx(information([pool[i] for i in indices]), abs=1e-9)
    given = information([pool[11], pool[4]])
    options = {i: information([pool[11], pool[4], pool[i]]) - given for i in range(20) if i not in (4, 11)}
    assert indices[2] == max(options, key=options.get)
    with pytest.raises(DataError, match="first"):
        greedy_log_determinant(pool, NOISE, 1, first=(0, 1))


def test_with_costs_the_gain_for_a_unit_of_cost_decides():
    pool, costs = factors(20), [1.0 + i % 3 for i in range(20)]
    indices, gains = greedy_log_determinant(pool, NOISE, 4, costs=costs)
    chosen = []
    for index, gain in zip(indices, gains, strict=True):
        before = information([pool[i] for i in chosen]) if chosen else 0.0
        options = {
            i: (information([pool[j] for j in [*chosen, i]]) - before) / costs[i] for i in range(20) if i not in chosen
        }
        assert index == max(options, key=options.get)
        assert gain == pytest.approx(options[index] * costs[index], abs=1e-9)
        chosen.append(index)


def test_bad_input():
    pool = factors(4)
    with pytest.raises(DataError, match=r"1 to 4 \(candidates\), got 5"):
        greedy_log_determinant(pool, NOISE, 5)
    with pytest.raises(DataError, match="size"):
        greedy_log_determinant(pool, NOISE, 0)
    with pytest.raises(DataError, match="noise"):
        greedy_log_determinant(pool, 0.0, 1)
    with pytest.raises(DataError, match="one rank"):
        greedy_log_determinant([*pool, torch.ones(2, 3)], NOISE, 1)
    with pytest.raises(DataError, match="finite"):
        greedy_log_determinant([*pool, torch.full((2, 12), math.nan)], NOISE, 1)
