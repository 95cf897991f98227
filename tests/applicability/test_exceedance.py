"""Tests of rates against the exact ones of scipy, and bets on groups whose expected gain is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.applicability.exceedance import Rows, exceedance_bound, least_rows
from bayesmol.errors import DataError, ShapeError


def test_bound_is_clopper_pearson():
    got = exceedance_bound([0, 3, 20], [20, 20, 20], 0.05)
    want = [stats.binomtest(k, 20).proportion_ci(0.9, "exact").high for k in (0, 3, 20)]
    np.testing.assert_allclose(got, want, rtol=1e-9)
    assert exceedance_bound(0, 0, 0.05) == 1


def test_least_rows():
    assert least_rows(0.05, 0.05) == 59 and 0.95**59 <= 0.05 < 0.95**58


def rows(scores, errors, groups=None):
    return Rows.of(torch.tensor(scores).double(), torch.tensor(errors).double(), 0.5, groups)


def test_counts_and_binomial_p_value():
    found = rows([3.0, 1.0, 2.0, 5.0], [1.0, 0.0, 1.0, 1.0]).accepted(3.0)
    assert (found.count, found.exceeding, found.weight) == (3, 2, 3.0)
    assert found.p_value(0.3) == pytest.approx(stats.binom.cdf(2, 3, 0.3), rel=1e-12)
    assert rows([1.0], [0.0]).accepted(0.0).p_value(0.3) == 1.0


def test_grid_is_below_scores_of_the_ranks():
    grid = rows([4.0, 1.0, 3.0, 2.0], [0.0] * 4).grid(2)
    assert grid.tolist() == np.nextafter([2.0, 3.0, 4.0], -np.inf).tolist()
    assert len(rows([1.0, 2.0], [0.0, 0.0]).grid(3)) == 0


def test_groups_weigh_the_same():
    found = rows([1.0, 2.0, 1.0], [1.0, 0.0, 0.0], torch.tensor([7, 7, 3])).accepted(1.5)
    assert found.weight == pytest.approx(1.5)
    assert [part.tolist() for part in found.shares] == [[1.0, 0.5], [0.0, 0.5]]


def test_p_value_of_groups_is_valid(source):
    """At a rate equal to the risk it is below δ at most with probability δ, though rows of a group are equal."""
    small, trials = 0, 1000
    for _ in range(trials):
        errors = (torch.rand(100, generator=source) < 0.2).double().repeat_interleave(4)
        groups = torch.arange(100).repeat_interleave(4)
        small += Rows.of(torch.zeros(400), errors, 0.5, groups).accepted(1.0).p_value(0.2) <= 0.1
    assert small <= stats.binom.ppf(0.999, trials, 0.1)


def test_bound_is_the_least_risk_that_is_rejected(source):
    errors = (torch.rand(900, generator=source) < 0.05).double()
    groups = torch.arange(900) // 9
    found = Rows.of(torch.zeros(900), errors, 0.5, groups).accepted(1.0)
    bound = found.bound(0.05)
    assert found.p_value(bound + 1e-6) <= 0.05 < found.p_value(bound - 1e-6)
    assert float(errors.mean()) < bound < 0.15


def test_needed():
    found = rows(list(range(100)), [0.0] * 100).accepted(50.0)
    count = found.needed(0.05, 0.05, 100)
    assert 100 < count < 400
    assert rows([1.0], [1.0]).accepted(2.0).needed(0.05, 0.05, 1) is None


def test_bad_input():
    with pytest.raises(ShapeError):
        rows([1.0, 2.0], [1.0])
    with pytest.raises(DataError):
        rows([], [])
