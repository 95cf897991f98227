import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.tolerance import rows_needed, tolerance_confidence, tolerance_rank
from bayesmol.errors import ApplicabilityError, DataError


@pytest.mark.parametrize(
    ("level", "count", "rank"),
    [
        (0.1, 50, 2),
        (0.1, 100, 5),
        (0.1, 250, 17),
        (0.1, 1000, 85),
        (0.1, 10_000, 951),
        (0.05, 100, 2),
        (0.05, 250, 7),
        (0.05, 1000, 39),
        (0.05, 10_000, 464),
    ],
)
def test_published_ranks(level, count, rank):
    assert tolerance_rank(count, level, 0.95) == rank
    assert stats.beta.ppf(0.95, rank, count + 1 - rank) <= level < stats.beta.ppf(0.95, rank + 1, count - rank)


@pytest.mark.parametrize("count", [59, 100, 250, 1000])
def test_the_confidence_of_a_rank_is_a_binomial_tail(count):
    # fewer than k of n scores above the true quantile: the k-th largest is then at or below it, and the limit fails
    for rank in (1, 2, tolerance_rank(count, 0.05, 0.95)):
        assert tolerance_confidence(count, rank, 0.05) == pytest.approx(stats.binom.sf(rank - 1, count, 0.05))
    assert tolerance_confidence(count, tolerance_rank(count, 0.05, 0.95), 0.05) >= 0.95


@pytest.mark.parametrize(("level", "confidence"), [(0.05, 0.95), (0.02, 0.95), (0.1, 0.9), (0.01, 0.99)])
def test_too_few_rows_name_the_least_number(level, confidence):
    needed = rows_needed(level, confidence)
    assert (1 - level) ** needed <= 1 - confidence < (1 - level) ** (needed - 1)
    assert tolerance_rank(needed, level, confidence) == 1
    with pytest.raises(ApplicabilityError, match=f"at least {needed} rows .* got {needed - 1}"):
        tolerance_rank(needed - 1, level, confidence)


def test_realised_rates_follow_the_beta_law():
    count, level = 100, 0.1
    rank = tolerance_rank(count, level, 0.9)
    source = torch.Generator().manual_seed(0)
    scores = torch.rand(4000, count, generator=source, dtype=torch.float64)
    rates = 1 - scores.sort(1).values[:, -rank]  # of uniform scores the rate is one minus the threshold
    assert stats.kstest(rates.numpy(), stats.beta(rank, count + 1 - rank).cdf).pvalue > 0.001
    held = float((rates <= level).double().mean())
    exact = tolerance_confidence(count, rank, level)
    assert exact >= 0.9 and abs(held - exact) < 4 * math.sqrt(exact * (1 - exact) / 4000)


def test_bad_input():
    with pytest.raises(DataError, match="level"):
        tolerance_rank(100, 1.0, 0.95)
    with pytest.raises(DataError, match="confidence"):
        rows_needed(0.1, True)
    with pytest.raises(DataError, match="rank"):
        tolerance_confidence(10, 11, 0.1)
