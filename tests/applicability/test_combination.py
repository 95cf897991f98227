import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability import Domain
from bayesmol.applicability.combination import MaxRank
from bayesmol.applicability.linear import Leverage
from bayesmol.applicability.nearest import Nearest
from bayesmol.applicability.scores import check_score
from bayesmol.errors import DataError, ShapeError
from bayesmol.testing import assert_calibrated

FIRST, SECOND = (lambda rows: rows[:, 0]), (lambda rows: rows[:, 1])


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, 2)


def test_ranks_by_hand():
    """Four reference scores 1, 2, 4, 8: p-values 4/5 … 1/5 at them, linear between, an exponential tail beyond."""
    combined = MaxRank((FIRST, SECOND)).fit(column(8.0, 1.0, 4.0, 2.0))
    got = combined(column(-math.inf, 0.0, 1.0, 2.0, 3.0, 4.0, 8.0, 12.0, math.inf))
    p = [4 / 5, 4 / 5, 4 / 5, 3 / 5, math.sqrt(3 / 5 * 2 / 5), 2 / 5, 1 / 5]
    want = [-math.log(value) for value in p] + [math.log(5) + (12 - 8) / (8 - 4), math.inf]
    assert torch.allclose(got, torch.tensor(want, dtype=torch.float64))


def test_a_tie_among_reference_rows_is_no_evidence():
    combined = MaxRank((FIRST, SECOND)).fit(column(1.0, 3.0, 3.0, 3.0))
    got = combined(column(2.999, 3.0, 3.5))
    assert float(got[1]) == pytest.approx(-math.log(3 / 5)) and float(got[0]) <= float(got[1]) < float(got[2])


def test_the_tail_is_the_mean_excess_of_the_highest_tenth():
    reference = torch.arange(1.0, 101.0, dtype=torch.float64)
    combined = MaxRank((FIRST, SECOND)).fit(torch.stack([reference, 7 * reference], 1))
    assert torch.allclose(combined.tails, torch.tensor([5.5, 38.5], dtype=torch.float64))


def test_the_highest_rank_wins_whatever_the_units(normal):
    reference, new = normal(200, 2), normal(50, 2)
    combined = MaxRank((FIRST, SECOND)).fit(reference)
    assert torch.equal(combined(new), combined.ranks(new).amax(0))
    other = MaxRank((FIRST, lambda rows: 3 + 1e6 * rows[:, 1])).fit(reference)
    assert torch.allclose(combined(new), other(new), rtol=1e-6)
    assert bool((combined.ranks(new.sort(0).values).diff(dim=1) >= 0).all()), "ranks rise with the score"


def test_naive_combinations_break_their_level_and_the_calibrated_one_holds_it(source):
    """Two scores that agree (correlation 0.9) or not (0): exact p-values combined in three ways, at level 0.05.

    The least p-value is wrong for independent scores, Fisher's and Stouffer's sums for dependent ones; the maximal
    rank, calibrated, holds for both.
    """
    count, level = 100_000, 0.05
    for correlation in (0.0, 0.9):
        both = torch.randn(count, 2, generator=source, dtype=torch.float64)
        both[:, 1] = correlation * both[:, 0] + math.sqrt(1 - correlation**2) * both[:, 1]
        p = stats.norm.sf(both.numpy())
        least = (p.min(1) <= level).mean()
        fisher = (stats.chi2.sf(-2 * torch.from_numpy(p).log().sum(1).numpy(), 4) <= level).mean()
        stouffer = (stats.norm.sf(both.numpy().sum(1) / math.sqrt(2)) <= level).mean()
        if correlation == 0:
            assert least > 1.8 * level
        else:
            assert fisher > 1.4 * level and stouffer > 1.4 * level
        # Of 100 exchangeable rows the new one is among the five strangest with probability 5/100, exactly.
        assert_calibrated(_alarms(correlation, source, 500), 500, level, confidence=0.999)


def _alarms(correlation, source, repetitions):
    """How often the p-value of the calibrated combination is ≤ 5/100: 60 reference rows, 99 for calibration, 1 new."""
    hits = 0
    for _ in range(repetitions):
        rows = torch.randn(160, 2, generator=source, dtype=torch.float64)
        rows[:, 1] = correlation * rows[:, 0] + math.sqrt(1 - correlation**2) * rows[:, 1]
        scores = MaxRank((FIRST, SECOND)).fit(rows[:60])(rows[60:])
        hits += int((scores[:-1] >= scores[-1]).sum()) + 1 <= 5
    return hits


def test_it_finds_what_either_score_finds(normal):
    training, reference, calibration = normal(300, 6), normal(300, 6), normal(300, 6)
    hole = torch.randn(300, 6, generator=torch.Generator().manual_seed(1)).double()
    leverage, nearest = Leverage().fit(training), Nearest().fit(training)
    domain = Domain(MaxRank((leverage, nearest)), level=0.05).fit(reference).calibrate(calibration)
    assert not bool(domain.assess(hole + 10).inside.any())
    assert float(domain.assess(hole).inside.double().mean()) > 0.88
    far = domain.assess(torch.stack([hole[0] + 10, hole[0] + 20])).score
    assert float(far[1]) > float(far[0]), "rows beyond all reference rows keep their order"


def test_contract_and_bad_input(normal):
    training = normal(40, 3)
    pair = (Leverage().fit(training), Nearest().fit(training))
    check_score(MaxRank(pair), normal(30, 3))
    check_score(MaxRank(pair).fit(normal(30, 3)), normal(30, 3).float(), rtol=1e-4)
    with pytest.raises(DataError, match="two fitted"):
        MaxRank(pair[:1])
    with pytest.raises((DataError, TypeError), match=r"fit it|scores"):
        MaxRank((Leverage(), Nearest()))
    with pytest.raises(DataError, match="finite scores"):
        MaxRank((FIRST, SECOND)).fit(column(1.0, math.inf, 2.0))
    with pytest.raises(DataError, match="tell apart"):
        MaxRank((FIRST, SECOND)).fit(column(1.0, 1.0, 1.0))
    with pytest.raises(ShapeError, match="one number a row"):
        MaxRank((FIRST, lambda rows: rows)).fit(normal(10, 2))
    with pytest.raises(DataError, match="NaN"):
        MaxRank((FIRST, SECOND)).fit(normal(10, 2))(column(math.nan))
