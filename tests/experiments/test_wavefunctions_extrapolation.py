"""The study of extrapolated energies counts intervals that hold the exact energy."""

import pytest

from bayesmol.errors import DataError
from bayesmol.report import Study
from bayesmol.wavefunctions.pauli_net import PauliNet
from bayesmol.wavefunctions.training import Training


@pytest.fixture
def module(study):
    return study("wavefunctions_extrapolation")


def _outcome(module, lower, upper, bound):
    return module.Outcome(energy=-1.0, lower=lower, upper=upper, bound=bound, exact=-1.2)


def test_intervals_are_counted_and_kept(module, tmp_path):
    training = Training(walkers=64, steps=1, minutes=None, moves=2, burn_in=20)
    small = PauliNet(determinants=1, width=4, layers=1, basis="cc-pvdz", training=training)
    options = {"seeds": 1, "draws": 60, "steps": (20,), "only": ("He",), "spec": small, "kept": tmp_path / "kept.json"}
    filled, again = Study("wavefunctions", "extrapolation"), Study("wavefunctions", "extrapolation")
    module.extrapolation(filled, **options)
    value = {name: figure.value for name, figure in filled.figures.items()}
    assert value["extrapolated_coverage_95"] == value["extrapolated_coverage_95_He"] in (0.0, 1.0)
    assert "He, 20 steps, seed 0" in filled.notes[0]
    module.extrapolation(again, **options)
    assert again.figures == filled.figures and again.notes == filled.notes and not again.cpu_seconds
    with pytest.raises(DataError, match="give another file"):
        module.extrapolation(again, **{**options, "draws": 61})


def test_new_systems_are_counted_apart(module):
    filled = Study("wavefunctions", "extrapolation")
    good, low = _outcome(module, -1.3, -1.1, -0.9), _outcome(module, -1.3, -1.25, -1.21)
    module._summarise(filled, {("He", 0, 60): good, ("He", 0, 240): good, ("Li2", 0, 60): good, ("Li2", 0, 240): low})
    value = {name: figure.value for name, figure in filled.figures.items()}
    assert value["extrapolated_coverage_95"] == 0.75 and value["extrapolated_coverage_95_new"] == 0.5
    assert value["bound_coverage_95"] == 0.75
    assert filled.notes[-2].endswith("interval -100.00, -50.00")
