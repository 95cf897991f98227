import itertools
import math

import pytest
import torch
from scipy import stats

from bayesmol.calibration import divergences
from bayesmol.calibration.divergences import (
    Bins,
    jensen_shannon,
    kullback_leibler,
    sliced_wasserstein,
    total_variation,
    wasserstein_circle,
    wasserstein_line,
)
from bayesmol.errors import DataError, ShapeError


def test_gaussian_closed_forms_within_two_percent(normal):
    first, second = normal(400_000), 1 + 1.5 * normal(400_000)
    bins = Bins.of(torch.cat([first, second]), 100)
    p, q = bins.shares(first), bins.shares(second, pseudo_rows=1)
    closed = math.log(1.5) + (1 + 1) / (2 * 1.5**2) - 0.5
    assert float(kullback_leibler(p, q)) == pytest.approx(closed, rel=0.02)
    laws = stats.norm(0, 1), stats.norm(1, 1.5)
    x = torch.linspace(-10, 12, 20001, dtype=torch.float64)
    density = [torch.from_numpy(law.pdf(x)) for law in laws]
    variation = float((density[0] - density[1]).abs().sum() * (x[1] - x[0]) / 2)
    assert float(total_variation(p, q)) == pytest.approx(variation, rel=0.02)
    middle = (density[0] + density[1]) / 2
    exact = sum(float(torch.xlogy(d, d / middle).sum() * (x[1] - x[0]) / 2) for d in density)
    assert float(jensen_shannon(p, q)) == pytest.approx(exact, rel=0.02)
    assert float(wasserstein_line(first, second, order=2)) == pytest.approx(math.sqrt(1 + 0.5**2), rel=0.02)


def test_disjoint_samples(normal):
    first = torch.rand(500, generator=torch.Generator().manual_seed(0)).double()
    for second in (first + 5, first - 5, torch.full_like(first, math.inf)):
        bins = Bins.of(first, 20)
        p, q = bins.shares(first), bins.shares(second)
        assert float(jensen_shannon(p, q)) == pytest.approx(math.log(2), abs=1e-12)
        assert float(total_variation(p, q)) == pytest.approx(1)
        assert float(kullback_leibler(p, q)) == math.inf
        assert math.isfinite(float(kullback_leibler(p, bins.shares(second, pseudo_rows=1))))
    assert float(jensen_shannon(p, p)) == 0


def test_cells_by_hand():
    bins = Bins.of(torch.tensor([0.0, 1.0, 4.0]), 4)
    rows = torch.tensor([-0.1, 0.0, 0.9, 1.0, 3.9, 4.0, 4.1, math.inf, -math.inf])
    assert bins.cells(rows).squeeze(1).tolist() == [0, 1, 1, 2, 4, 4, 5, 5, 0]
    angles = Bins.of(torch.zeros(1), 4, periodic=True)
    turned = torch.tensor([-3.0, -0.1, 0.1, 3.1, 3.2, 0.1 + 4 * math.pi]).double()
    assert angles.cells(turned).squeeze(1).tolist() == [0, 1, 2, 3, 0, 2]
    both = Bins.of(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), 2, periodic=[False, True])
    shares = both.shares(torch.tensor([[0.2, 1.0], [0.2, -1.0], [2.0, 1.0]]), torch.tensor([1.0, 2.0, 1.0]))
    assert shares.reshape(both.sizes).tolist() == [[0, 0], [0.5, 0.25], [0, 0], [0, 0.25]]


def test_pseudo_rows_and_weights(normal):
    rows = normal(50)
    bins = Bins.of(rows, 8)
    counts = torch.bincount(bins.cells(rows).squeeze(1), minlength=10)
    torch.testing.assert_close(bins.shares(rows, pseudo_rows=2), (counts.double() + 0.2) / 52)
    twice = torch.cat([rows, rows[:10]])
    weights = 1 + (torch.arange(50) < 10).double()
    torch.testing.assert_close(bins.shares(rows, weights), bins.shares(twice))
    worth = 60**2 / 80  # by Kish
    smoothed = (worth * bins.shares(rows, weights) + 0.1) / (worth + 1)
    torch.testing.assert_close(bins.shares(rows, weights, pseudo_rows=1), smoothed)


def test_line_by_assignment_and_by_scipy(normal, source):
    first, second = normal(7), normal(7)
    for order in (1.0, 2.0, 3.0):
        best = min((first - second[list(p)]).abs().pow(order).mean() for p in itertools.permutations(range(7)))
        assert float(wasserstein_line(first, second, order=order)) == pytest.approx(float(best) ** (1 / order))
    first, second = normal(40, 2), 2 * normal(30, 2)
    weights, others = (torch.rand(n, generator=source, dtype=torch.float64) for n in (40, 30))
    found = wasserstein_line(first, second, weights=weights, second_weights=others)
    for column in range(2):
        want = stats.wasserstein_distance(first[:, column], second[:, column], weights, others)
        assert float(found[column]) == pytest.approx(want)


def test_shifts(normal):
    rows = normal(200, 3)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(wasserstein_line(rows, rows + shift, order=2), shift.abs())
    found = sliced_wasserstein(rows, rows + shift, directions=2000, seed=0)
    assert float(found) == pytest.approx(float(shift.norm()) / math.sqrt(3), rel=0.03)
    assert float(sliced_wasserstein(rows, rows + shift, seed=1)) == float(
        sliced_wasserstein(rows, rows + shift, seed=1)
    )


def test_circle_by_assignment(normal):
    first, second = (1.5 * normal(6, 2) + 3).remainder(divergences.TURN), 3 * normal(6, 2)
    found = wasserstein_circle(first, second)
    for column in range(2):
        gaps = (first[:, None, column] - second[:, column] + math.pi).remainder(2 * math.pi) - math.pi
        best = min(float(gaps.abs()[range(6), list(p)].mean()) for p in itertools.permutations(range(6)))
        assert float(found[column]) == pytest.approx(best)
    angles = 3 + 0.1 * normal(100)
    assert float(wasserstein_circle(angles, angles + 0.2)) == pytest.approx(0.2)  # across the edge
    weights = torch.tensor([2.0, 1.0, 1.0, 2.0, 1.0, 1.0])
    repeated = torch.cat([first, first[[0, 3]]])
    torch.testing.assert_close(wasserstein_circle(first, second, weights=weights), wasserstein_circle(repeated, second))


def test_bad_input(normal):
    with pytest.raises(DataError, match="NaN"):
        Bins.of(normal(5)).cells(torch.tensor([math.nan]))
    with pytest.raises(DataError, match="infinite angle"):
        Bins.of(normal(5), periodic=True).cells(torch.tensor([math.inf]))
    with pytest.raises(DataError, match="finite rows"):
        Bins.of(torch.tensor([math.inf]))
    with pytest.raises(ShapeError, match="axes"):
        Bins.of(normal(5)).cells(normal(5, 2))
    with pytest.raises(ShapeError, match="cells"):
        total_variation(torch.ones(2), torch.ones(3))
    with pytest.raises(ShapeError, match="columns"):
        wasserstein_line(normal(5, 2), normal(5, 3))
    with pytest.raises(DataError, match="order"):
        wasserstein_line(normal(5), normal(5), order=0.5)
    with pytest.raises(DataError, match="weights"):
        wasserstein_line(normal(2), normal(5), weights=torch.tensor([-1.0, 2.0]))
    with pytest.raises(ShapeError, match="weights"):
        wasserstein_line(normal(2), normal(5), weights=torch.ones(3))
    with pytest.raises(DataError, match="finite"):
        wasserstein_line(normal(2) * math.inf, normal(5))
