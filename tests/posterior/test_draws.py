import math

import numpy as np
import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws
from bayesmol.testing import assert_calibrated, check_posterior


def test_contract(normal):
    check_posterior(Draws(normal(2, 500, 3), unit="eV"))
    check_posterior(Draws(normal(2, 500, 3), normal(2, 500), unit="eV"))


def test_weighted_moments_and_quantiles_by_repetition(normal):
    values, counts = normal(1, 6, 2), torch.tensor([[1, 3, 0, 2, 5, 1]])
    weighted = Draws(values, counts.double().log(), unit="eV")
    repeated = Draws(values[0].repeat_interleave(counts[0], 0)[None], unit="eV")
    for p in (0.01, 0.25, 0.5, 0.75, 0.99):
        torch.testing.assert_close(weighted.quantile(p), repeated.quantile(p))
    torch.testing.assert_close(weighted.mean, repeated.mean)
    torch.testing.assert_close(weighted.variance, repeated.variance)
    torch.testing.assert_close(weighted.cdf(values[0, 1]), repeated.cdf(values[0, 1]))


def test_quantiles_are_the_inverse_of_the_empirical_distribution(normal):
    values = normal(1, 101, 2)
    want = np.quantile(values[0].numpy(), [0.1, 0.5, 0.9], axis=0, method="inverted_cdf")
    got = Draws(values, unit="eV").quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64))
    np.testing.assert_array_equal(got.numpy(), want)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_interval_covers_new_values(normal, level):
    draws = Draws(normal(4, 1000), unit="eV").interval(level)
    inside = (draws.lower <= (new := normal(1000))) & (new <= draws.upper)
    assert_calibrated(int(inside.sum()), 1000, level)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_standard_error_covers_the_expectation(normal, weighted):
    """Intervals of the mean from 400 chains: correlated draws, or draws of N(0, 1) reweighted to N(1/2, 1)."""
    if weighted:
        values, truth = normal(400, 500), 0.5
        estimates = [Draws(v[None], 0.5 * v[None], unit="eV").expectation() for v in values]
    else:
        values, truth = normal(400, 600), 0.0
        for t in range(1, 600):
            values[:, t] = 0.6 * values[:, t - 1] + 0.8 * values[:, t]
        estimates = [Draws(v[None, 100:], unit="eV").expectation() for v in values]
    hits = sum(e.interval(0.9).contains(torch.tensor(truth).double()).item() for e in estimates)
    assert_calibrated(hits, 400, 0.9, confidence=0.999)


def test_the_expectation_of_independent_draws(normal):
    estimate = Draws(normal(4, 5000, 2), unit="Ha").expectation()
    torch.testing.assert_close(estimate.standard_error, torch.full((2,), 20000**-0.5).double(), rtol=0.1, atol=0)
    assert estimate.unit == "Ha" and estimate.value.shape == (2,)


def test_apply_keeps_chains_and_weights(normal):
    draws = Draws(normal(2, 50, 3), normal(2, 50), unit="Å")
    total = draws.apply(lambda x: x.sum(1), "Å")
    assert total.values.shape == (2, 50) and torch.equal(total.log_weights, draws.log_weights)
    torch.testing.assert_close(total.mean, draws.mean.sum())
    with pytest.raises(ShapeError, match="function"):
        draws.apply(lambda x: x[:3], "Å")


def test_a_shift_of_the_log_weights_changes_nothing(normal):
    values, logs = normal(1, 50), normal(1, 50)
    torch.testing.assert_close(Draws(values, logs + 5000, unit="").mean, Draws(values, logs, unit="").mean)


def test_draws_have_no_density(normal):
    with pytest.raises(DataError, match="density"):
        Draws(normal(1, 5), unit="eV").log_prob(0.0)


@pytest.mark.parametrize(
    ("values", "log_weights", "error", "match"),
    [
        (torch.zeros(3), None, ShapeError, "values"),
        (torch.zeros(1, 0), None, ShapeError, "values"),
        (torch.tensor([[math.nan, 1.0]]), None, DataError, "values"),
        (torch.zeros(1, 3), torch.zeros(3), ShapeError, "log_weights"),
        (torch.zeros(1, 2), torch.full((1, 2), -math.inf), DataError, "log_weights"),
        (torch.zeros(1, 2), torch.tensor([[0.0, math.inf]]), DataError, "log_weights"),
        (torch.zeros(1, 2), torch.tensor([[0.0, math.nan]]), DataError, "log_weights"),
    ],
)
def test_bad_input_is_refused(values, log_weights, error, match):
    with pytest.raises(error, match=match):
        Draws(values, log_weights, unit="eV")
