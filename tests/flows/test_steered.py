"""A generator for a range of temperatures: exact answers at each, its limits, its file."""

import pytest
import torch

import bayesmol as bm
from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.flows.couplings import Couplings
from bayesmol.flows.model_densities import double_well
from bayesmol.flows.particle_densities import dw4
from bayesmol.flows.steered import SteerableGenerator
from bayesmol.flows.systems import Exploration
from bayesmol.flows.training import Training
from bayesmol.inference.importance import effective_size, populations

SHORT = Exploration(hottest=3.0, rungs=4, walkers=32, warmup=50, draws=60, thin=1)


@pytest.fixture(scope="module")
def fitted():
    spec = SteerableGenerator(
        hottest=2.0, architecture=Couplings(layers=2, width=32, bins=8), exploration=SHORT, minutes=0.1
    )
    return spec.fit(double_well(), seed=0)


@pytest.mark.parametrize("temperature", [1.0, 1.4, 2.0])
def test_populations_are_exact_at_all_temperatures(fitted, temperature):
    # By the weights themselves: how many steps the budget bought, and so the light of the report, is the machine's.
    at = fitted.at(temperature)
    x, log_weights = at.weighted(20_000, seed=1)
    found = populations(at.density.states(x), log_weights, states=2).shares
    exact = at.density.known().populations
    assert effective_size(log_weights).fraction > 0.8
    for k in (0, 1):
        assert abs(float(found.value[k]) - exact[k]) < 4 * float(found.standard_error[k])


def test_the_range_of_training_is_kept(fitted):
    assert fitted.temperatures == (1.0, 2.0)
    for temperature in (0.9, 2.1):
        with pytest.raises(ApplicabilityError, match="from 1 to 2"):
            fitted.at(temperature)


def test_the_file_serves_all_temperatures(fitted, tmp_path):
    bm.save(fitted.at(1.5), tmp_path / "generator.bm")
    loaded = bm.load(tmp_path / "generator.bm").on(double_well().at(1.2))
    x = torch.tensor([[-1.0, 0.3], [1.5, -0.2]], dtype=torch.float64)
    torch.testing.assert_close(loaded.log_prob(x), fitted.at(1.2).log_prob(x))


def test_all_configurations_of_the_ladder_are_kept():
    rows, ladder, cost = SHORT.ladder(double_well(), 2.5, seed=0)
    assert rows.shape == (4, 32 * 60, 2) and ladder[0] == 1 and ladder[-1] == pytest.approx(3.0)
    assert SHORT.ladder(double_well(), 2.0, seed=0)[1] == pytest.approx((1.0, 3 ** (1 / 3), 3 ** (2 / 3)))
    assert cost > 4 * 32 * 60
    spread = rows[:, :, 1].var(1)  # a harmonic coordinate
    torch.testing.assert_close(spread, torch.tensor(ladder, dtype=torch.float64), rtol=0.25, atol=0)


def test_bad_input():
    for settings in ({"members": 0}, {"broad": 0.0}, {"hottest": 1.0}, {"hottest": 30.0}):
        with pytest.raises(DataError):
            SteerableGenerator(**settings)
    with pytest.raises(DataError, match="hottest"):
        SHORT.ladder(double_well(), 4.0, seed=0)
    with pytest.raises(DataError, match="symmetry"):
        SteerableGenerator().fit(dw4(), seed=0)


def test_trainings_count_the_exploration(fitted):
    assert isinstance(fitted.trainings[0], Training)
    assert fitted.trainings[0].energy_evaluations > 4 * 32 * 110
