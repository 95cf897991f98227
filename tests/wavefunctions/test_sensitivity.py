import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bayesmol.errors import ConvergenceError, DataError, ShapeError
from bayesmol.inference.swag import SwagMoments
from bayesmol.posterior import Estimate
from bayesmol.testing import assert_calibrated
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.sensitivity import Sensitivity, _drawn, iterates, seeds


def measured(values, errors):
    values = torch.as_tensor(values, dtype=torch.float64)
    errors = torch.as_tensor(errors, dtype=torch.float64).expand_as(values)
    return Sensitivity(Estimate(values, errors, torch.full_like(values, 1000.0), "Ha"), "seeds")


def energy(mean, source, stuck=0.0):
    """Walkers about a mean; with ``stuck`` they disagree."""
    shape = (32, 64)
    local = mean + 1e-3 * source.normal(size=shape) + stuck * np.linspace(-1, 1, 32)[:, None]
    return Energy.of(local, *(np.abs(source.normal(size=(2, *shape)))), local, acceptance=0.5)


class Pretended:
    """An ansatz whose wavefunctions have energies that scatter by 2 mHa."""

    def __init__(self, stuck=0.0):
        self.stuck, self.paths = stuck, []

    def fit(self, molecule, *, seed, minutes, checkpoint):
        self.paths.append(checkpoint)
        source = np.random.default_rng(seed)
        mean = -2.9 + 2e-3 * source.normal()
        return SimpleNamespace(energy=lambda draws, seed: energy(mean, source, self.stuck))


def test_spread_interval_covers_and_ignores_the_noise_of_sampling():
    source, true, hits, trials = np.random.default_rng(0), 2e-3, 0, 300
    for _ in range(trials):
        errors = source.uniform(5e-4, 3e-3, size=5)
        found = measured(-1 + true * source.normal(size=5) + errors * source.normal(size=5), errors)
        band = found.interval(0.9)
        hits += float(band.lower) <= true <= float(band.upper)
        assert float(band.lower) <= found.spread <= float(band.upper)
    assert_calibrated(hits, trials, 0.9)


def test_equal_errors_give_the_closed_form():
    values, error = np.array([-1.003, -1.001, -0.998, -1.0]), 5e-4
    found = measured(values, error)
    assert found.spread == pytest.approx(math.sqrt(values.var(ddof=1) - error**2), rel=1e-8)
    assert float(found.mean.value) == pytest.approx(values.mean())
    assert float(found.mean.standard_error) == pytest.approx(values.std(ddof=1) / 2)


def test_sampling_that_explains_all_leaves_no_spread():
    found = measured([-1.0001, -1.0, -0.9999], 1e-3)
    assert found.spread == 0
    assert float(found.mean.standard_error) == pytest.approx(1e-3 / math.sqrt(3))
    assert "spread 0 mHa" in str(found)


def test_says_what_it_is_not():
    assert "no posterior" in Sensitivity(measured([0.0, 1.0], 0.1).energies, "iterates").meaning
    assert "one-sided" in measured([0.0, 1.0], 0.1).meaning


def test_seeds_differ_and_are_kept(tmp_path):
    ansatz = Pretended()
    found = seeds(ansatz, None, 6, seed=1, checkpoint=tmp_path / "new")
    assert len(set(ansatz.paths)) == 6
    assert 5e-4 < found.spread < 6e-3
    assert torch.equal(found.energies.value, seeds(Pretended(), None, 6, seed=1).energies.value)


def test_refused_energy_is_no_energy():
    with pytest.raises(DataError, match="refused, got 0: walkers disagree"):
        seeds(Pretended(stuck=0.1), None, 2, seed=0)


def test_few_or_unknown_energies_are_errors():
    with pytest.raises(DataError, match="at least two"):
        seeds(Pretended(), None, 1, seed=0)
    with pytest.raises(ShapeError, match="at least two"):
        measured([1.0], 0.1)
    with pytest.raises(DataError, match="finite"):
        measured([1.0, 2.0], math.inf)


def test_draws_have_the_covariance_of_the_snapshots():
    vectors = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = SwagMoments.empty(vectors[0], rank=5)
    for vector in vectors:
        moments = moments.updated(vector)
    drawn = _drawn(moments, 200_000, 1)
    torch.testing.assert_close(drawn.mean(0), vectors.mean(0), rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.T.cov(), vectors.T.cov(), rtol=0, atol=0.03)


class Bowl:
    """Energies that rise with the square of the parameters."""

    def energy(self, parameters, places, draws, *, seed):
        return energy(float(np.sum(np.asarray(parameters["a"]) ** 2)), np.random.default_rng(seed))


def test_iterates_move_the_parameters_as_the_snapshots_do():
    snapshots = np.random.default_rng(0).normal(size=(8, 2)) * [0.0, 0.1]
    trained = SimpleNamespace(snapshots=snapshots, walkers=np.zeros((4, 2, 3)))
    pretended = SimpleNamespace(trained=trained, parameters={"a": jnp.zeros(2)}, evaluation=Bowl())
    found = iterates(pretended, 30, seed=0)
    assert found.source == "iterates"
    # Of x², x normal: the spread is √2 times the variance about a mean near zero.
    assert 0.004 < found.spread < 0.04
    trained.snapshots = snapshots[:2]
    with pytest.raises(ConvergenceError, match="three"):
        iterates(pretended, seed=0)
    with pytest.raises(DataError, match="two"):
        iterates(pretended, 1, seed=0)
