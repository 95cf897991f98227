"""The energy object: what it prints, promises and refuses."""

import json
import math

import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.errors import DataError, ShapeError, UnitError
from bayesmol.units import convert
from bayesmol.wavefunctions.energy import Energy


def energy(source, walkers=64, draws=100, **further):
    local = -8.07 + 0.1 * source.standard_normal((walkers, draws))
    kinetic = 8 + source.standard_normal(local.shape)
    other = kinetic + source.standard_normal(local.shape)
    options = {"acceptance": 0.6, "steps": 10} | further
    return Energy.of(local, other, kinetic, local - kinetic, **options)


@pytest.fixture
def sound():
    return energy(np.random.default_rng(0))


@pytest.fixture
def refused():
    return energy(np.random.default_rng(0), acceptance=0.001)


def test_a_sound_energy_prints_its_error(sound):
    assert sound.verdict == "ok" and sound.reasons == ()
    assert str(sound).startswith("-8.0") and str(sound).endswith("(12) Ha")
    assert sound.draws.values.shape == (64, 100) and sound.draws.unit == "Ha"
    assert float(sound.estimate.value) == pytest.approx(float(sound.local.mean()))
    assert float(sound.estimate.standard_error) == max(sound.errors.known).value
    assert sound.effective_sample_size * sound.autocorrelation_time == pytest.approx(6400)
    assert float(sound.variance.value) == pytest.approx(float(sound.local.var()))
    assert float(sound.variance.value) == pytest.approx(0.01, abs=5 * float(sound.variance.standard_error))
    assert sound.variance.unit == "Ha²"
    assert sound.r_hat < 1.01 and sound.pareto_k < 0.4


def test_interval_is_students_and_says_what_it_covers(sound):
    found, freedom = sound.interval(0.9), sound.errors.largest.degrees_of_freedom
    reach = stats.t.ppf(0.95, freedom) * float(sound.estimate.standard_error)
    assert float(found.upper - found.lower) == pytest.approx(2 * reach)
    assert "fixed wavefunction" in found.guarantee and "variational" in found.guarantee


def test_bound_is_one_sided(sound):
    found = sound.bound(0.95)
    assert float(found.lower) == -math.inf
    assert float(found.upper) == pytest.approx(float(sound.interval(0.9).upper))
    assert "variational" in found.guarantee


def test_a_refused_energy_has_no_number(refused):
    assert str(refused).startswith("refused: 0.1 % of the moves")
    for found in (refused.interval(0.95), refused.bound(0.95)):
        assert math.isinf(float(found.lower)) and math.isinf(float(found.upper))
        assert found.guarantee.startswith("none: ") and "accepted" in found.guarantee
    assert math.isinf(float(refused.estimate.standard_error))
    assert refused.errors.largest.value < 0.01, "who wants to see the raw errors can"


def test_a_suspect_energy_says_so():
    found = energy(np.random.default_rng(0), acceptance=0.03)
    assert found.verdict == "suspect"
    assert "Ha (suspect: 3 %" in str(found) and "suspect" in found.interval(0.95).guarantee


def test_units(sound):
    found = sound.to("kcal/mol")
    factor = convert(1.0, "Ha", "kcal/mol")
    assert float(found.estimate.value) == pytest.approx(factor * float(sound.estimate.value))
    assert float(found.variance.value) == pytest.approx(factor**2 * float(sound.variance.value))
    assert found.verdict == sound.verdict and found.kinetic_gap.z == pytest.approx(sound.kinetic_gap.z)
    assert str(found).endswith("kcal/mol") and found.interval(0.9).unit == "kcal/mol"
    assert float(found.to("Ha").estimate.value) == pytest.approx(float(sound.estimate.value), abs=1e-12)
    with pytest.raises(UnitError):
        sound.to("bohr")


def test_reports(sound, refused):
    assert sound.table().row_count == len(sound.checks) == 9
    for one in (sound, refused):
        found = json.loads(json.dumps(one.content(), allow_nan=False))
        assert found["verdict"] == one.verdict and found["R-hat"] == pytest.approx(one.r_hat)
    assert refused.content()["standard_error"] is None
    with pytest.raises(KeyError, match="R-hat"):
        sound["unknown"]


def test_bad_input():
    good = torch.zeros(4, 10)
    with pytest.raises(ShapeError, match="at least 4 draws"):
        Energy.of(*[torch.zeros(4, 3)] * 4, acceptance=0.5)
    with pytest.raises(ShapeError, match="potential"):
        Energy.of(good, good, good, good[:2], acceptance=0.5)
    with pytest.raises(ShapeError, match="log_density"):
        Energy.of(good, good, good, good, log_density=good[:2], acceptance=0.5)
    with pytest.raises(DataError, match="steps"):
        Energy.of(good, good, good, good, acceptance=0.5, steps=0)


@pytest.mark.slow
def test_coverage_of_printed_energies():
    """From 93 to 97 % of the intervals of sound runs hold the mean, and no sound run is refused for long."""
    source, hits, trials = np.random.default_rng(1), 0, 1000
    for _ in range(trials):
        found = energy(source, 64, 100).interval(0.95)
        hits += bool(found.lower <= -8.07 <= found.upper)
    assert 0.93 * trials <= hits <= 0.97 * trials
