import pytest
import torch

from bayesmol.dynamics.connected_counts import (
    check_connected,
    checked_counts,
    checked_populations,
    largest_connected_set,
)
from bayesmol.errors import DataError, ShapeError

CHAIN = torch.tensor([[1.0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 3, 1], [0, 0, 2, 0]])  # no way back from the last two


def test_the_largest_set_and_of_equal_ones_that_with_more_counts():
    assert largest_connected_set(CHAIN).tolist() == [2, 3]
    assert largest_connected_set(CHAIN[:3, :3]).tolist() == [0, 1]
    assert largest_connected_set(torch.ones(3, 3)).tolist() == [0, 1, 2]


def test_states_that_do_not_reach_each_other_are_refused():
    check_connected(torch.ones(2, 3, 3))
    with pytest.raises(DataError, match="2 sets"):
        check_connected(CHAIN[None])


def test_bad_counts():
    for wrong in (torch.ones(2, 3), torch.ones(1, 1), torch.ones(3)):
        with pytest.raises(ShapeError, match="counts"):
            checked_counts(wrong)
    for value in (-1.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="counts"):
            checked_counts(torch.full((2, 2), value))
    assert checked_counts(torch.ones(2, 2).float()).dtype == torch.float64


def test_populations_sum_to_one():
    counts = torch.ones(2, 2).double()
    assert torch.equal(
        checked_populations(torch.tensor([0.25, 0.75]).double(), counts), torch.tensor([0.25, 0.75]).double()
    )
    with pytest.raises(DataError):
        checked_populations(torch.tensor([0.0, 1.0]).double(), counts)
    with pytest.raises(ShapeError):
        checked_populations(torch.ones(3).double() / 3, counts)
