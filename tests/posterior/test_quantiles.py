import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior.gaussian import Gaussian
from bayesmol.posterior.quantiles import Quantiles
from bayesmol.testing import assert_calibrated, check_posterior

LEVELS = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)


@pytest.fixture
def gaussian(normal):
    return Gaussian(normal(40, 3), normal(40, 3).square(), unit="eV")


@pytest.fixture
def known(gaussian):
    return Quantiles(LEVELS, gaussian.quantile(LEVELS), unit="eV")


@pytest.fixture
def whole(normal):
    levels = torch.tensor([0.0, 0.1, 0.6, 1.0], dtype=torch.float64)
    return Quantiles(levels, normal(4, 5, 2).sort(0).values, unit="eV/Å")


def test_contract(whole):
    assert whole.complete
    check_posterior(whole)
    check_posterior(Quantiles(whole.levels.float(), whole.values.float(), unit="eV"))


def test_known_levels_are_met_and_intervals_between_them_are_exact(gaussian, known):
    torch.testing.assert_close(known.quantile(LEVELS), known.values)
    for level, value in zip(LEVELS, known.values, strict=True):
        torch.testing.assert_close(known.cdf(value), torch.full_like(value, float(level)))
    for level in (0.5, 0.9):
        got, want = known.interval(level), gaussian.interval(level)
        torch.testing.assert_close(got.lower, want.lower)
        torch.testing.assert_close(got.upper, want.upper)


def test_levels_in_float32_are_met():
    single = Quantiles(LEVELS.float(), torch.arange(5.0)[:, None], unit="eV")
    interval = single.interval(0.9)
    assert (interval.lower.item(), interval.upper.item()) == (0.0, 4.0)
    assert single.quantile(0.5).item() == pytest.approx(2.0)


def test_interpolation_by_hand():
    levels = torch.tensor([0.2, 0.4, 0.8], dtype=torch.float64)
    posterior = Quantiles(levels, torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64), unit="eV")
    probabilities = torch.tensor([0.1, 0.3, 0.5, 0.8, 0.9], dtype=torch.float64)
    assert posterior.quantile(probabilities).flatten().tolist() == pytest.approx([-math.inf, 0.5, 2.0, 5.0, math.inf])
    values = torch.tensor([-9.0, 0.0, 0.5, 3.0, 5.0, 9.0, math.inf], dtype=torch.float64)[:, None]
    assert posterior.cdf(values).flatten().tolist() == pytest.approx([0.2, 0.2, 0.3, 0.6, 0.8, 0.8, 1.0])


def test_nothing_is_known_beyond_the_outermost_levels(known):
    interval = known.interval(0.91)
    assert bool((interval.lower == -math.inf).all() & (interval.upper == math.inf).all())
    assert known.shape == (40, 3) and len(known) == 40 and not known.complete
    for ask in (lambda: known.mean, lambda: known.variance, lambda: known.stddev, lambda: known.sample(2, seed=0)):
        with pytest.raises(DataError, match="levels 0 and 1"):
            ask()
    with pytest.raises(DataError, match="density"):
        known.log_prob(0.0)
    one_end = Quantiles(LEVELS - 0.05, known.values, unit="eV")
    with pytest.raises(DataError, match="levels 0 and 1"):
        _ = one_end.mean


def test_a_uniform_distribution_has_its_moments():
    ends = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    uniform = Quantiles(torch.tensor([0.0, 1.0]), ends, unit="eV")
    assert float(uniform.mean) == pytest.approx(2.5) and float(uniform.variance) == pytest.approx(9 / 12)
    levels = torch.linspace(0, 1, 1001, dtype=torch.float64)
    triangle = Quantiles(levels, levels.sqrt()[:, None], unit="eV")  # density 2y on (0, 1)
    assert float(triangle.mean) == pytest.approx(2 / 3, abs=1e-5)
    assert float(triangle.variance) == pytest.approx(1 / 18, abs=1e-5)


def test_an_atom():
    levels = torch.tensor([0.0, 0.3, 0.7, 1.0], dtype=torch.float64)
    posterior = Quantiles(levels, torch.tensor([[0.0], [1.0], [1.0], [2.0]], dtype=torch.float64), unit="eV")
    assert posterior.cdf(1.0).item() == pytest.approx(0.7)
    assert posterior.cdf(1.0 - 1e-9).item() == pytest.approx(0.3)
    assert posterior.quantile(0.5).item() == 1.0
    share = (posterior.sample(4000, seed=1) == 1.0).double().mean()
    assert_calibrated(round(4000 * float(share)), 4000, 0.4, confidence=0.999)
    check_posterior(posterior)


def test_coverage_of_known_levels(normal, gaussian):
    values = gaussian.mean + gaussian.stddev * normal(40, 3)
    known = Quantiles(LEVELS, gaussian.quantile(LEVELS), unit="eV")
    assert_calibrated(int(known.interval(0.9).contains(values).sum()), 120, 0.9)


def test_selection(known):
    selected = known[torch.tensor([3, 1])]
    torch.testing.assert_close(selected.quantile(0.4), known.quantile(0.4)[[3, 1]])
    assert known[2:].shape == (38, 3)
    with pytest.raises(ShapeError, match="scalar"):
        known[0][0][0]


@pytest.mark.parametrize(
    ("levels", "values", "error", "match"),
    [
        ([0.5], [[1.0]], ShapeError, "two levels"),
        ([0.1, 0.9], [[1.0]], ShapeError, "one row a level"),
        ([0.9, 0.1], [[1.0], [2.0]], DataError, "ascending"),
        ([0.1, 0.1], [[1.0], [2.0]], DataError, "ascending"),
        ([0.1, 1.1], [[1.0], [2.0]], DataError, "ascending"),
        ([0.1, math.nan], [[1.0], [2.0]], DataError, "ascending"),
        ([0.1, 0.9], [[1.0], [math.inf]], DataError, "finite"),
        ([0.1, 0.9], [[1.0, 3.0], [2.0, 2.0]], DataError, "1 crossings"),
    ],
)
def test_bad_input_is_refused(levels, values, error, match):
    with pytest.raises(error, match=match):
        Quantiles(torch.tensor(levels), torch.tensor(values), unit="eV")


def test_values_of_another_shape_are_refused(known):
    with pytest.raises(ShapeError, match="last axes"):
        known.cdf(torch.zeros(3, 40))
