import math

import pytest
import torch
from scipy import stats

from bayesmol.calibration import crps, energy_distance, replicates, wasserstein_distance
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws, Gaussian
from bayesmol.testing import assert_calibrated


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian(mean, stddev):
    mean = torch.as_tensor(mean, dtype=torch.float64)
    return Gaussian(mean, torch.full_like(mean, stddev**2), unit="eV")


def test_energy_distance_of_draws_is_that_of_scipy():
    first, second = normal(1, 300, 2), 1 + 2 * normal(1, 300, 2, seed=1)
    found = energy_distance(Draws(first, unit="eV"), Draws(second, unit="eV"), size=5000)
    for k in range(2):
        # scipy gives the root; the draws are resampled, so they agree to the error of 5000 draws
        wanted = stats.energy_distance(first[0, :, k], second[0, :, k]) ** 2
        assert float(found[k]) == pytest.approx(wanted, rel=0.1)


def test_closed_form_agrees_with_draws_and_vanishes_for_equal_ones():
    first, second = gaussian([0.0, 1.0], 1.0), gaussian([0.5, 1.0], 0.4)
    draws = [Draws(p.sample(40_000, seed=k)[None], unit="eV") for k, p in enumerate((first, second))]
    assert torch.allclose(energy_distance(first, second), energy_distance(*draws, size=40_000), atol=0.01)
    assert torch.allclose(energy_distance(first, first), torch.zeros(2, dtype=torch.float64), atol=1e-12)


def test_energy_distance_to_a_point_is_twice_the_crps():
    first = gaussian([0.3], 0.7)
    point = Gaussian(torch.tensor([1.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), unit="eV")
    assert float(energy_distance(first, point)) == pytest.approx(2 * float(crps(first, point.mean)))


def test_wasserstein_distance():
    shifted = wasserstein_distance(gaussian([0.0], 1.0), gaussian([0.7], 1.0))
    assert float(shifted) == pytest.approx(0.7)
    scaled = wasserstein_distance(gaussian([0.0], 1.0), gaussian([0.0], 2.0))
    assert float(scaled) == pytest.approx(math.sqrt(2 / math.pi), rel=0.01)


def test_the_truth_lies_in_the_intervals_of_replicates():
    values = 3 + 2 * normal(5, 4000)
    found = replicates(values, unit="kcal/mol")
    hits = found.interval(0.9).contains(torch.full((4000,), 3.0, dtype=torch.float64))
    assert_calibrated(int(hits.sum()), 4000, 0.9)
    assert found.unit == "kcal/mol"


def test_bad_input_is_named():
    with pytest.raises(DataError, match="at least 4"):
        replicates(normal(3, 2), unit="eV")
    with pytest.raises(DataError, match="all equal"):
        replicates(torch.ones(5, 2, dtype=torch.float64), unit="eV")
    with pytest.raises(ShapeError, match="second"):
        energy_distance(gaussian([0.0], 1.0), gaussian([0.0, 1.0], 1.0))
    with pytest.raises(DataError, match="convert"):
        wasserstein_distance(gaussian([0.0], 1.0), Gaussian(normal(1), normal(1).square(), unit="meV"))
