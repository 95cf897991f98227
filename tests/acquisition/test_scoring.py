import pytest
import torch

from bayesmol.acquisition import information_gain
from bayesmol.acquisition.functions import FUNCTIONS
from bayesmol.acquisition.scoring import RULES, Request, chosen, weighted
from bayesmol.errors import DataError

from .conftest import pool


def test_factors_keep_their_correlations_and_take_the_values(normal):
    factors, value = [normal(3, 8), normal(6, 8), 5 * normal(3, 8)], torch.tensor([1.0, 2.0, 3.0]).double()
    scaled = weighted(factors, value)
    variances = torch.stack([factor.square().sum(1).mean() for factor in scaled])
    assert torch.allclose(variances / variances.mean(), value / value.mean())
    before = torch.stack([factor.square().sum(1).mean() for factor in factors])
    assert float(variances.mean()) == pytest.approx(float(before.mean()))

    def correlation(first, second):
        rows = torch.cat([first, second])
        covariance = rows @ rows.T
        return covariance / torch.outer(covariance.diagonal(), covariance.diagonal()).sqrt()

    assert torch.allclose(correlation(*scaled[:2]), correlation(*factors[:2]))


def test_the_unit_of_values_plays_no_role(normal):
    factors, value = [normal(3, 4) for _ in range(5)], normal(5).square()
    for first, second in zip(weighted(factors, value), weighted(factors, 1e6 * value), strict=True):
        assert torch.allclose(first, second)


def test_a_structure_without_value_brings_nothing(normal):
    scaled = weighted([normal(3, 4), normal(3, 4)], torch.tensor([1.0, 0.0]).double())
    assert information_gain(scaled[1] @ scaled[1].T, 0.1) == 0.0
    with pytest.raises(DataError, match="some value"):
        weighted([normal(3, 4), normal(3, 4)], torch.zeros(2, dtype=torch.float64))


def test_rules_have_the_names_that_are_documented():
    assert list(RULES) == ["logdet", "reduction", "lcmd", "k-centre", "top"]
    assert "force_variance" in FUNCTIONS and "information" in FUNCTIONS


def test_a_rule_of_distances_needs_features():
    request = Request(object(), pool(3), 1, None)
    with pytest.raises(DataError, match="logdet"):
        chosen("lcmd", request)
