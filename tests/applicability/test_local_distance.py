import pytest
import torch

from bayesmol.applicability.local_distance import LocalDistance
from bayesmol.applicability.scores import check_score
from bayesmol.calibration.metrics import auroc
from bayesmol.errors import DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_score_by_brute_force():
    features, new = normal(40, 3) * torch.tensor([1.0, 10.0, 0.1]), normal(7, 3, seed=1)
    scale = features.std(0, correction=0)
    between = ((features[:, None] - features) / scale).abs().sum(2)
    spacing = between.sort(1).values[:, 1:5].mean(1)
    mean = spacing.mean()
    distance = ((new[:, None] - features) / scale).abs().sum(2)
    want = (distance / (mean * (spacing + 0.3 * mean)).sqrt()).amin(1)
    assert torch.allclose(LocalDistance(neighbours=4).fit(features)(new), want, rtol=1e-12)


def test_score_obeys_the_contract_and_ignores_units():
    features = normal(60, 4)
    check_score(LocalDistance(), features)
    scale, shift = torch.tensor([1e-3, 7.0, 2.0, 1e4]).double(), normal(4, seed=1)
    new = normal(9, 4, seed=2)
    before, after = (
        LocalDistance().fit(features)(new),
        LocalDistance().fit(features * scale + shift)(new * scale + shift),
    )
    assert torch.allclose(before, after, rtol=1e-6)
    assert bool((LocalDistance().fit(features)(features) == 0).all()), "training rows are not strange"


def test_the_same_gap_is_stranger_where_training_is_dense():
    dense, sparse = torch.arange(100.0) / 100, 100 + torch.arange(100.0)
    score = LocalDistance().fit(torch.cat([dense, sparse]).double()[:, None])
    dense_gap, sparse_gap = score(torch.tensor([[-0.4], [150.4]], dtype=torch.float64)).tolist()
    assert dense_gap > 1.8 * sparse_gap


def test_a_lattice_of_one_spacing_gives_distances_in_that_spacing():
    features = torch.arange(2000.0, dtype=torch.float64)[:, None]
    score = LocalDistance(neighbours=2).fit(features)  # the two nearest are one step away, but at the ends
    middle = torch.tensor([[1000.5], [1000.25]], dtype=torch.float64)
    expected = torch.tensor([0.5, 0.25], dtype=torch.float64) / 1.3**0.5
    assert torch.allclose(score(middle), expected, rtol=2e-3)


def test_separates_a_left_out_cluster_better_than_the_mean_distance_to_neighbours():
    """Families of near twins: held-out members lie close to theirs, a new family does not."""
    from bayesmol.applicability.nearest import Nearest

    centres, noise = normal(60, 8), 0.15 * normal(60, 6, 8, seed=1)
    rows = centres[:, None] + noise * torch.linspace(0.2, 3, 60)[:, None, None]
    train, held, new = rows[:40, :4].flatten(0, 1), rows[:40, 4:].flatten(0, 1), rows[40:].flatten(0, 1)
    outside = torch.arange(len(held) + len(new)) >= len(held)
    judged = torch.cat([held, new])
    areas = [float(auroc(spec.fit(train)(judged), outside)) for spec in (LocalDistance(), Nearest())]
    assert areas[0] > 0.95 and areas[0] > areas[1]


def test_equal_rows_and_constant_features():
    features = torch.ones(30, 2, dtype=torch.float64)
    score = LocalDistance().fit(features)
    assert score(torch.tensor([[1.0, 1.0], [1.0, 3.0]], dtype=torch.float64)).tolist() == [0.0, 2.0]
    mostly = torch.cat([features, normal(20, 2)])
    assert bool(LocalDistance().fit(mostly)(normal(5, 2, seed=3)).isfinite().all())


def test_precision_chunks_and_bad_input(monkeypatch):
    features = normal(50, 3)
    score = LocalDistance().fit(features)
    assert LocalDistance().fit(features.float())(features.float()).dtype == torch.float32
    assert score(features[:0]).shape == (0,)
    whole = score(normal(33, 3, seed=2))
    monkeypatch.setattr("bayesmol.applicability.local_distance.ENTRIES", 100)
    assert torch.equal(score(normal(33, 3, seed=2)), whole)
    assert torch.allclose(LocalDistance().fit(features).unit, score.unit, rtol=1e-14)
    for rows in (0, 50):
        with pytest.raises(DataError, match="neighbours"):
            LocalDistance(neighbours=rows).fit(features)
    with pytest.raises(DataError, match="finite"):
        LocalDistance().fit(features * float("nan"))
    with pytest.raises(ShapeError):
        score(normal(4, 2))
