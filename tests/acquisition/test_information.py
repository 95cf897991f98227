import itertools
import math

import pytest
import torch

from bayesmol.acquisition.information import (
    d_optimality,
    expected_information_gain,
    monte_carlo_information,
    optimal_design,
    predictive_information,
    variance_reduction,
)
from bayesmol.errors import DataError, ShapeError


def conditioned(joint, known, noise):
    """Covariance of the other entries given noisy labels of the first ``known`` ones, by brute force."""
    inverse = torch.linalg.inv(joint[:known, :known] + noise**2 * torch.eye(known, dtype=joint.dtype))
    return joint[known:, known:] - joint[known:, :known] @ inverse @ joint[:known, known:]


def test_information_is_the_drop_of_the_entropy_of_the_weights(normal):
    design, root = normal(4, 3, 5), normal(5, 5)
    prior = root @ root.T
    noise = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    found = expected_information_gain(design, noise, prior=prior)
    for gain, rows in zip(found, design, strict=True):
        precision = torch.linalg.inv(prior) + rows.T @ torch.diag(noise**-2) @ rows
        want = 0.5 * (torch.logdet(prior) + torch.logdet(precision))
        assert float(gain) == pytest.approx(float(want), abs=1e-8)


def test_few_or_many_rows_and_equal_noise_say_the_same(normal):
    wide = normal(3, 40)
    tall = wide.T.contiguous()
    assert float(expected_information_gain(wide, 0.3)) == pytest.approx(float(expected_information_gain(tall, 0.3)))
    each = torch.full((3,), 0.3, dtype=torch.float64)
    assert torch.equal(expected_information_gain(wide, 0.3), expected_information_gain(wide, each))
    single = expected_information_gain(torch.tensor([[0.6]], dtype=torch.float64), 0.3)
    assert float(single) == pytest.approx(0.5 * math.log(1 + 4))


def test_the_best_design_is_d_optimal_when_the_prior_is_wide(normal):
    candidates = normal(9, 3)
    subsets = list(itertools.combinations(range(9), 4))
    designs = torch.stack([candidates[list(subset)] for subset in subsets])
    prior = 1e8 * torch.eye(3, dtype=torch.float64)
    gains, criteria = expected_information_gain(designs, 0.5, prior=prior), d_optimality(designs)
    torch.testing.assert_close(gains - gains[0], criteria - criteria[0], rtol=0, atol=1e-6)
    best = subsets[int(criteria.argmax())]
    assert set(optimal_design(candidates, 4, 0.5, prior=prior)) == set(best)
    assert float(d_optimality(candidates[:2])) == -math.inf


def test_exchange_is_at_least_greedy_and_nearly_the_best(normal):
    candidates = normal(12, 4)
    chosen = optimal_design(candidates, 4, 0.4)
    subsets = [list(subset) for subset in itertools.combinations(range(12), 4)]
    values = expected_information_gain(torch.stack([candidates[subset] for subset in subsets]), 0.4)
    value = float(expected_information_gain(candidates[chosen], 0.4))
    assert len(set(chosen)) == 4 and 0.98 * float(values.max()) <= value <= float(values.max()) + 1e-9
    others = [row for row in range(12) if row not in chosen]
    swaps = [[*chosen[:place], other, *chosen[place + 1 :]] for place in range(4) for other in others]
    assert float(expected_information_gain(candidates[torch.tensor(swaps)], 0.4).max()) <= value + 1e-9


def test_predictive_information_and_variance_by_conditioning(normal):
    factor, target, noise, own = normal(4, 8), normal(5, 3, 8), 0.3, 0.2
    rows = torch.cat([factor, target.flatten(0, 1)])
    left = conditioned(rows @ rows.T, 4, noise)
    reduction = information = 0.0
    for place in range(5):
        block = slice(3 * place, 3 * place + 3)
        before, after = target[place] @ target[place].T, left[block, block]
        reduction += float((before - after).trace()) / 5
        eye = own**2 * torch.eye(3, dtype=torch.float64)
        information += 0.5 * float(torch.logdet(before + eye) - torch.logdet(after + eye)) / 5
    assert float(variance_reduction(factor, target, noise)) == pytest.approx(reduction, rel=1e-10)
    assert float(predictive_information(factor, target, noise, own)) == pytest.approx(information, rel=1e-10)


