import itertools
import math

import pytest
import torch

from bayesmol.acquisition import clusters
from bayesmol.acquisition.diversity import farthest, largest_cluster
from bayesmol.errors import DataError, ShapeError

RULES = [largest_cluster, farthest]
TIE = 1e-11


def search(rule, features, size, training=None, weights=None, first=()):
    """The full search in float64: all distances from each new centre, all sums anew."""
    rows = features.double()
    weights = torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()
    distances, owners = (
        torch.full((len(rows),), math.inf, dtype=torch.float64),
        torch.zeros(len(rows), dtype=torch.long),
    )
    count, chosen, gains = 0, [], []

    def add(centre):
        nonlocal count
        found = (rows - centre).square().sum(1)
        closer = found < distances
        distances[closer], owners[closer] = found[closer], count
        count += 1

    for centre in () if training is None else training.double():
        add(centre)
    while len(chosen) < size:
        scores = weights * (distances if count else rows.square().sum(1))
        eligible = scores.clone()
        if count and rule is largest_cluster:
            totals = owners.bincount(weights=scores, minlength=count)
            eligible[owners != (totals >= totals.max() * (1 - TIE)).nonzero()[0]] = -1.0
        eligible[chosen] = -1.0
        if float(eligible.max()) <= 0:
            eligible = -torch.isin(torch.arange(len(rows)), torch.tensor(chosen)).double()
        best = int((eligible >= eligible.max() - TIE * eligible.max().abs()).nonzero()[0])
        best = first[len(chosen)] if len(chosen) < len(first) else best
        gains.append(float(scores[best]))
        chosen.append(best)
        add(rows[best])
    return chosen, gains


@pytest.fixture
def small(monkeypatch):
    """Sizes at which a pool of a few hundred rows goes the way of a large one."""
    monkeypatch.setattr(clusters, "_SMALL", 64)
    monkeypatch.setattr(clusters, "_SAMPLE", 40)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_rows_are_those_of_the_full_search(small, normal, rule, dtype, offset):
    centres = 4 * normal(9, 7)
    features = torch.cat([centre + spread * normal(60, 7) for spread, centre in enumerate(centres)]).to(dtype) + offset
    batch = rule(features, 70)
    chosen, gains = search(rule, features, 70)
    assert batch.indices.tolist() == chosen
    assert batch.gains.tolist() == pytest.approx(gains, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_training_weights_and_rows_that_are_there_anyway(small, normal, rule):
    features, training, weights = normal(300, 5), normal(20, 5), normal(300).square()
    weights[:40] = 0.0
    options = {"training": training, "weights": weights, "first": (3, 250, 90)}
    batch = rule(features, 50, **options)
    chosen, gains = search(rule, features, 50, **options)
    assert batch.indices.tolist() == chosen and chosen[:3] == [3, 250, 90]
    assert batch.gains.tolist() == pytest.approx(gains, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("rule", RULES)
def test_coarse_products_change_no_choice(small, monkeypatch, normal, rule):
    # a bound of a million times the round-off sends nearly every comparison to float64
    features = normal(250, 4)
    monkeypatch.setattr(clusters, "roundoff", lambda _: 0.1)
    assert rule(features, 40).indices.tolist() == search(rule, features, 40)[0]


@pytest.mark.parametrize("rule", RULES)
def test_copies_come_last_and_in_order(small, normal, rule):
    features = normal(12, 3).repeat(10, 1)
    batch = rule(features, 30)
    assert batch.indices.tolist() == search(rule, features, 30)[0]
    assert sorted(index % 12 for index in batch.indices[:12].tolist()) == list(range(12))
    assert batch.gains[12:].tolist() == [0.0] * 18
    assert rule(features, 120).indices.sort().values.tolist() == list(range(120))


@pytest.mark.parametrize("rule", RULES)
def test_order_unit_and_place_of_the_pool_change_nothing(normal, rule):
    features, training = normal(300, 6), normal(2, 6)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    rows = rule(features, 30, training=training).indices.tolist()
    assert order[rule(features[order], 30, training=training).indices].tolist() == rows
    assert rule(1e-3 * features, 30, training=1e-3 * training).indices.tolist() == rows
    assert rule(features + 5.0, 30, training=training + 5.0).indices.tolist() == rows
    assert rule(1e30 * features.float(), 5).indices.tolist() == search(rule, 1e30 * features.float(), 5)[0]


def test_farthest_points_cover_the_pool_within_twice_the_best_radius(normal):
    features = normal(12, 2)
    distances = torch.cdist(features, features)
    radius = float(distances[:, farthest(features, 3).indices].amin(1).max())
    best = min(float(distances[:, list(rows)].amin(1).max()) for rows in itertools.combinations(range(12), 3))
    assert best <= radius <= 2 * best + 1e-9


def test_an_outlier_is_far_but_no_large_cluster(normal):
    features = torch.cat([normal(400, 2), torch.tensor([[12.0, 0.0]], dtype=torch.float64)])
    training = torch.zeros(1, 2, dtype=torch.float64)
    assert farthest(features, 1, training=training).indices.tolist() == [400]
    # once it is a centre of its own, the rest of the batch is where the pool is
    inner = features[largest_cluster(features, 10, training=training).indices[1:]]
    assert float(inner.abs().max()) < 5


@pytest.mark.parametrize("rule", RULES)
def test_bad_input(normal, rule):
    features = normal(6, 3)
    with pytest.raises(DataError, match=r"1 to 6 \(candidates\), got 7"):
        rule(features, 7)
    with pytest.raises(DataError, match="finite"):
        rule(features.index_fill(0, torch.tensor([2]), math.inf), 2)
    with pytest.raises(ShapeError, match=r"weights: expected shape \(6,\)"):
        rule(features, 2, weights=torch.ones(5))
    with pytest.raises(DataError, match="weights"):
        rule(features, 2, weights=-torch.ones(6))
    with pytest.raises(DataError, match="first"):
        rule(features, 2, first=(1, 1))
    with pytest.raises(ShapeError, match=r"shape \(rows, 3\)"):
        rule(features, 2, training=normal(2, 4))
