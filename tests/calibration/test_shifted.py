import math

import pytest
import torch

from bayesmol.calibration.shifted import ShiftedResiduals
from bayesmol.errors import DataError, ShapeError


def brute(shifts, residuals, folds, weights, goal):
    """Smallest sum of each point up to which the weight is ``goal``, from all sums."""
    sums, order = (shifts[folds] + residuals.abs()[:, None]).sort(0)
    reached = weights[order].cumsum(0) >= goal - 1e-9
    first = reached.to(torch.uint8).argmax(0, keepdim=True)
    found = sums.gather(0, first)[0]
    return torch.where(reached.any(0), found, math.inf)


@pytest.mark.parametrize("folds", [1, 3, 40, 300], ids=lambda k: f"{k} folds")
@pytest.mark.parametrize("spread", [0.0, 1e-9, 0.3, 50.0])
@pytest.mark.parametrize("grouped", [False, True])
def test_equals_sorting_all_sums(source, normal, folds, spread, grouped):
    rows, home = 300, torch.randperm(300, generator=source) % folds
    groups = None
    if grouped:  # several groups a fold, of many sizes
        groups = home * 300 + torch.randint(0, 6, (rows,), generator=source) ** 2
    found = ShiftedResiduals.of(normal(rows), home, groups)
    shifts = 7 + spread * normal(folds, 60)
    for level in (0.01, 0.5, 0.77, 0.9, 0.99):
        goal = level * (found.groups + 1)
        want = brute(shifts, found.residuals, home, found.weights, goal)
        torch.testing.assert_close(found.smallest(shifts, goal), want, rtol=0, atol=1e-13)
    assert found.direct == (folds == 300)


def test_folds_of_very_different_sizes(source, normal):
    sizes = torch.tensor([1, 1, 2, 3, 700, 5, 16, 17, 2000])
    home = torch.repeat_interleave(sizes)[torch.randperm(int(sizes.sum()), generator=source)]
    found = ShiftedResiduals.of(normal(len(home)), home)
    shifts = normal(len(sizes), 40)
    for goal in (1.0, 30.0, 2000.0, float(len(home))):
        want = brute(shifts, found.residuals, home, found.weights, goal)
        torch.testing.assert_close(found.smallest(shifts, goal), want, rtol=0, atol=1e-13)
    assert sum(table.ordered.numel() for table in found.tables) <= 2 * len(home) + 2 * len(sizes)


def test_ties(normal):
    home = torch.arange(40) % 4
    residuals = (torch.arange(40) % 3).double()
    shifts = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [2.0, 1.0]], dtype=torch.float64)
    found = ShiftedResiduals.of(residuals, home)
    for goal in map(float, range(1, 41)):
        assert torch.equal(found.smallest(shifts, goal), brute(shifts, residuals, home, found.weights, goal))
    zero = ShiftedResiduals.of(torch.zeros(40).double(), home)
    assert torch.equal(zero.smallest(shifts, 36.0), torch.tensor([2.0, 1.0], dtype=torch.float64))
    alone = ShiftedResiduals.of(torch.zeros(4).double(), torch.arange(4))
    assert torch.equal(alone.smallest(shifts, 3.0), torch.tensor([1.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize("folds", [4, 40])
def test_infinite_residuals_are_the_largest(normal, folds):
    residuals, home = normal(40), torch.arange(40) % folds
    residuals[::8] = math.inf
    found = ShiftedResiduals.of(residuals, home)
    shifts = normal(folds, 5)
    for goal in (1.0, 20.0, 35.0):
        want = brute(shifts, residuals, home, found.weights, goal)
        torch.testing.assert_close(found.smallest(shifts, goal), want, rtol=0, atol=1e-13)
    assert bool(found.smallest(shifts, 36.0).isinf().all()) and bool(want.isfinite().all())


def test_sizes_count_groups():
    home = torch.tensor([0, 0, 0, 1, 1, 1])
    found = ShiftedResiduals.of(torch.ones(6).double(), home, torch.tensor([5, 5, 9, 7, 7, 7]))
    assert found.sizes.tolist() == [2, 1] and found.groups == 3 and not found.whole
    assert found.weights.tolist() == pytest.approx([0.5, 0.5, 1, 1 / 3, 1 / 3, 1 / 3])
    assert ShiftedResiduals.of(torch.ones(6).double(), home).whole


def test_bad_input():
    ones = torch.ones(4).double()
    with pytest.raises(ShapeError, match="folds"):
        ShiftedResiduals.of(ones, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ShapeError, match="groups"):
        ShiftedResiduals.of(ones, torch.zeros(4, dtype=torch.long), torch.zeros(3, dtype=torch.long))
    with pytest.raises(DataError, match="gap"):
        ShiftedResiduals.of(ones, torch.tensor([0, 0, 2, 2]))
    with pytest.raises(DataError, match="NaN"):
        ShiftedResiduals.of(ones * math.nan, torch.zeros(4, dtype=torch.long))
    with pytest.raises(DataError, match="each in one fold"):
        ShiftedResiduals.of(ones, torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2]))
