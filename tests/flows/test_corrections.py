import math

import pytest
import torch

from bayesmol.errors import DataError, ShapeError
from bayesmol.flows.corrections import label_correction
from bayesmol.testing import assert_calibrated

KT = 0.03


def sample(size, source, *, offset=0.0):
    """Two states whose differences are normal: −ln⟨exp(−δ/kT)⟩ = μ − σ²/2, in kT."""
    means, deviations = torch.tensor([0.1, 0.3]).double(), torch.tensor([0.2, 0.3]).double()
    states = torch.arange(2).repeat(size)
    normal = torch.randn(len(states), generator=source, dtype=torch.float64)
    exact = -(means - deviations.square() / 2)
    return KT * (means[states] + deviations[states] * normal) + offset, states, float(exact[0] - exact[1])


def test_many_labels_give_the_exact_factor():
    differences, states, exact = sample(40_000, torch.Generator().manual_seed(0))
    found = label_correction(differences, states, KT, seed=0).values[0]
    assert float((found[:, 0] - found[:, 1]).mean()) == pytest.approx(exact, abs=0.01)


def test_the_interval_covers():
    source, hits, trials = torch.Generator().manual_seed(1), 0, 400
    for trial in range(trials):
        differences, states, exact = sample(40, source)
        found = label_correction(differences, states, KT, seed=trial, draws=400).values[0]
        lower, upper = (found[:, 0] - found[:, 1]).quantile(torch.tensor([0.05, 0.95]).double())
        hits += bool(lower <= exact <= upper)
    assert_calibrated(hits, trials, 0.9)


def test_the_zero_of_energies_does_not_matter():
    one, states, _ = sample(20, torch.Generator().manual_seed(2))
    two, _, _ = sample(20, torch.Generator().manual_seed(2), offset=-400.0)
    first, second = (label_correction(x, states, KT, seed=0).values for x in (one, two))
    torch.testing.assert_close(first, second, atol=1e-9, rtol=0)


def test_the_variance_is_that_of_a_mean():
    differences = 1e-3 * KT * torch.randn(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = label_correction(differences, torch.zeros(12).long(), KT, seed=0, draws=40_000)
    expected = float(differences.var() / 12) ** 0.5 / KT
    assert float(found.stddev[0]) == pytest.approx(expected, rel=0.02)


def test_bad_input():
    differences, states, _ = sample(20, torch.Generator().manual_seed(4))
    with pytest.raises(ShapeError, match="states"):
        label_correction(differences, states[:-1], KT, seed=0)
    with pytest.raises(DataError, match="10 labels"):
        label_correction(differences[:12], states[:12], KT, seed=0)
    with pytest.raises(DataError, match="finite"):
        label_correction(differences.index_fill(0, torch.tensor([0]), math.nan), states, KT, seed=0)
