import math

import pytest
import torch
from nflows.transforms.standard import PointwiseAffineTransform
from scipy import stats

from bayesmol.applicability import Domain, Typicality, check_score
from bayesmol.applicability.weight_tails import WeightTails
from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.bases import GaussianUniform
from bayesmol.flows.flow import Flow

WIDTH, SHIFT = 1.4, 0.4  # the sampler is N(0, 1.4²), the target N(0.4, 1)


def log_weight(features):
    """Of the target against the sampler, the energy with a wall at −4."""
    x = features[:, 0]
    energy = torch.where(x > -4, (x - SHIFT).square() / 2, math.inf)
    return -energy + x.square() / 2 / WIDTH**2


def test_by_hand(normal):
    draws = WIDTH * normal(500, 1)
    score, known = WeightTails(log_weight).fit(draws), log_weight(draws)
    known = known[known.isfinite()]
    lower, middle, upper = (float(known.quantile(p)) for p in (0.05, 0.5, 0.95))
    rows = torch.tensor([[0.3], [3.0], [-5.0]]).double()
    found, values = score(rows), log_weight(rows).tolist()
    assert float(found[0]) == pytest.approx((values[0] - middle) / (upper - middle))
    assert float(found[1]) == pytest.approx((middle - values[1]) / (middle - lower))
    assert float(found[2]) == math.inf, "infinite energy is infinitely strange"
    torch.testing.assert_close(score.weights(rows), (log_weight(rows) - known.max()).exp())
    assert float(score.weights(rows)[2]) == 0


def test_what_the_sampler_misses_is_strange_on_the_upper_side(normal):
    # A sampler that has one of two modes: in the other the energy is as low, and the density is tiny.
    def missing(features):
        x = features[:, 0]
        return torch.logaddexp(-x.square() / 2, -(x - 8).square() / 2) + x.square() / 2 / 1.1**2

    draws = 1.1 * normal(400, 1)
    score = WeightTails(missing).fit(draws)
    domain = Domain(score, level=0.05).calibrate(1.1 * normal(400, 1))
    assert not bool(domain.assess(8 + normal(50, 1)).inside.any())
    assert float(domain.assess(normal(400, 1)).inside.double().mean()) > 0.9


def test_valid_for_rows_of_the_sampler_and_with_weights_for_those_of_the_target(normal):
    score = WeightTails(log_weight).fit(WIDTH * normal(1000, 1))
    repeats, plain, weighted = 250, 0, 0
    for _ in range(repeats):
        draws, own, new = WIDTH * normal(100, 1), WIDTH * normal(1, 1), SHIFT + normal(1, 1)
        draws = draws[draws[:, 0] > -4]
        ordinary = Domain(score, level=0.1).calibrate(draws)
        plain += float(ordinary.assess(own).p_value) <= 0.1
        domain = Domain(score, level=0.1).calibrate(draws, weights=score.weights(draws))
        weighted += float(domain.assess(new, weights=score.weights(new)).p_value) <= 0.1
    assert plain <= stats.binom(repeats, 0.1 + 2 * stats.norm.cdf(-4 / WIDTH)).ppf(0.999)
    assert plain >= stats.binom(repeats, 10 / 101).ppf(0.001)
    # conservative by the weight of the new row itself, at most its share
    assert weighted <= stats.binom(repeats, 0.1).ppf(0.999)
    assert weighted >= 0.05 * repeats


def test_contract_and_bad_input(normal):
    finite = WeightTails(lambda features: -features.square().sum(1))
    check_score(finite, normal(40, 3))
    with pytest.raises(DataError, match="20 draws"):
        finite.fit(normal(19, 2))
    with pytest.raises(DataError, match="both sides"):
        WeightTails(lambda features: torch.zeros(len(features))).fit(normal(30, 2))
    with pytest.raises(ShapeError, match="one number a row"):
        WeightTails(lambda features: features).fit(normal(30, 2))
    with pytest.raises(DataError, match="NaN"):
        finite.fit(normal(30, 2))(normal(3, 2) * math.nan)


def test_scores_of_a_flow(normal):
    transform = PointwiseAffineTransform(torch.tensor(0.5), torch.tensor(2.0)).double()
    flow = Flow(GaussianUniform(torch.zeros(3, dtype=torch.bool)), transform)
    rows = flow.sample(400, seed=0)[0].double()
    score = Typicality(flow.log_prob).fit(rows[:200])
    torch.testing.assert_close(score(rows), (flow.log_prob(rows) - flow.log_prob(rows[:200]).mean()).abs())
    one_sided = Domain(lambda features: -flow.log_prob(features), level=0.1).calibrate(rows[200:])
    hits = int(one_sided.assess(flow.sample(300, seed=1)[0].double()).inside.sum())
    assert hits >= stats.betabinom(300, 181, 20).ppf(0.001)
    tails = WeightTails(lambda features: -features.square().sum(1) - flow.log_prob(features)).fit(rows)
    assert bool(tails(rows).isfinite().all())


def test_scores_that_carry_a_gradient_calibrate_a_domain(normal):
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    domain = Domain(lambda x: scale * x[:, 0].square(), level=0.05).calibrate(normal(100, 1))
    assert not domain.assess(normal(5, 1)).score.requires_grad
