import math

import pytest
import torch
from sklearn.model_selection import LeaveOneOut, cross_val_score
from sklearn.neighbors import KernelDensity as Oracle

from bayesmol.applicability.density import KernelDensity, KernelDensityScore
from bayesmol.applicability.scores import check_score
from bayesmol.errors import DataError, ShapeError


@pytest.mark.parametrize(("bandwidth", "width"), [(0.3, 0.3), ("scott", 200 ** (-1 / 7))])
def test_density_agrees_with_scikit_learn(bandwidth, width, normal):
    features = normal(200, 3) * torch.tensor([1.0, 10.0, 0.1]) + 5
    new, scale = features[:50] + 0.3 * normal(50, 3), features.std(0, correction=0)
    # One leaf: with a tree scikit-learn is off by 2e-3 nats in the tails, whatever its tolerance.
    oracle = Oracle(bandwidth=width, leaf_size=200).fit((features / scale).numpy())
    want = -torch.from_numpy(oracle.score_samples((new / scale).numpy())) + scale.log().sum()
    assert torch.allclose(KernelDensity(bandwidth).fit(features)(new), want, rtol=1e-10)


def test_density_integrates_to_one(normal):
    features = 2 * normal(40, 1)
    grid = torch.linspace(-30, 30, 6001, dtype=torch.float64)[:, None]
    density = (-KernelDensity().fit(features)(grid)).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, abs=1e-9)


def test_likelihood_chooses_the_best_bandwidth_left_out(normal):
    features = torch.cat([normal(30, 2), normal(20, 2) + 5])
    standard = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    score = KernelDensity().fit(features)
    chosen = float((score.bandwidths / features.std(0, correction=0))[0])

    def likelihood(width):
        return cross_val_score(Oracle(bandwidth=width), standard, cv=LeaveOneOut()).mean()

    best = likelihood(chosen)
    assert all(best >= likelihood(chosen * factor) for factor in (0.5, 0.9, 1.1, 2.0))
    assert chosen < len(features) ** (-1 / 6)


def test_repeated_rows_do_not_make_the_bandwidth_vanish(normal):
    features = normal(100, 2)
    once, thrice = KernelDensity().fit(features), KernelDensity().fit(features.repeat(3, 1))
    assert torch.allclose(once.bandwidths, thrice.bandwidths, rtol=1e-2)


def test_far_away_the_score_is_the_squared_distance(normal):
    features = normal(300, 3)
    score = KernelDensity(0.2).fit(features)
    direction = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    near, far = score((1e6 * direction)[None]), score((2e6 * direction)[None])
    assert bool(torch.isfinite(far)) and float(far / near) == pytest.approx(4, rel=1e-4)


def test_contract_and_bad_input(normal):
    for spec in (KernelDensity(), KernelDensity("scott"), KernelDensity(0.5)):
        check_score(spec, normal(40, 3))
    check_score(KernelDensity().fit(normal(40, 3)), normal(40, 3).float(), rtol=1e-4)
    with pytest.raises(DataError, match="finite"):
        KernelDensity().fit(normal(5, 2) * math.nan)
    with pytest.raises(DataError, match="different rows"):
        KernelDensity().fit(torch.ones(5, 2))
    with pytest.raises(ShapeError, match=r"\(rows, 2\)"):
        KernelDensity().fit(normal(9, 2))(normal(9, 3))
    for wrong in (0.0, -1.0, "silverman"):
        with pytest.raises(DataError, match="bandwidth"):
            KernelDensity(wrong)
    with pytest.raises((ShapeError, TypeError)):
        KernelDensityScore(normal(5, 2), normal(2), normal(3))
