import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Interval


@pytest.fixture
def interval():
    return Interval(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 3.0]), 0.9, "eV", "by construction")


def test_contains_width_and_covered(interval):
    assert interval.width.tolist() == [1.0, 4.0]
    assert interval.contains(torch.tensor([1.0, 3.1])).tolist() == [True, False]
    assert interval.covered(torch.tensor([0.0, 4.0])) == 0.5
    assert str(interval) == "90 % interval of shape (2,) in eV (by construction)"


def test_infinite_ends_are_allowed():
    wide = Interval(torch.tensor(-math.inf), torch.tensor(math.inf), 0.99, "eV", "needs 99 points")
    assert wide.covered(torch.tensor(1e300)) == 1.0


def test_bad_ends_are_refused():
    with pytest.raises(ShapeError, match="upper"):
        Interval(torch.zeros(2), torch.ones(3), 0.9, "eV", "")
    for upper in (-1.0, math.nan):
        with pytest.raises(DataError, match="upper"):
            Interval(torch.zeros(1), torch.tensor([upper]), 0.9, "eV", "")


@pytest.mark.parametrize("level", [0.0, 1.0, 90, -0.1, math.nan])
def test_bad_levels_are_refused(level):
    with pytest.raises(DataError, match="level"):
        Interval(torch.zeros(1), torch.ones(1), level, "eV", "")


def test_bad_values_are_refused(interval):
    with pytest.raises(ShapeError, match="value"):
        interval.contains(torch.zeros(1))
    with pytest.raises(DataError, match="NaN"):
        interval.contains(torch.tensor([0.0, math.nan]))
