import math

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from bayesmol.applicability.nearest import Nearest, NearestScore
from bayesmol.applicability.scores import check_score
from bayesmol.errors import DataError, ShapeError


def test_by_brute_force_in_training_deviations(normal):
    features, new = normal(50, 3) * torch.tensor([1.0, 10.0, 0.1]), normal(7, 3)
    scale = features.std(0, correction=0)
    distances = (new[:, None] / scale - features / scale).norm(dim=2).sort(1).values
    assert torch.allclose(Nearest(neighbours=4).fit(features)(new), distances[:, :4].mean(1))


def test_a_constant_feature_keeps_its_unit(normal):
    constant = torch.cat([normal(50, 3), torch.full((50, 1), 2.0)], 1)
    beyond = torch.cat([constant[:1, :3], torch.full((1, 1), 5.0)], 1)
    assert float(Nearest(neighbours=1).fit(constant)(beyond)) == pytest.approx(3.0)


@pytest.mark.parametrize("count", [3, 12], ids=["tree", "all distances"])
def test_many_rows_agree_with_few_and_with_scikit_learn(count, normal):
    features, new = normal(400, count), normal(1000, count)
    score = Nearest(neighbours=3).fit(features)
    together, alone = score(new), torch.cat([score(part) for part in new.split(100)])
    assert torch.allclose(together, alone, rtol=1e-12)
    search = NearestNeighbors(n_neighbors=3).fit(features / features.std(0, correction=0))
    distances, _ = search.kneighbors(new / features.std(0, correction=0))
    assert torch.allclose(together, torch.from_numpy(distances).mean(1), rtol=1e-9)


@pytest.mark.parametrize("origin", [0.0, 1e8])
def test_close_rows_far_from_the_origin_keep_their_digits(origin, normal):
    """Expanding |x − y|² loses the nearest of rows about a mean of 1e8 deviations, and the digits of its distance."""
    features = normal(500, 8) + origin
    new = features + 1e-3 * normal(500, 8)
    scale = features.std(0, correction=0)
    want = ((new - features) / scale).norm(dim=1)
    assert torch.allclose(Nearest(neighbours=1).fit(features)(new), want, rtol=1e-3 if origin else 1e-12)
    assert float(Nearest(neighbours=1).fit(features)(features).max()) == 0.0


def test_distance_grows_with_the_shift(normal):
    score, new = Nearest().fit(normal(300, 10)), normal(300, 10)
    levels = torch.stack([score(new + shift) for shift in (0.0, 3.0, 30.0, 3e6)])
    assert bool((levels.diff(dim=0) > 0).all()) and bool(torch.isfinite(levels).all())


def test_contract_and_bad_input(normal):
    check_score(Nearest(), normal(600, 3))
    check_score(Nearest(2), normal(20, 12))
    check_score(Nearest().fit(normal(30, 4)), normal(600, 4).float(), rtol=1e-4)
    with pytest.raises(DataError, match="finite"):
        Nearest().fit(normal(10, 2) * math.nan)
    with pytest.raises(ShapeError, match=r"\(rows, 2\)"):
        Nearest().fit(normal(10, 2))(normal(10, 3))
    with pytest.raises(DataError, match="neighbours"):
        Nearest(neighbours=6).fit(normal(5, 2))
    with pytest.raises(DataError, match="neighbours"):
        NearestScore(normal(5, 2), torch.ones(2), torch.tensor(6))
    with pytest.raises((ShapeError, TypeError)):
        NearestScore(normal(5, 2), torch.ones(3), torch.tensor(1))
