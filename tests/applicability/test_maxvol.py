import itertools
import math

import pytest
import torch

from bayesmol.applicability.maxvol import MaxVol, MaxVolScore
from bayesmol.applicability.scores import check_score
from bayesmol.errors import DataError, ShapeError


def volumes(features):
    sets = list(itertools.combinations(range(len(features)), features.shape[1]))
    return {rows: float(torch.linalg.det(features[list(rows)]).abs()) for rows in sets}


@pytest.mark.parametrize("seed", range(20))
def test_no_exchange_gains_and_the_volume_is_near_the_largest(seed):
    features = torch.randn(11, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    score, known = MaxVol(tolerance=1e-6).fit(features), volumes(features)
    chosen = sorted(score.active.tolist())
    own = known[tuple(chosen)]
    for row, leaver in itertools.product(set(range(11)) - set(chosen), chosen):
        other = tuple(sorted({*chosen, row} - {leaver}))
        assert known[other] <= own * (1 + 2e-6)
    # Hadamard: a dominant submatrix has at least the largest volume over r^(r/2).
    assert own >= max(known.values()) / 3**1.5


def test_one_feature_is_the_largest_row():
    features = torch.tensor([[1.0], [-4.0], [2.0]], dtype=torch.float64)
    score = MaxVol().fit(features)
    assert score.active.tolist() == [1]
    assert torch.allclose(score(features), features[:, 0].abs() / 4)


def test_exchanges_are_needed_and_made():
    """Elimination takes the largest entry of the first feature; the greatest volume is without that row."""
    features = torch.tensor([[1.0, 0.99], [0.9, -1.0], [0.9, 1.0], [0.1, 0.1]], dtype=torch.float64)
    score, known = MaxVol(tolerance=1e-3).fit(features), volumes(features)
    assert tuple(sorted(score.active.tolist())) == max(known, key=known.get)


@pytest.mark.parametrize("tolerance", [1e-3, 0.5])
def test_training_rows_are_interpolated(tolerance, normal):
    features = normal(3000, 12).sinh()
    score = MaxVol(tolerance=tolerance).fit(features)
    assert float(score(features).max()) <= 1 + tolerance + 1e-9
    assert torch.allclose(score(features[score.active]), torch.ones(12, dtype=torch.float64))
    assert torch.allclose(score(2.5 * features[score.active]), torch.full((12,), 2.5, dtype=torch.float64))


def test_grade_is_that_of_the_definition(normal):
    features, new = normal(200, 5), normal(40, 5)
    score = MaxVol().fit(features)
    coefficients = torch.linalg.solve(features[score.active].T, new.T)
    assert torch.allclose(score(new), coefficients.abs().amax(0), rtol=1e-9)


def test_grade_does_not_depend_on_the_basis(normal):
    features, mixing, new = normal(300, 6), normal(6, 6), normal(50, 6)
    before, after = MaxVol(1e-4).fit(features), MaxVol(1e-4).fit(features @ mixing)
    # Another basis may lead to another dominant set; the grade on one and the same set is the same.
    coefficients = torch.linalg.solve((features @ mixing)[before.active].T, (new @ mixing).T)
    assert torch.allclose(before(new), coefficients.abs().amax(0), rtol=1e-8)
    assert float(after(features @ mixing).max()) <= 1 + 1e-4 + 1e-9
    units = torch.logspace(-6, 6, 6, dtype=torch.float64)
    assert torch.allclose(before(new), MaxVol(1e-4).fit(features * units)(new * units), rtol=1e-8)


@pytest.mark.parametrize("rows", [4, 100], ids=["fewer rows than features", "dependent features"])
def test_missing_directions_are_found(rows, normal):
    hidden, mixing = normal(rows, 4), normal(4, 7)
    score = MaxVol().fit(hidden @ mixing)
    assert len(score.active) == 4
    assert float(score(hidden @ mixing).max()) <= 1.01 + 1e-6
    new = normal(30, 4)
    inside = MaxVol().fit(hidden)
    coefficients = torch.linalg.solve(hidden[score.active].T, new.T)
    assert torch.allclose(score(new @ mixing), coefficients.abs().amax(0), rtol=1e-6)
    assert len(inside.active) == 4
    outside = score(normal(30, 7))
    assert float(outside.min()) > 1e4 and bool(torch.isfinite(outside).all())


def test_rounding_below_the_rank_tolerance_is_no_extrapolation(normal):
    features = torch.cat([normal(200, 3), 1e-9 * normal(200, 1)], 1) @ normal(4, 4)
    score = MaxVol().fit(features)
    assert len(score.active) == 3 and float(score(features).max()) <= 1.01 + 1e-6
    assert len(MaxVol(rank_tolerance=1e-14).fit(features).active) == 4


def test_contract_and_bad_input(normal):
    check_score(MaxVol(), normal(30, 4))
    check_score(MaxVol(), normal(6, 9))
    check_score(MaxVol().fit(normal(30, 4)), normal(30, 4).float(), rtol=1e-4)
    with pytest.raises(DataError, match="zeros"):
        MaxVol().fit(torch.zeros(5, 2))
    with pytest.raises(DataError, match="finite"):
        MaxVol().fit(normal(5, 2) * math.nan)
    with pytest.raises(ShapeError, match=r"\(rows, 4\)"):
        MaxVol().fit(normal(30, 4))(normal(3, 5))
    with pytest.raises(DataError, match="tolerance"):
        MaxVol(tolerance=0.0)
    with pytest.raises(DataError, match="rank_tolerance"):
        MaxVol(rank_tolerance=2.0)
    with pytest.raises((ShapeError, TypeError)):
        MaxVolScore(torch.arange(2), normal(3, 3), normal(3), normal(3, 3), normal(1)[0])
