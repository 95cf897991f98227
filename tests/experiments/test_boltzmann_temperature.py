from functools import partial

import pytest
import torch

from bayesmol.flows.systems import Exploration
from bayesmol.report import Study


@pytest.fixture
def temperature(study):
    return study("boltzmann_temperature")


def test_the_heat_capacity_of_a_harmonic_energy(temperature, normal):
    """Var(U) = d/2 (kT)², from draws at another temperature with weights."""
    x = 2.0 * normal(40_000, 3)
    energy = x.square().sum(1) / 2
    found = temperature.heat_capacity(energy, energy / 4 - energy / 3, 3.0)
    assert abs(float(found.value) - 1.5) < 3 * float(found.standard_error) < 0.2


def test_the_slope_of_estimates(temperature):
    ends = [
        temperature.Estimate(*(torch.tensor(v) for v in values), "") for values in ((1.0, 0.3, 9.0), (3.0, 0.4, 5.0))
    ]
    found = temperature.slope(*ends, 2.0)
    assert [float(found.value), float(found.standard_error)] == pytest.approx([1.0, 0.25])


def test_all_figures_of_a_short_run(temperature):
    filled = Study("boltzmann", "steering")
    temperature.steering(filled, minutes=0.01, seed=0, draws=4000, targets=("double_well",), ratios=(1.0, 2.0))
    for label in ("double_well_1", "double_well_2"):
        for name in ("ess_fraction", "ess_ratio", "heat_capacity", "heat_capacity_z", "heat_capacity_error"):
            assert f"{name}_{label}" in filled.figures
    assert filled.figures["ess_ratio"].value > 0


def test_a_molecule_is_judged_at_all_temperatures(temperature, monkeypatch):
    brief = partial(Exploration, walkers=8, warmup=10, draws=10, thin=1, leapfrogs=5, chains=64, length=4)
    monkeypatch.setattr(temperature, "_exploration", lambda hottest, rungs, minutes: brief(hottest, rungs))
    filled = Study("boltzmann", "steering")
    generator = temperature.alanine_steering(filled, minutes=0.02, seed=0, draws=200, dedicated=False)
    assert generator.temperatures == pytest.approx((300.0, 1000.0))
    for kelvin in (300, 448, 669, 1000):
        assert 0 < filled.figures[f"ess_fraction_alanine_{kelvin}"].value <= 1
        assert 0 <= filled.figures[f"cis_fraction_alanine_{kelvin}"].value <= 1
