import json
import math

import pytest
import torch
from scipy import stats

from bayesmol.calibration.compared import Compared, cell_shares, equal_weights, mode_shares, replicated, share_interval
from bayesmol.calibration.divergences import Bins, jensen_shannon
from bayesmol.errors import DataError, ShapeError
from bayesmol.testing import assert_calibrated


def test_replicates_are_probabilities_of_the_right_rows(normal):
    weights = normal(6).exp()
    found = replicated((6, 9), weights, None, resamples=5, seed=0)
    assert found.first.shape == (11, 15)
    torch.testing.assert_close(found.first.sum(1), torch.ones(11).double())
    torch.testing.assert_close(found.second.sum(1), torch.ones(11).double())
    torch.testing.assert_close(found.first[0, :6], weights / weights.sum())
    assert not bool(found.first[:6, 6:].any()) and not bool(found.second[:6, :6].any())
    assert not bool((found.first * found.second).any()), "no row is in both samples"
    plain = replicated((6, 9), None, None, resamples=5, seed=0)
    assert ((plain.first > 0).sum(1)[6:] == 6).all() and ((plain.second > 0).sum(1)[6:] == 9).all()


def test_groups_are_drawn_and_dealt_whole():
    groups = torch.arange(4).repeat_interleave(3), torch.arange(50).repeat_interleave(2)
    found = replicated((12, 100), None, groups, resamples=20, seed=0)
    drawn = found.first[1:21, :12].reshape(20, 4, 3)
    torch.testing.assert_close(drawn, drawn[..., :1].expand(-1, -1, 3))
    dealt = found.first[21:] > 0
    assert (dealt[:, :12].reshape(20, 4, 3).any(2).sum(1) + dealt[:, 12:].reshape(20, 50, 2).any(2).sum(1) == 4).all()
    weighted = replicated((12, 100), torch.arange(12).double(), None, resamples=20, seed=0)
    worth = 66**2 / sum(k * k for k in range(12))
    assert ((weighted.first[21:] > 0).sum(1) == round(worth)).all()


def distance(replicates, first, second):
    values, order = torch.cat([first, second]).sort()
    signed = (replicates.first - replicates.second)[:, order]
    return replicates.compared(signed.cumsum(1)[:, :-1].abs() @ values.diff())


def test_interval_of_a_score_and_exact_p_values(source):
    # Rows in pairs that are one; without a shift the sampler is perfect.
    groups, found, null = torch.arange(100).repeat_interleave(2), [], []
    for k in range(80):
        one, other = (torch.randn(100, generator=source, dtype=torch.float64)[groups] for _ in range(2))
        replicates = replicated((200, 200), None, (groups, groups), resamples=39, seed=k)
        found.append(distance(replicates, one, other + 0.7))
        null.append(distance(replicates, one, other).p_value)
    typical = sum(one.value for one in found) / 80
    assert_calibrated(sum(one.lower <= typical <= one.upper for one in found), 80, 0.9)
    assert typical == pytest.approx(0.7, abs=0.05)
    assert max(one.p_value for one in found) <= 0.05
    assert_calibrated(sum(p <= 0.2 for p in null), 80, 0.2)


def test_a_perfect_sampler_where_most_cells_have_one_row(normal):
    # Rows drawn with replacement would share cells more often than new rows do.
    for k in range(5):
        first, second = normal(300, 2), normal(300, 2)
        replicates = replicated((300, 300), None, None, resamples=19, seed=k)
        bins = Bins.of(second, 64)
        place = bins.places(torch.cat([first, second]))
        tables = [part.new_zeros(39, 66**2).index_add_(1, place, part) for part in vars(replicates).values()]
        found = replicates.compared(jensen_shannon(*tables))
        assert found.ideal == pytest.approx(found.value, rel=0.1)


def test_share_interval(source):
    law, hits = torch.tensor([0.9, 0.1]).double(), 0
    for _ in range(200):
        drawn = torch.multinomial(law, 60, replacement=True, generator=source).bool()
        groups = torch.arange(60).repeat_interleave(5)
        _, lower, upper, worth = share_interval(drawn[groups], None, groups)
        assert worth == pytest.approx(60)
        hits += lower <= 0.1 <= upper
    assert_calibrated(hits, 200, 0.9)
    z = stats.norm.ppf(0.95)
    none = share_interval(torch.zeros(40).bool())
    assert none[:2] == (0.0, 0.0)
    assert none[2] == pytest.approx(z**2 / (40 + z**2))
    weighted = share_interval(torch.tensor([True, False]), torch.tensor([3.0, 1.0]))
    assert weighted[0] == 0.75 and weighted[3] == pytest.approx(1.6)


def test_cells_are_shares_with_the_errors_of_groups(source, normal):
    places, groups, weights = torch.randint(5, (40,), generator=source), torch.arange(40) // 4, normal(40).exp()
    shares, errors = cell_shares(places, 6, weights, groups)
    part = weights / weights.sum()
    for cell in range(6):
        assert float(shares[cell]) == pytest.approx(float(part[places == cell].sum()))
        off = part * ((places == cell).double() - shares[cell])
        brute = torch.zeros(10).double().index_add_(0, groups, off).square().sum().sqrt()
        assert float(errors[cell]) == pytest.approx(float(brute), abs=1e-12)


def test_mode_that_is_missing(source):
    first, second = torch.zeros(400).long(), (torch.arange(400) < 20).long()
    found = mode_shares(first, second)
    assert found[1].value == 0 and found[1].upper > 0
    assert found[1].ideal == 0.05 and found[1].ideal_lower > 0
    assert found[1].p_value < 1e-4
    assert found[0].value + found[1].value == 1
    alike = mode_shares(second, second.flip(0), weights=torch.ones(400))
    assert alike[1].p_value == 1


def test_equal_weights(source):
    weights = torch.tensor([4.0, 2.0, 1.0, 0.0]).repeat(400)
    kept = equal_weights(weights, seed=source).reshape(400, 4).sum(0)
    assert kept[0] == 400 and kept[3] == 0
    assert_calibrated(int(kept[1]), 400, 0.5)
    assert_calibrated(int(kept[2]), 400, 0.25)


def test_text_content_and_bad_input():
    one = Compared(0.5, 0.4, math.inf, 0.1, 0.05, 0.2, 0.01)
    assert str(one) == "0.5 [0.4, inf]; perfect 0.1 [0.05, 0.2]; p = 0.01"
    assert json.loads(json.dumps(one.content(), allow_nan=False))["upper"] is None
    with pytest.raises(ShapeError, match="groups"):
        replicated((3, 4), None, (torch.zeros(3).long(), torch.zeros(3).long()), resamples=5, seed=0)
    with pytest.raises(DataError, match="at least 2 groups"):
        replicated((3, 4), None, (torch.zeros(3).long(), torch.arange(4)), resamples=5, seed=0)
    with pytest.raises(ShapeError, match="weights"):
        replicated((3, 4), torch.ones(4), None, resamples=5, seed=0)
