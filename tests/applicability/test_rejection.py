import math
from itertools import permutations

import pytest
import torch
from sklearn.metrics import average_precision_score

from bayesmol.applicability.rejection import average_precision, kept_influence, risk_coverage
from bayesmol.errors import DataError, ShapeError


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_curve_by_brute_force():
    scores, errors = normal(30), normal(30, seed=1).abs()
    curve = risk_coverage(scores, errors)
    for k in (1, 7, 30):
        kept = scores.argsort()[:k]
        assert float(curve.risk[k - 1]) == pytest.approx(float(errors[kept].mean()))
        assert float(curve.oracle[k - 1]) == pytest.approx(float(errors.sort().values[:k].mean()))
    assert float(curve.coverage[-1]) == 1 and float(curve.coverage[0]) == pytest.approx(1 / 30)
    assert curve.random_area == pytest.approx(float(errors.mean()))


def test_ties_are_the_mean_over_all_orders():
    scores, errors = torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0, 2.0]), torch.tensor([3.0, 1.0, 0.0, 7.0, 2.0, 5.0]).double()
    risks = []
    for block in permutations([0, 2, 3]):
        for last in permutations([4, 5]):
            order = torch.tensor([1, *block, *last])
            risks.append(errors[order].cumsum(0) / torch.arange(1, 7))
    assert torch.allclose(risk_coverage(scores, errors).risk, torch.stack(risks).mean(0))


def test_oracle_is_one_random_is_zero_and_the_worst_is_negative():
    errors = normal(2000).abs()
    assert risk_coverage(errors, errors).fraction == pytest.approx(1)
    assert risk_coverage(errors.square(), errors).fraction == pytest.approx(1)
    assert risk_coverage(torch.zeros(2000), errors).fraction == pytest.approx(0, abs=1e-12)
    assert risk_coverage(-errors, errors).fraction < -0.5
    assert abs(risk_coverage(normal(2000, seed=3), errors).fraction) < 0.1
    assert math.isnan(risk_coverage(errors, torch.ones(2000)).fraction)


def test_average_precision_with_ties_is_that_of_sklearn():
    for seed in range(5):
        scores = (normal(200, seed=seed) * 3).round()
        positives = (normal(200, seed=seed + 50) - 0.3 * scores) > 0.4
        want = average_precision_score(positives, -scores)
        assert average_precision(scores, positives) == pytest.approx(want)


def weighted(scores, losses, outer, weights):
    """The functional whose influence is asked for, with a weight on each row; scores all differ."""
    order = scores.argsort()
    ratio = (weights * losses)[order].cumsum(0) / weights[order].cumsum(0)
    return (weights * outer)[order] @ ratio / (weights @ outer)


@pytest.mark.parametrize("precision", [False, True])
def test_influence_is_the_derivative_with_the_weight_of_a_row(precision):
    scores, errors = normal(60), normal(60, seed=1).abs()
    losses = (errors < 0.6).double() if precision else errors
    outer = losses if precision else torch.ones_like(losses)
    weights = torch.ones(60, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(weighted(scores, losses, outer, weights), weights)
    found = kept_influence(scores, losses, outer)
    assert torch.allclose(found, 60 * slope, atol=1e-12) and float(found.abs().max()) > 0.1
    shared = kept_influence(scores.round(), losses, outer)
    assert float(shared.mean()) == pytest.approx(0, abs=1e-12)


def test_influence_of_the_fraction():
    scores, errors = normal(60), normal(60, seed=1).abs()
    weights, one = torch.ones(60, dtype=torch.float64, requires_grad=True), torch.ones(60, dtype=torch.float64)
    own, oracle = (weighted(s, errors, one, weights) for s in (scores, errors))
    mean = weights @ errors / weights.sum()
    (slope,) = torch.autograd.grad((mean - own) / (mean - oracle), weights)
    curve = risk_coverage(scores, errors)
    assert torch.allclose(curve.fraction_influence, 60 * slope, atol=1e-12)


def test_bad_input():
    good = normal(5).abs()
    with pytest.raises(ShapeError):
        risk_coverage(good, good[:2])
    with pytest.raises(ShapeError):
        risk_coverage(good[:0], good[:0])
    with pytest.raises(DataError, match="absolute"):
        risk_coverage(good, -good - 1)
    with pytest.raises(DataError, match="NaN"):
        risk_coverage(good * math.nan, good)
    with pytest.raises(DataError, match="positive"):
        average_precision(good, torch.zeros(5, dtype=torch.bool))
    assert risk_coverage(torch.tensor([1.0, math.inf]), good[:2]).risk[0] == good[0]
