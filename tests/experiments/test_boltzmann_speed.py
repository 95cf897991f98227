"""Rates are counted rightly, and each figure of the speed study is there."""

import time
from pathlib import Path

import pytest
import torch

from bayesmol.report import Study

PRMTOP = Path(__file__).parents[1] / "flows" / "alanine-dipeptide.prmtop"


@pytest.fixture
def script(study):
    return study("boltzmann_speed")


def test_a_rate_is_rows_by_cpu_time(script):
    def work():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    rate = script.rates(work, 100, 3, "cpu")
    assert float(rate.value) == pytest.approx(2000, rel=0.2)
    assert float(rate.effective_sample_size) == 3


def test_figures(script):
    study = Study("speed", "test")
    script.force_field(study, rows=64, repeats=2)
    script.flow_training(study, dimension=6, angles=2, rows=16, steps=2)
    names = {"force_field", "force_field_energies", "force_field_float64", "force_field_energies_float64"}
    names |= {"flow_density", "flow_draws"}
    assert set(study.figures) == {f"{name}_per_cpu_second" for name in names}
    assert all(figure.value > 1 for figure in study.figures.values())


def test_openmm(script):
    study = Study("speed", "test")
    script.openmm_reference(study, PRMTOP, rows=3, repeats=2)
    assert study.figures["openmm_reference_per_cpu_second"].value > 1


def test_configurations_are_near_the_geometry(script):
    positions = torch.randn(4, 3, dtype=torch.float64)
    rows = script.configurations(positions, 500, seed=0)
    assert rows.shape == (500, 12)
    assert float((rows - positions.flatten()).std()) == pytest.approx(script.WIDTH, rel=0.05)
