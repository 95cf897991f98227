"""Error control: exact tests against brute force, the guarantee over many draws, and what it says when it cannot."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.applicability.error_control import ControlledDomain, ErrorControl
from bayesmol.errors import DataError, FormatError, ShapeError

SPEC = ErrorControl(tolerance=0.5, risk=0.1)


def drawn(source, rows, base=0.02, slope=0.6):
    """Scores, and errors above 1/2 with probability base + slope·score²: below t the rate is base + slope·t²/3."""
    score, chance = torch.rand(2, rows, generator=source, dtype=torch.float64)
    return score, (chance < base + slope * score**2).double()


def rate(threshold, base=0.02, slope=0.6):
    return base + slope * min(max(threshold, 0.0), 1.0) ** 2 / 3


def test_given_thresholds_against_the_binomial(source):
    scores, errors = drawn(source, 2000)
    found = SPEC.fit(scores, errors, thresholds=torch.tensor([0.3]))
    below = scores <= 0.3
    count, exceeding = int(below.sum()), int(errors[below].sum())
    assert stats.binom.cdf(exceeding, count, 0.1) <= 0.05, "else this test says nothing"
    assert (found.threshold, found.accepted, found.exceeding) == (pytest.approx(0.3), count, exceeding)
    high = stats.binomtest(exceeding, count).proportion_ci(0.9, "exact").high
    assert found.risk_bound == pytest.approx(high, abs=1e-12) and high < 0.1
    assert found.accepted_fraction == pytest.approx(count / 2000)
    assert torch.equal(found.accept(scores), below)


def test_thresholds_are_tested_in_their_order(source):
    scores, errors = drawn(source, 20_000, base=0.0)
    errors[scores < 0.2] = 1.0  # the first threshold fails, and with one start all later ones
    few = ErrorControl(0.5, 0.3).fit(scores, errors, thresholds=torch.tensor([0.1]))
    assert few.threshold == -math.inf
    more = ErrorControl(0.5, 0.5).fit(scores, errors, thresholds=torch.tensor([0.1, 0.7]))
    assert more.threshold == pytest.approx(0.7), "the second start has a part of its own"


@pytest.mark.parametrize("rows", [100, 400, 1500])
def test_the_guarantee_holds(source, rows):
    draws = 200
    found = [SPEC.fit(*drawn(source, rows)) for _ in range(draws)]
    wrong = sum(rate(domain.threshold) > 0.1 for domain in found)
    assert wrong <= stats.binom.ppf(0.999, draws, 0.05)
    if rows == 1500:
        oracle = math.sqrt(0.08 * 3 / 0.6)
        assert 0.75 * oracle < np.mean([domain.accepted_fraction for domain in found]) < oracle


def test_the_guarantee_is_not_slack(source):
    """One fixed threshold with a rate just above the risk is accepted about as often as the confidence allows."""
    draws, rows, wrong = 2000, 500, 0
    for _ in range(draws):
        score = torch.rand(rows, generator=source, dtype=torch.float64)
        errors = (torch.rand(rows, generator=source) < 0.1).double()
        wrong += SPEC.fit(score, errors, thresholds=torch.tensor([2.0])).threshold > 0
    exact = stats.binom.cdf(max(k for k in range(rows) if stats.binom.cdf(k, rows, 0.1) <= 0.05), rows, 0.1)
    low, high = stats.binom.ppf([0.0005, 0.9995], draws, exact)
    assert low <= wrong <= high


def test_ties_and_infinity(source):
    scores = torch.cat([torch.zeros(300), torch.ones(300), torch.full((10,), math.inf)]).double()
    errors = torch.cat([torch.zeros(300), torch.ones(310)])
    found = SPEC.fit(scores, errors)
    assert found.accept(torch.tensor([0.0, 1.0, math.inf])).tolist() == [True, False, False]
    assert found.accepted == 300


def test_nothing_is_stranger_than_the_calibration(source):
    scores = torch.rand(1000, generator=source, dtype=torch.float64)
    found = SPEC.fit(scores, torch.zeros(1000))
    assert found.threshold < scores.max() and found.accepted == 999


def test_what_it_takes():
    few = ErrorControl().fit(torch.arange(20.0), torch.zeros(20))
    assert few.threshold == -math.inf and not few.accept(torch.tensor([-1e9])).any()
    assert few.needed == 59 and "nothing is accepted" in few.guarantee and "about 59 labelled rows" in few.guarantee
    hopeless = ErrorControl().fit(torch.arange(500.0), torch.ones(500))
    assert hopeless.needed is None and "would not help" in hopeless.guarantee
    errors = torch.zeros(100)
    errors[::30] = 1.0
    some = ErrorControl().fit(torch.arange(100.0), errors)
    assert some.threshold == -math.inf and 100 < some.needed < 2000


def test_sentence(source):
    scores, errors = drawn(source, 2000)
    said = ErrorControl(0.5, 0.1, 0.9).fit(scores, errors).guarantee
    assert said.startswith("P(|ΔF| > 0.5 eV/Å | accepted) ≤ 10 % with 90 % confidence (n = 2000, ")
    assert "if the rate crosses 10 % once" in said
    said = ErrorControl(0.5, 0.1, quantity="|ΔE|", unit="eV").fit(scores, errors, thresholds=torch.tensor([0.2]))
    assert "|ΔE| > 0.5 eV" in said.guarantee and "crosses" not in said.guarantee


def test_groups_of_one_are_rows(source):
    scores, errors = drawn(source, 1000)
    plain = SPEC.fit(scores, errors)
    assert SPEC.fit(scores, errors, groups=torch.randperm(1000, generator=source)) == plain


def clustered(source, groups, size):
    """Rows of a group share their score and nearly share their error."""
    score = torch.rand(groups, generator=source, dtype=torch.float64).repeat_interleave(size)
    common = torch.rand(groups, generator=source, dtype=torch.float64).repeat_interleave(size)
    return score, (common < 0.02 + 0.6 * score**2).double(), torch.arange(groups).repeat_interleave(size)


def test_groups_hold_where_rows_do_not(source):
    wrong = {"rows": 0, "groups": 0}
    for _ in range(60):
        score, errors, groups = clustered(source, 200, 9)
        wrong["rows"] += rate(SPEC.fit(score, errors).threshold) > 0.1
        wrong["groups"] += rate(SPEC.fit(score, errors, groups=groups).threshold) > 0.1
    assert wrong["groups"] <= stats.binom.ppf(0.999, 60, 0.05) < wrong["rows"]


def test_groups_certify_and_gain_by_their_rows(source):
    score, errors = drawn(source, 9 * 1000)
    groups = torch.arange(1000).repeat_interleave(9)
    many, one = SPEC.fit(score, errors, groups=groups), SPEC.fit(score[::9], errors[::9])
    assert rate(many.threshold) < 0.1 and many.threshold > 0.4 and one.threshold > 0
    assert "a random row of a random group" in many.guarantee and "1000 independent groups" in many.guarantee
    assert many.exceeding / many.accepted < many.risk_bound <= 0.1


def test_groups_of_different_size_have_one_vote():
    score = torch.cat([torch.zeros(300), torch.ones(3000)]).double()
    errors = torch.cat([torch.zeros(300), torch.ones(3000)])
    groups = torch.cat([torch.arange(300), torch.full((3000,), 300)])
    found = SPEC.fit(score, errors, groups=groups, thresholds=torch.tensor([2.0]))
    assert found.threshold == 2.0, "one bad group of 301, however many rows it has"


@pytest.mark.parametrize("certified", [True, False])
def test_state(source, certified):
    scores, errors = drawn(source, 1000)
    found = SPEC.fit(scores, errors if certified else torch.ones(1000))
    header, arrays = found.state()
    again = ControlledDomain.from_state(json.loads(json.dumps(header, allow_nan=False)), arrays)
    assert again.guarantee == found.guarantee and torch.equal(again.accept(scores), found.accept(scores))
    assert math.isfinite(found.threshold) == certified
    del header["threshold"]
    with pytest.raises(FormatError, match="threshold"):
        ControlledDomain.from_state(header, arrays)


def test_bad_input():
    for options in ({"tolerance": 0.0}, {"risk": 0.0}, {"confidence": 1.0}, {"tolerance": math.inf}):
        with pytest.raises(DataError):
            ErrorControl(**options)
    with pytest.raises(ShapeError):
        SPEC.fit(torch.zeros(3), torch.zeros(2))
    for scores, errors in ((torch.tensor([math.nan]), torch.ones(1)), (torch.ones(1), -torch.ones(1))):
        with pytest.raises(DataError, match="NaN, negative or none"):
            SPEC.fit(scores, errors)
    with pytest.raises(DataError, match="thresholds"):
        SPEC.fit(torch.ones(9), torch.ones(9), thresholds=torch.tensor([1.0, 1.0]))
    with pytest.raises(DataError, match="NaN"):
        SPEC.fit(torch.arange(99.0), torch.zeros(99)).accept(torch.tensor([math.nan]))
