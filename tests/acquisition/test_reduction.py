import math

import pytest
import torch

from bayesmol.acquisition.reduction import variance_batch
from bayesmol.errors import DataError, ShapeError


@pytest.fixture
def draw():
    source = torch.Generator().manual_seed(0)
    return lambda *shape: torch.randn(shape, generator=source, dtype=torch.float64)


def left(factors, targets, noise, batch):
    """Summed variance of the targets given the labels of a batch, by conditioning a Gaussian."""
    rank = factors[0].shape[1]
    known = torch.cat([factors[index] for index in batch]) if batch else torch.zeros(0, rank, dtype=torch.float64)
    covariance = known @ known.T + noise**2 * torch.eye(len(known), dtype=torch.float64)
    goal = torch.cat(list(targets))
    cross = goal @ known.T
    return float((goal @ goal.T - cross @ torch.linalg.solve(covariance, cross.T)).trace())


def test_picks_are_those_of_conditioning_by_brute_force(draw):
    factors, targets = [draw(rows, 9) for rows in (3, 6, 3, 9, 6, 3)], [draw(3, 9), draw(6, 9)]
    batch = variance_batch(factors, targets, 0.7, 4)
    chosen = []
    for step in range(4):
        after = [math.inf if i in chosen else left(factors, targets, 0.7, [*chosen, i]) for i in range(6)]
        best = min(range(6), key=after.__getitem__)
        gain = (left(factors, targets, 0.7, chosen) - after[best]) / 9
        assert int(batch.indices[step]) == best
        assert float(batch.gains[step]) == pytest.approx(gain, rel=1e-9)
        chosen.append(best)


def test_only_what_concerns_the_target_is_worth_a_label():
    axes = torch.eye(4, dtype=torch.float64)
    factors = [10 * axes[:1], axes[1:2], axes[2:3], 0.5 * axes[1:2]]
    batch = variance_batch(factors, [axes[1:2]], 0.1, 2)
    assert batch.indices.tolist() == [1, 3], "the most uncertain structure says nothing about the target"


def test_the_order_of_the_pool_does_not_matter(draw):
    factors, targets = [draw(3, 8) for _ in range(12)], [draw(3, 8) for _ in range(5)]
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1)).tolist()
    batch = variance_batch(factors, targets, 0.5, 5)
    again = variance_batch([factors[i] for i in order], targets, 0.5, 5)
    assert [order[i] for i in again.indices.tolist()] == batch.indices.tolist()


def test_first_and_costs(draw):
    factors, targets = [draw(3, 8) for _ in range(6)], [draw(3, 8) for _ in range(5)]
    assert variance_batch(factors, targets, 0.5, 3, first=(4, 2)).indices.tolist()[:2] == [4, 2]
    costs = torch.ones(6, dtype=torch.float64)
    best = int(variance_batch(factors, targets, 0.5, 1).indices)
    costs[best] = 1e6
    assert int(variance_batch(factors, targets, 0.5, 1, costs=costs).indices) != best


def test_chunks_do_not_matter(draw, monkeypatch):
    factors, targets = [draw(3, 8) for _ in range(9)], [draw(3, 8)]
    whole = variance_batch(factors, targets, 0.5, 4)
    monkeypatch.setattr("bayesmol.acquisition.reduction._CHUNK", 1)
    assert variance_batch(factors, targets, 0.5, 4).indices.tolist() == whole.indices.tolist()


def test_bad_input(draw):
    factors = [draw(3, 8), draw(3, 8)]
    with pytest.raises(DataError, match="size"):
        variance_batch(factors, factors, 0.5, 3)
    with pytest.raises(DataError, match="noise"):
        variance_batch(factors, factors, 0.0, 1)
    with pytest.raises(ShapeError, match="one rank"):
        variance_batch(factors, [draw(3, 7)], 0.5, 1)
    with pytest.raises(ShapeError, match="targets"):
        variance_batch(factors, [], 0.5, 1)
    with pytest.raises(DataError, match="finite"):
        variance_batch([factors[0] * math.nan, factors[1]], factors, 0.5, 1)
