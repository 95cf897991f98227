import math

import pytest
import torch
from sklearn.covariance import LedoitWolf

from bayesmol.applicability.linear import Leverage, LeverageScore, Mahalanobis, MahalanobisScore, spreads
from bayesmol.applicability.scores import check_score
from bayesmol.errors import DataError, ShapeError


def test_leverage_is_the_diagonal_of_the_hat_matrix(normal):
    features = normal(40, 6)
    hat = features @ torch.linalg.inv(features.T @ features) @ features.T
    score = Leverage(ridge=0.0).fit(features)
    assert torch.allclose(score(features), hat.diagonal(), atol=1e-12)
    assert float(score(features).sum()) == pytest.approx(6)


def test_leverage_does_not_depend_on_the_basis(normal):
    features, mixing, new = normal(40, 6), normal(6, 6), normal(5, 6)
    before, after = Leverage(ridge=0.0).fit(features), Leverage(ridge=0.0).fit(features @ mixing)
    assert torch.allclose(before(new), after(new @ mixing), rtol=1e-8)


def test_leverage_is_the_variance_of_the_last_layer(normal):
    """The variance of x·w under the posterior of the weights of a linear last layer with unit noise."""
    features, new = normal(30, 4), normal(5, 4)
    ridge = 0.1
    prior = ridge * float((features.T @ features).diagonal().mean())
    covariance = torch.linalg.inv(features.T @ features + prior * torch.eye(4, dtype=torch.float64))
    assert torch.allclose(Leverage(ridge).fit(features)(new), torch.einsum("ni,ij,nj->n", new, covariance, new))


def test_ridge_makes_dependent_features_work_and_flags_the_new_direction(normal):
    features = torch.cat([normal(40, 2), torch.zeros(40, 1, dtype=torch.float64)], 1)
    score = Leverage(ridge=1e-6).fit(features)
    assert float(score(torch.eye(3, dtype=torch.float64))[2]) > 1e3 * float(score(features).max())
    with pytest.raises(DataError, match="increase it"):
        Leverage(ridge=0.0).fit(features)


def test_mahalanobis_agrees_with_scikit_learn(normal):
    features = normal(60, 5) @ normal(5, 5) + 3
    new, scale = 4 * normal(20, 5), features.std(0, correction=0)
    oracle = LedoitWolf().fit((features / scale).numpy())
    squares = torch.from_numpy(oracle.mahalanobis((new / scale).numpy()))
    assert torch.allclose(Mahalanobis().fit(features)(new), squares.sqrt(), rtol=1e-10)


def test_mahalanobis_does_not_depend_on_units_or_origin(normal):
    features, new = normal(50, 4), normal(9, 4)
    units, origin = torch.tensor([1e-3, 1.0, 1e3, 7.0], dtype=torch.float64), 100 * normal(4)
    before, after = Mahalanobis().fit(features), Mahalanobis().fit(features * units + origin)
    assert torch.allclose(before(new), after(new * units + origin), rtol=1e-6)


def test_mahalanobis_of_many_normal_rows_is_the_norm(normal):
    features, new = normal(20000, 3), normal(100, 3)
    assert torch.allclose(Mahalanobis().fit(features)(new), new.norm(dim=1), rtol=0.05)


def test_mahalanobis_needs_no_more_rows_than_features(normal):
    features = normal(10, 30)
    score = Mahalanobis().fit(features)
    assert bool(torch.isfinite(score(normal(5, 30))).all())
    constant = torch.cat([normal(40, 2), torch.full((40, 1), 0.1, dtype=torch.float64)], 1)
    beyond = constant[:1] + torch.tensor([[0.0, 0.0, 50.0]])
    score = Mahalanobis().fit(constant)
    assert float(score(beyond)) > float(score(constant).max())


def test_a_constant_keeps_its_unit_whatever_its_rounding():
    features = torch.full((1000, 1), 0.1, dtype=torch.float64)
    features[::2] += 1e-17
    assert float(spreads(features)) == 1.0
    assert float(spreads(torch.tensor([[1.0], [3.0]], dtype=torch.float64))) == 1.0


@pytest.mark.parametrize("spec", [Leverage(), Mahalanobis()])
def test_contract_and_bad_input(spec, normal):
    check_score(spec, normal(30, 4))
    check_score(spec.fit(normal(30, 4)), normal(30, 4).float(), rtol=1e-4)
    with pytest.raises(DataError, match="finite"):
        spec.fit(normal(10, 2) * math.nan)
    with pytest.raises(DataError, match="finite"):
        spec.fit(normal(10, 2))(normal(10, 2) * math.inf)
    with pytest.raises(ShapeError):
        spec.fit(normal(10))
    with pytest.raises(ShapeError, match=r"\(rows, 2\)"):
        spec.fit(normal(10, 2))(normal(10, 3))


def test_what_cannot_be_fitted(normal):
    with pytest.raises(DataError, match="zeros"):
        Leverage().fit(torch.zeros(5, 2))
    for features in (torch.full((7, 2), 0.1, dtype=torch.float64), normal(1, 2)):
        with pytest.raises(DataError, match="different rows"):
            Mahalanobis().fit(features)
    with pytest.raises((ShapeError, TypeError), match=r"square|factor"):
        LeverageScore(normal(3, 2))
    with pytest.raises((ShapeError, TypeError), match=r"as many features|factor"):
        MahalanobisScore(normal(2), normal(2), normal(3, 3))
