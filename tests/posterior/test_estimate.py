import math

import arviz
import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.posterior import Estimate
from bayesmol.posterior.estimate import autocorrelation, blocking, effective_sample_size, kish
from bayesmol.testing import assert_calibrated


def autoregression(normal, chains, draws, rho):
    """Stationary chains of unit variance whose autocorrelation is ρ^t."""
    values = normal(chains, draws)
    for t in range(1, draws):
        values[:, t] = rho * values[:, t - 1] + math.sqrt(1 - rho**2) * values[:, t]
    return values


def scalar(value, error, unit="Ha"):
    return Estimate(torch.tensor(value).double(), torch.tensor(error).double(), torch.tensor(100.0), unit)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (-2.9037243, 4.1e-5, "-2.90372(4) Ha"),
        (1.23456, 0.0149, "1.235(15) Ha"),
        (0.5, 0.0996, "0.50(10) Ha"),
        (1234.0, 31.0, "1230(30) Ha"),
        (7.6, 2.0, "8(2) Ha"),
        (1.5, 0.0, "1.5(0) Ha"),
        (1.5, math.inf, "1.5 ± inf Ha"),
    ],
)
def test_prints_the_error_in_the_last_digits(value, error, text):
    assert str(scalar(value, error)) == text


def test_prints_arrays_and_plain_numbers():
    pair = Estimate(torch.tensor([1.0, 2.0]), torch.tensor([0.3, 0.04]), torch.ones(2), "eV")
    assert str(pair) == "[1.0(3), 2.00(4)] eV"
    assert str(scalar(1.0, 0.3, unit="")) == "1.0(3)"


def test_normal_interval():
    interval = scalar(1.0, 0.5).interval(0.95)
    assert float(interval.upper) == pytest.approx(1 + 0.5 * 1.959963985)
    assert "asymptotic" in interval.guarantee


def test_bad_parts_are_refused():
    with pytest.raises(ShapeError, match="standard_error"):
        Estimate(torch.zeros(2), torch.ones(1), torch.ones(2), "eV")
    for error in (-1.0, math.nan):
        with pytest.raises(DataError, match="standard_error"):
            scalar(0.0, error)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9, -0.4])
def test_effective_sample_size_of_an_autoregression(normal, rho):
    values = autoregression(normal, 4, 10000, rho)
    want = 40000 * (1 - rho) / (1 + rho)
    assert float(effective_sample_size(values)) == pytest.approx(want, rel=0.15)


def test_effective_sample_size_agrees_with_arviz(normal):
    values = autoregression(normal, 4, 2000, 0.8)
    want = float(arviz.ess(values.numpy(), method="mean"))
    assert float(effective_sample_size(values)) == pytest.approx(want, rel=0.1)


def test_chains_apart_count_as_correlated(normal):
    values = normal(2, 1000)
    values[1] += 10
    assert float(effective_sample_size(values)) < 10


def test_autocorrelation_against_the_direct_sum(normal):
    values = autoregression(normal, 1, 200, 0.7)
    centred = values[0] - values[0].mean()
    for lag in (1, 5, 50):
        direct = (centred[lag:] * centred[:-lag]).sum() / centred.square().sum()
        correction = 200 / 199 * direct + 1 - 200 / 199  # the pooled variance divides by n, the within one by n − 1
        torch.testing.assert_close(autocorrelation(values)[lag], correction)


def test_a_constant_is_worth_all_its_draws():
    rho = autocorrelation(torch.full((2, 10), 3.7).double())
    assert rho.tolist() == [1.0] + [0.0] * 9
    assert float(effective_sample_size(torch.full((2, 10), 3.7))) == 20


def test_short_chains_are_refused(normal):
    with pytest.raises(DataError, match="draws"):
        effective_sample_size(normal(4, 3))
    with pytest.raises(DataError, match="draws"):
        blocking(normal(3), unit="eV")


def test_kish():
    assert float(kish(torch.zeros(2, 50).double() + 7)) == pytest.approx(100)
    logs = torch.tensor([1.0, 2.0, 3.0]).double().log()
    assert float(kish(logs)) == pytest.approx(36 / 14)


def test_blocking_covers_the_mean_of_correlated_chains(normal):
    values = autoregression(normal, 300, 4096, 0.8)
    estimates = [blocking(chain, unit="Ha") for chain in values]
    hits = sum(bool(e.interval(0.9).contains(torch.tensor(0.0).double())) for e in estimates)
    assert_calibrated(hits, 300, 0.9, confidence=0.999)
    errors = torch.stack([e.standard_error for e in estimates])
    assert float(errors.mean()) == pytest.approx(math.sqrt(9 / 4096), rel=0.1)
    naive = sum(abs(float(c.mean())) < 1.645 * float(c.std()) / 64 for c in values)
    with pytest.raises(AssertionError):
        assert_calibrated(naive, 300, 0.9, confidence=0.999)


def test_blocking_takes_any_length_and_refuses_unconverged_chains(normal):
    estimate = blocking(normal(1001), unit="eV")
    assert float(estimate.standard_error) == pytest.approx(1001**-0.5, rel=0.2)
    assert float(estimate.effective_sample_size) == pytest.approx(1001, rel=0.4)
    with pytest.raises(ConvergenceError, match="longer"):
        blocking(normal(1024).cumsum(0), unit="eV")


def test_blocking_of_values_whose_blocks_are_all_equal_claims_nothing():
    with pytest.raises(ConvergenceError, match="longer"):
        blocking(torch.tensor([20.0, 25.0, 20.0, 25.0]), unit="eV")
