"""Decisions by cost: the bound of the probability holds, and each choice is the cheapest that is certified."""

import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.decision import Decision
from bayesmol.applicability.error_control import ErrorControl
from bayesmol.errors import DataError

CONTROL = ErrorControl(tolerance=0.5, risk=0.2)


def drawn(source, rows):
    score, chance = torch.rand(2, rows, generator=source, dtype=torch.float64)
    return score, (chance < score**2).double()


def test_the_bound_holds_everywhere_at_once(source):
    grid = torch.linspace(0, 1, 201, dtype=torch.float64)
    rules = [Decision(1.0, 0.1, control=CONTROL).fit(*drawn(source, 1000)) for _ in range(200)]
    wrong = sum(bool((rule.probability(grid) < grid**2).any()) for rule in rules)
    assert wrong <= stats.binom.ppf(0.999, 200, 0.05)
    bound = rules[0].probability(grid)
    assert bool((bound.diff() >= 0).all()) and float(bound[0]) < 0.1 and float(bound[-1]) == 1


def test_choices(source):
    scores, errors = drawn(source, 4000)
    rule = Decision(10.0, 1.0, abstain=3.0, control=CONTROL).fit(scores, errors)
    found = rule.decide(scores)
    assert bool((found.accept.int() + found.abstain.int() + found.compute.int() == 1).all())
    bound = rule.probability(scores)
    assert torch.equal(found.accept, rule.domain.accept(scores) & (10 * bound <= 1.0))
    assert 0 < int(found.accept.sum()) < int(rule.domain.accept(scores).sum()), "cost is stricter than certificate here"
    assert not found.abstain.any() and bool((found.cost <= 1.0).all())
    torch.testing.assert_close(found.cost[found.accept], 10 * bound[found.accept])


def test_the_certificate_comes_first(source):
    scores, errors = drawn(source, 4000)
    cheap = Decision(1e-6, 1.0, control=CONTROL).fit(scores, errors)
    assert torch.equal(cheap.decide(scores).accept, cheap.domain.accept(scores))
    assert not cheap.decide(scores).accept.all()
    assert "P(|ΔF| > 0.5 eV/Å | accepted) ≤ 20 %" in cheap.guarantee and "expected cost" in cheap.guarantee


def test_what_is_cheaper_is_done(source):
    scores, errors = drawn(source, 4000)
    left = Decision(10.0, 3.0, abstain=1.0, control=CONTROL).fit(scores, errors).decide(scores)
    assert not left.compute.any() and left.abstain.any()
    never = Decision(10.0, math.inf, abstain=1.0, control=CONTROL).fit(scores, errors).decide(scores)
    assert torch.equal(never.abstain, left.abstain)


def test_few_rows_accept_nothing(source):
    found = Decision(1.0, 1.0, control=CONTROL).fit(*drawn(source, 8)).decide(torch.zeros(3).double())
    assert found.compute.all() and found.cost.tolist() == [1.0] * 3


def test_ties(source):
    scores = torch.arange(4.0).repeat_interleave(200)
    errors = (scores == 3).double()
    rule = Decision(1.0, 0.5, control=CONTROL).fit(scores, errors)
    bound = rule.probability(torch.arange(4.0))
    assert bool((bound.diff() >= 0).all()) and float(bound[-1]) == 1


@pytest.mark.parametrize("costs", [(-1.0, 1.0), (math.inf, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_bad_costs(costs):
    with pytest.raises(DataError, match="cost"):
        Decision(*costs)
