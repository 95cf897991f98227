import math

import pytest
import torch

from bayesmol.applicability import Leverage, Nearest, identity
from bayesmol.errors import DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_leverage_is_the_diagonal_of_the_hat_matrix():
    features = normal(40, 6)
    hat = features @ torch.linalg.inv(features.T @ features) @ features.T
    score = Leverage(ridge=0.0).fit(features)
    assert torch.allclose(score(features), hat.diagonal(), atol=1e-12)
    assert float(score(features).sum()) == pytest.approx(6)


def test_leverage_does_not_depend_on_the_basis():
    features, mixing = normal(40, 6), normal(6, 6, seed=1)
    new = normal(5, 6, seed=2)
    before, after = Leverage(ridge=0.0).fit(features), Leverage(ridge=0.0).fit(features @ mixing)
    assert torch.allclose(before(new), after(new @ mixing), rtol=1e-8)


def test_ridge_makes_dependent_features_work_and_flags_the_new_direction():
    features = torch.cat([normal(40, 2), torch.zeros(40, 1, dtype=torch.float64)], 1)
    score = Leverage(ridge=1e-6).fit(features)
    assert float(score(torch.eye(3, dtype=torch.float64))[2]) > 1e3 * float(score(features).max())
    with pytest.raises(DataError, match="increase it"):
        Leverage(ridge=0.0).fit(features)


def test_nearest_by_brute_force_in_training_deviations():
    features, new = normal(50, 3) * torch.tensor([1.0, 10.0, 0.1]), normal(7, 3, seed=1)
    scale = features.std(0, correction=0)
    distances = (new[:, None] / scale - features / scale).norm(dim=2).sort(1).values
    assert torch.allclose(Nearest(neighbours=4).fit(features)(new), distances[:, :4].mean(1))
    constant = torch.cat([features, torch.full((50, 1), 2.0)], 1)
    beyond = torch.cat([features[:1], torch.full((1, 1), 5.0)], 1)
    assert float(Nearest(neighbours=1).fit(constant)(beyond)) == pytest.approx(3.0)


def test_identity_and_bad_input():
    assert torch.equal(identity(torch.arange(3.0)), torch.arange(3.0))
    with pytest.raises(ShapeError):
        identity(torch.ones(3, 1))
    for spec in (Leverage(), Nearest()):
        with pytest.raises(DataError, match="finite"):
            spec.fit(normal(10, 2) * math.nan)
        with pytest.raises(ShapeError):
            spec.fit(normal(10))
        with pytest.raises(ShapeError, match=r"\(rows, 2\)"):
            spec.fit(normal(10, 2))(normal(10, 3))
    with pytest.raises(DataError, match="zeros"):
        Leverage().fit(torch.zeros(5, 2))
    with pytest.raises(DataError, match="neighbours"):
        Nearest(neighbours=6).fit(normal(5, 2))
