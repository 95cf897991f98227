"""Cells: brute-force assignment, separated clouds, grids, and what is refused."""

import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.clustering import Grid, KMeans, Partition
from bayesmol.errors import DataError, ShapeError


@pytest.fixture
def clouds(normal):
    """Three clouds around (0, 0), (10, 0), (0, 10), in two trajectories."""
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]], dtype=torch.float64)
    x = centres.repeat_interleave(60, 0) + 0.5 * normal(180, 2)
    return [x[:100], x[100:]]


def test_assignment_is_the_nearest_centre(normal, monkeypatch):
    partition, x = Partition(normal(7, 3), torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)), normal(50, 3)
    exact = ((x[:, None] - partition.centres) / partition.widths).square().sum(2).argmin(1)
    assert torch.equal(partition.assign(x), exact)
    monkeypatch.setattr("bayesmol.dynamics.clustering._DISTANCES", 7 * 8)
    assert torch.equal(partition.assign(x), exact), "in chunks"


def test_far_from_the_origin_no_digit_is_lost(normal):
    near = Partition(normal(40, 2), torch.ones(2, dtype=torch.float64))
    far = Partition(near.centres + 2.0**30, near.widths)
    x = normal(200, 2)
    assert float((near.assign(x) == far.assign(x + 2.0**30)).double().mean()) > 0.99


def test_clouds_are_found(clouds):
    partition = KMeans(3).fit(clouds, seed=0)
    assert partition.states == 3
    labels = torch.cat(partition.discretise(clouds).parts)
    assert all(len(labels[60 * k : 60 * k + 60].unique()) == 1 for k in range(3)) and len(labels.unique()) == 3
    again = KMeans(3).fit(Trajectories.of(clouds), seed=0)
    assert torch.equal(again.centres, partition.centres), "same seed, same cells"
    few = KMeans(3, frames=90).fit(clouds, seed=1)
    torch.testing.assert_close(few.centres.sort(0).values, partition.centres.sort(0).values, rtol=0, atol=0.5)


def test_discretise_keeps_time(clouds):
    data = Trajectories.of(clouds, time_step=0.2, unit="ps")
    states = KMeans(3).fit(data, seed=0).discretise(data)
    assert states.discrete and states.time_step == 0.2 and states.unit == "ps" and states.lengths == [100, 80]


def test_state_survives(clouds):
    partition = KMeans(3).fit(clouds, seed=0)
    other = Partition.from_state(*partition.state())
    assert torch.equal(other.assign(clouds[0]), partition.assign(clouds[0]))


def test_grid_cells():
    x = torch.tensor([[0.1, 0.1], [0.9, 0.1], [0.1, 3.9], [1.0, 4.0], [0.2, 0.3]], dtype=torch.float64)
    partition = Grid(bins=(2, 4), lower=(0.0, 0.0), upper=(1.0, 4.0)).fit(x)
    assert partition.states == 4
    labels = partition.assign(x)
    assert labels.tolist() == [0, 2, 1, 3, 0]
    torch.testing.assert_close(partition.centres[0], torch.tensor([0.25, 0.5], dtype=torch.float64))
    # A cell without a frame goes to the nearest state, in numbers of cells.
    assert partition.assign(torch.tensor([[0.3, 1.5]], dtype=torch.float64)).tolist() == [0]


def test_bad_input(clouds, normal):
    ones = torch.ones(2, dtype=torch.float64)
    with pytest.raises(DataError, match="different ones"):
        Partition(torch.zeros(2, 2, dtype=torch.float64), ones)
    with pytest.raises(DataError, match="different ones"):
        KMeans(3).fit(torch.tensor([[0.0], [1.0], [0.0], [1.0]]).double(), seed=0)
    with pytest.raises(DataError, match="finite"):
        Partition(torch.full((1, 2), float("nan")).double(), ones)
    with pytest.raises(DataError, match="positive"):
        Partition(normal(3, 2), 0 * ones)
    with pytest.raises(ShapeError):
        Partition(normal(3, 2), torch.ones(3).double())
    with pytest.raises(DataError, match="at most"):
        KMeans(200).fit(clouds, seed=0)
    with pytest.raises(DataError):
        KMeans(0)
    with pytest.raises(DataError):
        KMeans(10, frames=5)
    with pytest.raises(ShapeError, match="states"):
        KMeans(2).fit(torch.tensor([0, 1, 1]), seed=0)
    partition = KMeans(3).fit(clouds, seed=0)
    with pytest.raises(ShapeError):
        partition.assign(normal(4, 3))
    with pytest.raises(DataError, match="finite"):
        partition.assign(torch.tensor([[0.0, float("inf")]]).double())
    for bins, lower, upper in (((2,), (0.0,), (0.0,)), ((0,), (0.0,), (1.0,)), ((2, 2), (0.0,), (1.0,)), ((), (), ())):
        with pytest.raises(DataError):
            Grid(bins, lower, upper)
    with pytest.raises(DataError, match="outside"):
        Grid((2, 2), (0.0, 0.0), (1.0, 1.0)).fit(clouds)
    with pytest.raises(ShapeError):
        Grid((2,), (-9.0,), (99.0,)).fit(clouds)