def test_target_information_is_blind_to_what_does_not_matter():
    basis = torch.eye(2, dtype=torch.float64)
    target = basis[:1].reshape(1, 1, 2)
    useful, loud = basis[:1], 10 * basis[1:]
    assert float(expected_information_gain(loud, 0.1)) > float(expected_information_gain(useful, 0.1))
    assert float(variance_reduction(loud, target, 0.1)) == 0 < float(variance_reduction(useful, target, 0.1))
    assert float(predictive_information(loud, target, 0.1, 0.1)) == pytest.approx(0, abs=1e-12)


def test_information_about_a_target_does_not_depend_on_the_axes(normal):
    factor, target = normal(4, 8), normal(5, 3, 8)
    turn = torch.linalg.qr(normal(3, 3))[0]
    first, second = (predictive_information(factor, t, 0.3, 0.2) for t in (target, turn @ target))
    torch.testing.assert_close(first, second)


def gaussian(design, noise):
    def simulate(weights, source):
        shape = (len(weights), len(design))
        return weights @ design.T + noise * torch.randn(shape, generator=source, dtype=torch.float64)

    def log_likelihood(labels, weights):
        gap = torch.cdist(labels, weights @ design.T) / noise
        return -0.5 * gap.square() - len(design) * math.log(noise * math.sqrt(2 * math.pi))

    return simulate, log_likelihood


def test_monte_carlo_agrees_with_the_closed_form_within_two_percent(normal):
    design = normal(3, 2)
    exact = float(expected_information_gain(design, 0.5))
    found = monte_carlo_information(normal(6000, 2), *gaussian(design, 0.5))
    for bound in (found.lower, found.upper):
        assert float(bound.value) == pytest.approx(exact, rel=0.02)
        assert abs(float(bound.value) - exact) < 4 * float(bound.standard_error) + 0.005
    assert found.lower.unit == "nat" and float(found.lower.value) < float(found.upper.value)


def test_bounds_enclose_in_the_mean_and_the_error_is_true(normal):
    design = 3 * normal(2, 2)
    exact = float(expected_information_gain(design, 0.2))
    runs = [monte_carlo_information(normal(60, 2), *gaussian(design, 0.2), seed=k) for k in range(200)]
    lower, upper = (torch.stack([getattr(run, name).value for run in runs]) for name in ("lower", "upper"))
    assert float(lower.mean()) < exact < float(upper.mean())
    assert float(lower.max()) <= math.log(60)
    told = torch.stack([run.lower.standard_error for run in runs]).mean()
    assert 0.7 < float(told / lower.std()) < 1.4


def test_chunks_change_nothing(normal):
    design, draws = normal(2, 2), normal(50, 2)
    whole, parts = (monte_carlo_information(draws, *gaussian(design, 0.5), memory=m) for m in (10**6, 120))
    torch.testing.assert_close(whole.upper.value, parts.upper.value)
    torch.testing.assert_close(whole.upper.standard_error, parts.upper.standard_error)


def test_bad_input(normal):
    with pytest.raises(DataError, match="noise"):
        expected_information_gain(normal(2, 3), 0.0)
    with pytest.raises(ShapeError, match="noise"):
        expected_information_gain(normal(2, 3), torch.ones(3, dtype=torch.float64))
    with pytest.raises(ShapeError, match="prior"):
        expected_information_gain(normal(2, 3), 1.0, prior=torch.eye(2, dtype=torch.float64))
    with pytest.raises(ShapeError, match="rank 3"):
        variance_reduction(normal(2, 3), normal(1, 1, 4), 1.0)
    with pytest.raises(DataError, match="target_noise"):
        predictive_information(normal(2, 3), normal(1, 1, 3), 1.0, 0.0)
    with pytest.raises(DataError, match="1 to 4"):
        optimal_design(normal(4, 2), 5, 1.0)
    with pytest.raises(DataError, match="two draws"):
        monte_carlo_information(normal(1, 2), *gaussian(normal(2, 2), 1.0))
    with pytest.raises(DataError, match="log_likelihood"):
        monte_carlo_information(normal(4, 2), gaussian(normal(2, 2), 1.0)[0], lambda y, w: torch.zeros(2, 2))
