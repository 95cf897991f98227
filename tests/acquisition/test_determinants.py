import itertools
import math

import pytest
import torch

from bayesmol.acquisition import determinants as module
from bayesmol.acquisition.determinants import determinant, roundoff
from bayesmol.errors import DataError, ShapeError


def greedy(features, size, noise, training=None):
    """The full search: every variance anew, from the whole inverse, at each step."""
    rows = features.double() / noise
    known = torch.eye(rows.shape[1], dtype=torch.float64)
    known += 0 if training is None else (training.double() / noise).T @ (training.double() / noise)
    chosen, gains = [], []
    for _ in range(size):
        variances = ((rows @ torch.linalg.inv(known)) * rows).sum(1)
        variances[chosen] = -torch.inf
        best = int((variances >= variances.max() * (1 - 1e-11)).nonzero()[0])
        gains.append(0.5 * math.log1p(float(variances[best])))
        chosen.append(best)
        known += torch.outer(rows[best], rows[best])
    return chosen, gains


def information(rows, noise):
    rows = rows.double() / noise
    return 0.5 * float(torch.logdet(torch.eye(len(rows), dtype=torch.float64) + rows @ rows.T))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noise", [0.03, 1.0])
def test_rows_are_those_of_the_full_search(monkeypatch, normal, dtype, noise):
    monkeypatch.setattr(module, "_WORKING", 40)  # many passes
    features = (normal(600, 10) * torch.linspace(0.2, 2, 10)).to(dtype)
    batch = determinant(features, 60, noise=noise)
    chosen, gains = greedy(features, 60, noise)
    assert batch.indices.tolist() == chosen and len(batch) == 60
    assert batch.gains.tolist() == pytest.approx(gains, rel=1e-8)
    assert float(batch.gains.sum()) == pytest.approx(information(features[chosen], noise), rel=1e-8)


def test_known_labels_are_conditioned_on(normal):
    features, training = normal(200, 6), normal(4, 6)
    batch = determinant(features, 12, noise=0.3, training=training)
    assert batch.indices.tolist() == greedy(features, 12, 0.3, training)[0]
    together = information(torch.cat([training, features[batch.indices]]), 0.3)
    assert float(batch.gains.sum()) == pytest.approx(together - information(training, 0.3), abs=1e-9)


def test_gains_shrink_and_the_batch_is_near_the_best(normal):
    features = normal(13, 4)
    batch = determinant(features, 4, noise=0.5)
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(batch.gains.tolist()))
    best = max(information(features[list(rows)], 0.5) for rows in itertools.combinations(range(13), 4))
    assert (1 - 1 / math.e) * best <= float(batch.gains.sum()) <= best + 1e-9


def test_order_and_unit_of_the_pool_change_nothing(normal):
    features = normal(300, 8)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(1))
    rows = determinant(features, 30, noise=0.2).indices
    assert order[determinant(features[order], 30, noise=0.2).indices].tolist() == rows.tolist()
    assert determinant(1000 * features, 30, noise=200.0).indices.tolist() == rows.tolist()
    turn = torch.linalg.qr(normal(8, 8)).Q
    assert determinant(features @ turn, 30, noise=0.2).indices.tolist() == rows.tolist()


def test_of_equal_rows_the_first_comes_first(monkeypatch, normal):
    monkeypatch.setattr(module, "_WORKING", 5)
    features = normal(4, 3).repeat(30, 1)
    batch = determinant(features, 10, noise=0.5)
    assert batch.indices.tolist() == greedy(features, 10, 0.5)[0]
    assert sorted(batch.indices[:4].tolist())[-1] < 8
    assert determinant(torch.zeros(5, 2), 3, noise=1.0).indices.tolist() == [0, 1, 2]


def test_the_bound_of_round_off_follows_the_precision(monkeypatch, normal):
    features = normal(10, 20)
    exact = roundoff(features)
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert roundoff(features) == exact < 1e-13 < roundoff(features.float()) == pytest.approx(36 / 128)


def test_bad_input(normal):
    features = normal(6, 3)
    with pytest.raises(DataError, match=r"1 to 6 \(candidates\), got 7"):
        determinant(features, 7, noise=1.0)
    with pytest.raises(DataError, match="noise"):
        determinant(features, 2, noise=0.0)
    with pytest.raises(DataError, match="finite"):
        determinant(features.index_fill(0, torch.tensor([2]), math.nan), 2, noise=1.0)
    with pytest.raises(ShapeError, match=r"training: expected shape \(rows, 3\)"):
        determinant(features, 2, noise=1.0, training=normal(2, 4))
    with pytest.raises(ShapeError, match="not empty"):
        determinant(features[:0], 1, noise=1.0)
