"""The study of coverage counts what it says."""

import pytest

from bayesmol.flows.discovery import Discovery
from bayesmol.report import Study


@pytest.fixture
def module(study, monkeypatch):
    found = study("boltzmann_coverage")
    monkeypatch.setattr(found, "WALKERS", Discovery(walkers=16, trajectories=10, leapfrogs=4))
    return found


def test_figures(module, monkeypatch):
    monkeypatch.setattr(module, "KINDS", ("right", "missing"))
    study = Study("boltzmann", "coverage")
    module.coverage(study, repeats=12, reports=2, draws=600, only=("gaussian_mixture",), seed=0)
    value = {name: figure.value for name, figure in study.figures.items()}
    assert value["false_green_fraction"] == 0
    assert value["red_fraction_missing"] == 1
    assert value["green_fraction_right"] > 0.5
    assert 0.8 <= value["coverage_95"] <= 1
    assert value["coverage_95"] == value["coverage_95_gaussian_mixture"] == value["coverage_95_right"]
    assert "coverage_95_missing" not in value
    assert 0.5 < value["relative_width"] < 2.5


def test_estimates_are_asked_of_each_case(module):
    case = module.cases()["harmonic"]
    draws = module._drawn(case.proposal("wide"), case, 500, None, module.generator(0))
    assert set(module.estimates(draws, case)) == set(case.truths)
