"""What audits say holds at all times together, whatever the process does with what they find."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from bayesmol.acquisition.audits import Audits, largest_count
from bayesmol.errors import DataError


@pytest.mark.parametrize("probability", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("exceeded", [0, 1, 7])
def test_the_bound_by_brute_force(probability, exceeded):
    """The largest number whose likelihood under a mixture of coins is not 20 times that of the coin."""
    a, b = 0.5, 2 / probability
    grid = (np.arange(200_000) + 0.5) / 200_000
    prior = grid ** (a - 1) * (1 - grid) ** (b - 1)
    prior /= prior.sum()
    numbers = range(exceeded, 40 * (exceeded + 4) * int(1 / probability + 1) // 10)

    def ratio(count):
        own = np.log(grid) * exceeded + np.log1p(-grid) * (count - exceeded)
        coin = exceeded * math.log(probability) + (count - exceeded) * math.log1p(-probability)
        return float((prior * np.exp(own - coin)).sum())

    found = largest_count(exceeded, probability)
    assert found in numbers
    assert ratio(found) < 20 * 1.01 and ratio(found + 1) > 20 * 0.99


@pytest.mark.parametrize("exceeded", [0, 1, 3, 10])
def test_little_is_lost_against_a_fixed_time(exceeded):
    count = exceeded
    while binom.cdf(exceeded, count, 0.02) > 0.05:
        count += 1
    assert count <= largest_count(exceeded, 0.02) <= 1.5 * count


def test_it_holds_at_all_times_although_the_process_reacts():
    """An adversary who errs until he is found, and goes on erring as long as the bound looks good."""
    source, failures, bounds = np.random.default_rng(1), 0, [largest_count(k, 0.1) for k in range(200)]
    for _ in range(1000):
        coins = source.random(600) < 0.1
        found = coins.cumsum()
        failures += bool((np.arange(1, 601) > np.array(bounds)[found]).any())
    assert failures <= binom.ppf(0.999, 1000, 0.05)


def test_estimate_and_words():
    audits = Audits(0.1, accepted=1000, checked=100, exceeded=2)
    assert audits.estimate == pytest.approx(0.02)
    assert audits.share == largest_count(2, 0.1) / 1000
    assert (
        "of 1000 accepted steps, those taken back among them, at most" in audits.guarantee
        and "95 % confidence" in audits.guarantee
    )
    assert Audits(0.1, 5, 0, 0).share == 1.0 and Audits(0.1, 0, 0, 0).estimate == 0.0


def test_bad_arguments():
    with pytest.raises(DataError, match="probability"):
        Audits(0.0, 10, 1, 0)
    with pytest.raises(DataError, match="counts, each at most the next"):
        Audits(0.1, 10, 1, 2)
