import pytest
import torch

from bayesmol.calibration import brier_decomposition
from bayesmol.errors import DataError, ShapeError


def uniform(count, seed=0):
    return torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bins", [None, 1, 10])
@pytest.mark.parametrize("power", [1.0, 2.0, 0.3])
def test_the_parts_add_up(bins, power):
    stated = uniform(3000)
    outcome = uniform(3000, seed=1) < stated**power
    found = brier_decomposition(stated, outcome, bins=bins)
    assert float(found.score) == pytest.approx(float((stated - outcome.double()).square().mean()), abs=1e-14)
    assert abs(float(found.reliability - found.resolution + found.uncertainty - found.score)) < 1e-12
    rate = float(outcome.double().mean())
    assert float(found.uncertainty) == pytest.approx(rate * (1 - rate))


def test_statements_of_few_values_give_murphys_table():
    stated = torch.tensor([0.2, 0.2, 0.2, 0.8, 0.8], dtype=torch.float64)
    outcome = torch.tensor([True, False, False, True, True])
    found = brier_decomposition(stated, outcome, bins=2)
    frequencies = torch.tensor([1 / 3, 1.0], dtype=torch.float64)
    sizes, values = torch.tensor([3.0, 2.0], dtype=torch.float64), torch.tensor([0.2, 0.8], dtype=torch.float64)
    # blocks of five events in two parts are of three and of two
    assert float(found.reliability) == pytest.approx(float((sizes * (values - frequencies).square()).sum() / 5))
    assert float(found.resolution) == pytest.approx(float((sizes * (frequencies - 0.6).square()).sum() / 5))


def test_a_calibrated_forecast_has_hardly_any_reliability_term_and_a_distorted_one_has():
    stated = uniform(20_000)
    outcome = uniform(20_000, seed=1) < stated
    right, wrong = brier_decomposition(stated, outcome), brier_decomposition(stated**3, outcome)
    assert 0 <= float(right.reliability) < 0.002 < 0.02 < float(wrong.reliability)
    assert float(wrong.resolution) == pytest.approx(float(right.resolution)), "an isotonic map keeps the order"


def test_a_constant_forecast_has_no_resolution():
    outcome = uniform(100) < 0.3
    found = brier_decomposition(torch.full((100,), 0.3, dtype=torch.float64), outcome)
    assert float(found.resolution) == pytest.approx(0.0, abs=1e-15)


def test_bad_input_is_named():
    with pytest.raises(ShapeError, match="outcome"):
        brier_decomposition(uniform(3), torch.ones(4, dtype=torch.bool))
    with pytest.raises(DataError, match="between 0 and 1"):
        brier_decomposition(2 + uniform(3), torch.ones(3, dtype=torch.bool))
