import pytest
import torch
from scipy import stats

from bayesmol.calibration.neighbourhoods import inside_manifold, memorisation, precision_recall
from bayesmol.errors import DataError, ShapeError


def test_manifold_by_brute_force(normal, monkeypatch):
    rows, manifold = 2 * normal(25, 2), normal(20, 2)
    radii = [float((one - manifold).norm(dim=1).sort().values[2]) for one in manifold]
    brute = [any(float((row - one).norm()) <= r for one, r in zip(manifold, radii, strict=True)) for row in rows]
    assert inside_manifold(rows, manifold, 2).tolist() == brute
    monkeypatch.setattr("bayesmol.calibration.neighbourhoods._PART", 60)
    assert inside_manifold(rows, manifold, 2).tolist() == brute


def test_dropped_and_invented_modes(normal):
    two = torch.cat([normal(150, 2), normal(50, 2) + 20])
    one = normal(200, 2)
    precision, recall = precision_recall(one, two, seed=0)
    assert recall.value == pytest.approx(0.75, abs=0.05) and recall.p_value <= 0.01
    assert precision.p_value > 0.01 and precision.ideal > 0.8
    precision, recall = precision_recall(two, one, seed=0)
    assert precision.value == pytest.approx(0.75, abs=0.05) and precision.p_value <= 0.01
    assert precision.lower < precision.value < precision.upper < precision.ideal_lower


def test_exact_for_a_perfect_sampler(normal):
    found = [precision_recall(normal(40, 2), normal(40, 2), seed=k) for k in range(60)]
    for part in zip(*found, strict=True):
        assert sum(one.p_value <= 0.2 for one in part) <= stats.binom(60, 0.2).ppf(0.999)
    groups = torch.arange(8).repeat_interleave(10)
    rejected = 0
    for k in range(30):
        first, second = (normal(8, 1)[groups] + 0.05 * normal(80, 1) for _ in range(2))
        rejected += precision_recall(first, second, groups=(groups, groups), seed=k)[0].p_value <= 0.1
    assert rejected <= stats.binom(30, 0.1).ppf(0.999)


def test_memorisation(normal):
    training, held_out = normal(100, 3), normal(80, 3)
    fair = [memorisation(normal(60, 3), training, held_out, seed=k) for k in range(5)]
    assert min(one.p_value for one in fair) > 0.001
    copied = torch.cat([normal(30, 3), training[:30] + 1e-3 * normal(30, 3)])
    found = memorisation(copied, training, held_out, seed=0)
    assert found.p_value <= 0.01 and found.value > 0.65
    distances = [torch.cdist(part, training).amin(1) for part in (copied, held_out)]
    brute = (distances[0][:, None] < distances[1]).double().mean()
    assert found.value == pytest.approx(float(brute))


def test_bad_input(normal):
    with pytest.raises(DataError, match="neighbours"):
        inside_manifold(normal(4, 2), normal(3, 2), 3)
    with pytest.raises(ShapeError, match="two samples"):
        precision_recall(normal(10, 2), normal(10, 3), seed=0)
    with pytest.raises(ShapeError, match="two samples"):
        memorisation(normal(10, 2), normal(10, 3), normal(10, 2), seed=0)
