import math

import pytest
import torch
from scipy import stats

from bayesmol.applicability.weighted_p import checked_weights, effective_rows, weighted_p_values
from bayesmol.calibration import DensityRatio
from bayesmol.errors import ApplicabilityError, DataError, ShapeError


def normal(source, *shape):
    return torch.randn(*shape, generator=source, dtype=torch.float64)


@pytest.fixture
def source():
    return torch.Generator().manual_seed(0)


def test_by_brute_force_with_ties(source):
    calibration, scores = normal(source, 30).round(decimals=1), normal(source, 20).round(decimals=1)
    known, own = torch.rand(30, generator=source).double(), torch.rand(20, generator=source).double()
    at_least = calibration >= scores[:, None]
    brute = ((at_least * known).sum(1) + own) / (known.sum() + own)
    assert torch.allclose(weighted_p_values(calibration, known, scores, own), brute)


def test_equal_weights_give_the_plain_p_value(source):
    calibration, scores = normal(source, 30), normal(source, 20)
    plain = (1 + (calibration >= scores[:, None]).sum(1)) / 31
    for scale in (1e-6, 1.0, 1e6):
        found = weighted_p_values(calibration, torch.full((30,), scale), scores, torch.full((20,), scale))
        assert torch.allclose(found, plain.double())


def test_infinite_weight_says_nothing():
    found = weighted_p_values(
        torch.zeros(3), torch.ones(3), torch.tensor([math.inf, 1.0]), torch.tensor([math.inf, 1e12])
    )
    assert found.tolist() == [1.0, pytest.approx(1.0)]


def test_validity_where_plain_p_values_break(source):
    # Calibration N(0, 1), new N(1, 1): the weight is exp(x − ½). The score is x itself.
    repetitions, weighted, plain = 1500, 0, 0
    for _ in range(repetitions):
        calibration, new = normal(source, 200), normal(source, 1) + 1
        p = weighted_p_values(calibration, (calibration - 0.5).exp(), new, (new - 0.5).exp())
        weighted += float(p) <= 0.1
        plain += float((1 + (calibration >= new).sum()) / 201) <= 0.1
    assert weighted <= stats.binom.ppf(0.999, repetitions, 0.1)
    assert weighted >= 0.05 * repetitions  # it is not idle either
    assert plain > 0.3 * repetitions


def test_a_learned_ratio_restores_the_level(source):
    # The score, a distance from the origin, has little to do with the direction of the shift.
    calibration, new, fresh = normal(source, 1000, 2), normal(source, 1000, 2), normal(source, 4000, 2)
    new[:, 0] += 1
    fresh[:, 0] += 1
    ratio = DensityRatio().fit(calibration, new, seed=0)
    scores = calibration.norm(dim=1)
    p = weighted_p_values(scores, ratio.calibration, fresh.norm(dim=1), ratio.weights(fresh))
    plain = (1 + (scores >= fresh.norm(dim=1)[:, None]).sum(1)) / 1001
    assert float((plain <= 0.1).double().mean()) > 0.17
    assert float((p <= 0.1).double().mean()) == pytest.approx(0.1, abs=0.04)


def test_effective_rows():
    assert effective_rows(torch.full((7,), 3.0)) == pytest.approx(7)
    assert effective_rows(torch.tensor([1.0, 0.0, 0.0])) == pytest.approx(1)
    assert effective_rows(torch.ones(19), 0.05) == pytest.approx(19)
    with pytest.raises(ApplicabilityError, match=r"at least 19 .* 18 rows worth 18"):
        effective_rows(torch.ones(18), 0.05)


def test_bad_input():
    for wrong in (
        torch.tensor([-1.0, 1.0]),
        torch.tensor([math.nan, 1.0]),
        torch.tensor([math.inf, 1.0]),
        torch.zeros(2),
    ):
        with pytest.raises(DataError, match="weights"):
            checked_weights(wrong, 2)
    with pytest.raises(ShapeError, match="one a row"):
        checked_weights(torch.ones(3), 2)
    with pytest.raises(DataError, match="NaN"):
        weighted_p_values(torch.tensor([math.nan]), torch.ones(1), torch.ones(1), torch.ones(1))
    with pytest.raises(DataError, match="probability"):
        effective_rows(torch.ones(3), 0.0)
