"""First-order variances against derivatives by differences, and against posteriors of many counts."""

import pytest
import torch

from bayesmol.dynamics.delta_method import delta_method
from bayesmol.dynamics.dirichlet import DirichletRows
from bayesmol.dynamics.elimination import stationary_distribution
from bayesmol.dynamics.reversible import nonreversible_estimate
from bayesmol.dynamics.reversible_gibbs import ReversibleGibbs
from bayesmol.errors import DataError, ShapeError

COUNTS = 100 * torch.tensor([[50.0, 9, 1, 2], [7, 30, 5, 1], [2, 4, 60, 8], [1, 2, 9, 20]], dtype=torch.float64)


def sizes(transition, count):
    return torch.linalg.eigvals(transition).abs().sort(dim=-1, descending=True).values[..., 1 : count + 1]


def test_rows_match_exact_differences():
    """The formula with derivatives by central differences in place of the sensitivities."""
    estimate = nonreversible_estimate(COUNTS)
    p, step = estimate.transition, 1e-6

    def values(matrix):
        return torch.cat([sizes(matrix, 3), stationary_distribution(matrix)])

    expected = torch.zeros(7, dtype=torch.float64)
    for i in range(4):
        # Sensitivities along p_ij → p_ij + h, the row normalised again: the mean over the row is then already gone.
        slopes = []
        for j in range(4):
            ends = []
            for h in (step, -step):
                moved = p.clone()
                moved[i, j] += h
                moved[i] /= moved[i].sum()
                ends.append(values(moved))
            slopes.append((ends[0] - ends[1]) / (2 * step))
        slope = torch.stack(slopes)
        expected += (p[i][:, None] * slope.square()).sum(0) / (COUNTS[i].sum() + 1)
    result = delta_method(COUNTS, 3, reversible=False)
    torch.testing.assert_close(result.eigenvalue_variance, expected[:3], rtol=1e-5, atol=0)
    torch.testing.assert_close(result.stationary_variance, expected[3:], rtol=1e-5, atol=0)


def test_rows_match_dirichlet_draws():
    draws = DirichletRows(COUNTS).sample(8000, seed=0)
    result = delta_method(COUNTS, 3, reversible=False)
    torch.testing.assert_close(sizes(draws, 3).var(0), result.eigenvalue_variance, rtol=0.1, atol=0)
    torch.testing.assert_close(stationary_distribution(draws).var(0), result.stationary_variance, rtol=0.1, atol=0)


def test_reversible_match_gibbs():
    samples = ReversibleGibbs(draws=8000, chains=400).fit(COUNTS, seed=1)
    result = delta_method(COUNTS, 3, lag=2.0, unit="ns")
    torch.testing.assert_close(samples.eigenvalues(3).variance, result.eigenvalue_variance, rtol=0.1, atol=0)
    torch.testing.assert_close(samples.stationary.flatten(0, 1).var(0), result.stationary_variance, rtol=0.1, atol=0)
    times = samples.timescales(3, lag=2.0, unit="ns")
    torch.testing.assert_close(times.variance, result.timescales.variance, rtol=0.12, atol=0)
    torch.testing.assert_close(times.values.log().var((0, 1)), result.log_timescales.variance, rtol=0.12, atol=0)
    assert result.timescales.unit == "ns"


def test_more_counts_less_variance():
    one, four = delta_method(COUNTS), delta_method(4 * COUNTS)
    torch.testing.assert_close(four.eigenvalue_variance * 4, one.eigenvalue_variance, rtol=1e-9, atol=0)
    torch.testing.assert_close(four.populations.variance * 4, one.populations.variance, rtol=1e-9, atol=0)


def test_complex_eigenvalues_have_real_variances():
    cycle = torch.tensor([[50.0, 900, 50], [50, 50, 900], [900, 50, 50]], dtype=torch.float64)
    result = delta_method(cycle, 2, reversible=False)
    assert result.eigenvalues.is_complex() and bool((result.eigenvalue_variance > 0).all())
    draws = DirichletRows(cycle).sample(8000, seed=2)
    torch.testing.assert_close(sizes(draws, 2).var(0), result.eigenvalue_variance, rtol=0.1, atol=0)


def test_bad_input():
    with pytest.raises(ShapeError):
        delta_method(COUNTS[None])
    with pytest.raises(DataError, match="count"):
        delta_method(COUNTS, 4)
    with pytest.raises(DataError, match="strongly connected"):
        delta_method(torch.eye(3), 1)
