"""Bets and tails in closed form."""

import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.alarm_bounds import PowerStarts, Tail
from bayesmol.errors import DataError


def test_bets_in_closed_form():
    """Every start with its part of the money, as in the equation."""
    patience, ranks = 5.0, ((1, 10), (7, 11), (12, 12), (1, 13))
    betting = PowerStarts((0.5, 0.1), patience)
    capital, steps = betting.initial(), len(ranks)
    for largest, count in ranks:
        capital = betting.updated(capital, largest, largest, count)
    want = patience / (patience + steps)
    for start in range(1, steps + 1):
        part = patience / ((patience + start) * (patience + start - 1)) / 2
        for power in (0.5, 0.1):
            want += part * math.prod(power * (k / n) ** (power - 1) for k, n in ranks[start - 1 :])
    assert betting.log_martingale(capital) == pytest.approx(math.log(want), rel=1e-12)
    assert betting.log_martingale(betting.initial()) == 0


def test_bets_are_not_in_favour_of_the_gambler():
    """On uniform ranks the expected capital does not grow, whatever it is."""
    betting, before = PowerStarts(patience=30.0), (4.0, 0.2, 0.3, 0.4)
    after = [math.exp(betting.log_martingale(betting.updated(before, k, k, 50))) for k in range(1, 51)]
    assert 0.5 < sum(after) / 50 <= math.exp(betting.log_martingale(before))


def test_a_quiet_time_costs_little(source):
    betting = PowerStarts(patience=1000.0)
    capital = betting.initial()
    for rank in torch.randint(1, 501, (1000,), generator=source).tolist():
        capital = betting.updated(capital, rank, rank, 500)
    assert betting.log_martingale(capital) > math.log(0.5)


def test_tail_of_a_pareto_sample(source):
    uniform = torch.rand(20_000, generator=source, dtype=torch.float64)
    tail = Tail.of(uniform ** (-1 / 4), 20_000.0)  # P(S > s) = s⁻⁴
    assert tail.index == pytest.approx(0.25, abs=0.03) and tail.index > 0.245
    assert tail.quantile(1e-6) == pytest.approx(10**1.5, rel=0.35)
    assert tail.quantile(tail.fraction) == pytest.approx(0.1 ** (-1 / 4), rel=0.03)


def test_tail_of_scores_of_both_signs(source):
    tail = Tail.of(torch.empty(20_000, dtype=torch.float64).exponential_(2.0, generator=source) - 1, 20_000.0)
    assert tail.quantile(1e-6) == pytest.approx(math.log(1e6) / 2 - 1, abs=0.6)


def test_tail_bound_is_above_as_often_as_it_says(source):
    wrong = 0
    for _ in range(400):
        sample = torch.rand(500, generator=source, dtype=torch.float64) ** -0.25
        wrong += Tail.of(sample, 500.0).index < 0.25
    assert wrong <= stats.binom.ppf(0.999, 400, 0.05)


def test_bad_input():
    for options in ({"exponents": (0.0,)}, {"exponents": (1.0,)}, {"patience": 0.0}):
        with pytest.raises(DataError):
            PowerStarts(**options)
