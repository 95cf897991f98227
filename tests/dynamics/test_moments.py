import pytest
import torch

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.moments import block_length, moments, streamed
from bayesmol.errors import ConvergenceError, DataError


def features(x):
    return x


def rows(*lengths, seed=0):
    source = torch.Generator().manual_seed(seed)
    return Trajectories.of([torch.randn(n, 2, generator=source, dtype=torch.float64) for n in lengths])


def brute(trajectories, lag):
    early = late = cross = 0.0
    for part in trajectories:
        x = torch.cat([torch.ones(len(part), 1), part], 1)
        for t in range(len(part) - lag):
            early, cross, late = (
                early + torch.outer(x[t], x[t]),
                cross + torch.outer(x[t], x[t + lag]),
                late + torch.outer(x[t + lag], x[t + lag]),
            )
    return early, cross, late


@pytest.mark.parametrize("block", [3, 7, 50])
def test_sums_over_all_pairs_of_each_trajectory(block):
    data = rows(40, 3, 25)
    found = moments(data, features, 4, block=block)
    for part, wanted in zip((found.early, found.cross, found.late), brute(data, 4), strict=True):
        assert torch.allclose(part.sum(0), wanted, rtol=1e-12)
    assert found.pairs == 36 + 21
    assert found.trajectory.unique().tolist() == [0, 2], "the second is shorter than the lag"


def test_blocks_are_of_consecutive_frames():
    data = rows(40)
    found = moments(data, features, 4, block=10)
    x = data.parts[0]
    assert torch.allclose(found.cross[1, 1:, 1:], x[10:20].mT @ x[14:24], rtol=1e-12)
    assert found.early[:, 0, 0].tolist() == [10, 10, 10, 6]


def test_chunks_of_any_size_give_the_same():
    data = rows(100)
    whole = moments(data, features, 5, block=12)
    for size in (1, 12, 37):
        pieces = streamed([data.parts[0].split(size)], features, 5, block=12)
        assert torch.allclose(pieces.cross, whole.cross, rtol=1e-12)


def test_two_passes_are_joined():
    data = rows(40, 30)
    one, other = (moments(Trajectories.of(part), features, 4, block=10) for part in data)
    both = one.joined(other)
    assert torch.allclose(both.cross, moments(data, features, 4, block=10).cross, rtol=1e-12)
    assert both.trajectory.tolist() == [0, 0, 0, 0, 1, 1, 1]
    with pytest.raises(DataError, match="other"):
        one.joined(moments(data, features, 5, block=10))


def test_weights_and_projections_commute():
    found = moments(rows(60), features, 2, block=10)
    columns = torch.tensor([[1.0, 0], [0, 2], [0, 1]], dtype=torch.float64)
    columns[0, 0] = 1
    weights = torch.rand(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = columns.mT @ found.mean(weights)[1] @ columns
    assert torch.allclose(found.projected(columns).mean(weights)[1], wanted, rtol=1e-12)
    assert torch.allclose(found.mean(torch.ones(1, 6, dtype=torch.float64))[0][0], found.mean()[0], rtol=1e-12)


def test_blocks_are_a_thousandth_of_all_frames_but_fit_in_memory():
    assert block_length(10**6, 10, 10) == 1000
    assert block_length(1000, 10, 10) == 10
    assert block_length(10**6, 10, 1000) > 30_000


def test_bad_lags():
    with pytest.raises(DataError, match="lag"):
        moments(rows(10), features, 0)
    with pytest.raises(ConvergenceError, match="longer than the lag"):
        moments(rows(10, 8), features, 10)
