import math

import pytest
import torch

from bayesmol.applicability import Domain
from bayesmol.applicability.density import KernelDensity
from bayesmol.applicability.scores import check_score
from bayesmol.applicability.typicality import Typicality
from bayesmol.errors import DataError, ShapeError

DIMENSIONS = 100


def standard_normal(features):
    return -features.square().sum(1) / 2 - features.shape[1] / 2 * math.log(2 * math.pi)


def test_closed_form_for_a_normal_density(normal):
    features = normal(50_000, DIMENSIONS)
    score = Typicality(standard_normal).fit(features)
    entropy = DIMENSIONS / 2 * math.log(2 * math.pi * math.e)
    error = math.sqrt(DIMENSIONS / 2 / 50_000)
    assert float(score.typical) == pytest.approx(-entropy, abs=5 * error)
    origin = torch.zeros(1, DIMENSIONS, dtype=torch.float64)
    assert float(score(origin)) == pytest.approx(DIMENSIONS / 2, abs=5 * error)


def test_the_mode_is_strange_though_its_density_is_the_highest(normal):
    training, calibration = normal(500, DIMENSIONS), normal(500, DIMENSIONS)
    dense, sparse = 0.05 * normal(20, DIMENSIONS), 2 * normal(20, DIMENSIONS)
    one_sided = Domain(lambda features: -standard_normal(features), level=0.05).calibrate(calibration)
    two_sided = Domain(Typicality(standard_normal), level=0.05).fit(training).calibrate(calibration)
    assert bool(one_sided.assess(dense).inside.all()), "minus the log-density calls the mode the safest place"
    assert not bool(one_sided.assess(sparse).inside.any())
    assert not bool(two_sided.assess(torch.cat([dense, sparse])).inside.any())
    assert float(two_sided.assess(normal(500, DIMENSIONS)).inside.double().mean()) > 0.9


def test_zero_density_is_infinitely_strange(normal):
    def half_normal(features):
        return torch.where((features > 0).all(1), standard_normal(features), -math.inf)

    score = Typicality(half_normal).fit(normal(20, 3).abs())
    assert float(score(-normal(1, 3).abs())) == math.inf
    with pytest.raises(DataError, match="finite"):
        Typicality(half_normal).fit(normal(20, 3))


def test_contract_and_bad_input(normal):
    check_score(Typicality(standard_normal), normal(30, 4))
    kernel = KernelDensity().fit(normal(50, 4))
    check_score(Typicality(lambda features: -kernel(features)), normal(30, 4))
    with pytest.raises(ShapeError, match="one number a row"):
        Typicality(lambda features: features).fit(normal(5, 2))
    with pytest.raises(DataError, match="NaN"):
        Typicality(standard_normal).fit(normal(5, 2))(normal(5, 2) * math.nan)
