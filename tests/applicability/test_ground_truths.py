import math

import pytest
import torch
from scipy import integrate, stats

from bayesmol.applicability.ground_truths import (
    _areas,
    binned_calibration,
    binned_error,
    pointwise_error,
    truths,
)
from bayesmol.errors import DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_point_is_an_error_below_the_mean_absolute_deviation():
    targets = torch.tensor([0.0, 0.0, 4.0, 4.0], dtype=torch.float64)  # deviation 2
    errors = torch.tensor([1.9, -1.9, 2.0, -2.1], dtype=torch.float64)
    truth = pointwise_error(torch.arange(4.0), errors, targets)
    assert truth.inside.tolist() == [True, True, False, False] and truth.limit == 1
    assert torch.allclose(truth.measure, errors.abs() / 2)


def test_bins_by_brute_force():
    scores, errors, targets = normal(100), normal(100, seed=1), 0.9 * normal(500, seed=2)
    truth = binned_error(scores, errors, targets, bins=5)
    order = scores.argsort()
    for part in order.split(20):
        ratio = float(errors[part].square().mean().sqrt() / targets.std(correction=0))
        assert torch.allclose(truth.measure[part], torch.tensor(ratio, dtype=torch.float64))
        assert bool((truth.inside[part] == (ratio < 1)).all())
        assert bool((truth.score[part] == scores[part].max()).all())


def test_the_mean_label_is_on_the_limit_of_both_binned_truths():
    """The naive model itself has ratio 1 and the naive area, in one bin of all rows."""
    targets = normal(200).exp()
    naive, spread = targets - targets.mean(), targets.std(correction=0).expand(200)
    _, error, calibration = truths(normal(200, seed=1), naive, targets, spread, bins=1)
    assert float(error.measure[0]) == pytest.approx(1)
    assert float(calibration.measure[0]) == pytest.approx(calibration.limit, abs=1e-12)


def test_equal_scores_stay_in_one_bin():
    scores = torch.tensor([0.0] * 30 + [1.0] * 10)
    errors = torch.cat([torch.zeros(30), torch.full((10,), 5.0)])
    truth = binned_error(scores, errors, normal(50), bins=10)
    assert truth.score.tolist() == scores.tolist() and truth.inside.tolist() == [True] * 30 + [False] * 10


def area(z):
    return float(_areas(z, torch.zeros(len(z), dtype=torch.long), 1))


def test_areas_of_bins_are_those_of_their_rows_alone():
    z, place = 2 * normal(50) + 1, torch.arange(50) % 7 % 5
    want = [area(z[place == k]) for k in range(5)]
    assert torch.allclose(_areas(z, place, 6), torch.tensor([*want, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("shift", [-3.0, 0.0, 0.4, 8.0])
def test_area_is_the_wasserstein_distance_to_the_normal(shift):
    z = normal(7) * 1.7 + shift
    ordered = z.sort().values.numpy()
    edges = [-40.0, *ordered, 40.0]
    pieces = zip(edges[:-1], edges[1:], range(8), strict=True)
    want = sum(
        integrate.quad(lambda x, c=k / 7: abs(c - stats.norm.cdf(x)), low, high, limit=200)[0]
        for low, high, k in pieces
    )
    assert area(z) == pytest.approx(want, abs=2e-6)


def test_area_of_one_row_and_of_the_quantiles():
    assert area(torch.zeros(1, dtype=torch.float64)) == pytest.approx(math.sqrt(2 / math.pi))
    levels = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    assert area(torch.special.ndtri(levels)) < 4e-5


def test_calibration_sees_a_wrong_standard_deviation():
    scores = torch.arange(2000.0, dtype=torch.float64)
    sigma = torch.ones(2000, dtype=torch.float64)
    errors = normal(2000) * torch.where(scores < 1000, 1.0, 4.0)
    truth = binned_calibration(scores, errors, sigma, torch.rand(500, dtype=torch.float64).exp(), bins=4)
    assert truth.measure[0] < 0.2 and truth.measure[-1] > 1.5
    assert bool((truth.inside == (truth.measure < truth.limit)).all()) and not bool(truth.inside[-1])


def test_bad_input():
    good = normal(20)
    with pytest.raises(ShapeError):
        pointwise_error(good, good[:5], good)
    with pytest.raises(DataError, match="vary"):
        pointwise_error(good, good, torch.ones(5, dtype=torch.float64))
    with pytest.raises(DataError, match="finite"):
        pointwise_error(good * math.nan, good, good)
    with pytest.raises(DataError, match="bins"):
        binned_error(good, good, good, bins=21)
    with pytest.raises(DataError, match="stddevs"):
        binned_calibration(good, good, good - 10, good)
    assert [t.name for t in truths(good, good, good)] == ["point", "error"]
