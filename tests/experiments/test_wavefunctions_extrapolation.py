"""The study of extrapolated energies counts intervals that hold the exact energy."""

import pytest

from bayesmol.report import Study
from bayesmol.wavefunctions.pauli_net import PauliNet
from bayesmol.wavefunctions.training import Training


@pytest.fixture
def module(study):
    return study("wavefunctions_extrapolation")


def test_intervals_are_counted(module):
    filled = Study("wavefunctions", "extrapolation")
    training = Training(walkers=64, steps=1, minutes=None, moves=2, burn_in=20)
    small = PauliNet(determinants=1, width=4, layers=1, basis="cc-pvdz", training=training)
    module.extrapolation(filled, seeds=1, draws=60, steps=(20,), only=("He",), spec=small)
    value = {name: figure.value for name, figure in filled.figures.items()}
    assert value["extrapolated_coverage_95"] == value["extrapolated_coverage_95_He"] in (0.0, 1.0)
    assert "He, 20 steps, seed 0" in filled.notes[0]


def test_new_systems_are_counted_apart(module):
    filled = Study("wavefunctions", "extrapolation")
    module._summarise(filled, {"He": [True, True], "Li2": [True, False]}, [True, True, False])
    value = {name: figure.value for name, figure in filled.figures.items()}
    assert value["extrapolated_coverage_95"] == 0.75 and value["extrapolated_coverage_95_new"] == 0.5
    assert value["bound_coverage_95"] == pytest.approx(2 / 3)
