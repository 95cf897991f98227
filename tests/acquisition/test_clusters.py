import pytest
import torch

from bayesmol.acquisition import clusters
from bayesmol.acquisition.clusters import Clusters


def state(features, centres, monkeypatch, small=64):
    monkeypatch.setattr(clusters, "_SMALL", small)
    found = Clusters(features, torch.ones(len(features), dtype=torch.float64), len(centres), True)
    for centre in centres:
        found.add(centre)
    return found


@pytest.mark.parametrize("small", [16, 1000])
def test_every_row_is_with_its_nearest_centre_and_the_sums_are_bounded(monkeypatch, normal, small):
    features, centres = normal(200, 5).float(), [3, 77, 150, 20, 199]
    found = state(features, centres, monkeypatch, small)
    distances = torch.cdist(features.double(), features[centres].double()).square()
    assert torch.equal(found.owners, distances.argmin(1))
    nearest = distances.amin(1) / found.scale**2
    assert bool(((found.distances - nearest).abs() <= found.slack + 1e-12).all())
    totals = torch.zeros(5, dtype=torch.float64).index_add(0, found.owners, nearest)
    assert bool(((found.totals - totals).abs() <= found.doubts).all())


def test_bounds_hold_far_from_the_origin(monkeypatch, normal):
    features = (normal(200, 5) * 1e-3 + 50).float()
    found = state(features, [0, 100], monkeypatch)
    distances = torch.cdist(features.double(), features[[0, 100]].double()).square()
    assert torch.equal(found.owners, distances.argmin(1))


def test_a_pass_fetches_what_follows(monkeypatch, normal):
    monkeypatch.setattr(clusters, "_SAMPLE", 50)
    features, passes = normal(400, 6), []
    original = Clusters._prefetch
    monkeypatch.setattr(Clusters, "_prefetch", lambda self, index: (passes.append(index), original(self, index)))
    found = state(features, [0], monkeypatch)
    chosen = [0]
    found.totals, found.doubts = (torch.cat([part, part.new_zeros(40)]) for part in (found.totals, found.doubts))
    found.centres = torch.cat([found.centres, found.centres.new_zeros(40, 6)])
    while len(chosen) < 40:
        chosen.append(found.farthest())
        found.add(chosen[-1])
    assert len(set(chosen)) == 40
    assert len(passes) < 30, "less than one pass a centre"


def test_centres_of_training_come_first(normal):
    features, training = normal(50, 3), normal(4, 3)
    found = Clusters(features, torch.ones(50, dtype=torch.float64), 1, True, training)
    assert found.count == 4
    assert torch.equal(found.owners, torch.cdist(features, training).argmin(1))
    index = found.farthest()
    distance = torch.cdist(features[[index]], training).min().square()
    assert found.gain(index) == pytest.approx(float(distance))
