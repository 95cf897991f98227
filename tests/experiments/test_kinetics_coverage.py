"""The study of coverage: what it counts, and against which truth."""

import pytest
import torch

from bayesmol.data.exact_spectra import euler_chain
from bayesmol.report import Study


@pytest.fixture
def study_of_coverage(study):
    return study("kinetics_coverage")


def test_intervals_are_counted_for_both_estimators(study_of_coverage):
    study = Study("kinetics", "coverage", {}, packages=("torch",))
    study_of_coverage.coverage(study, repeats=3, frames=20_000, lags=[10], only=["double_well"], draws=60, seed=0)
    for kind in ("markov", "tica"):
        name = f"double_well_{kind}_lag10_t1"
        assert 0 <= study.figures[f"coverage_95_{name}"].value <= 1
        assert study.figures[f"relative_width_{name}"].value > 0
    assert {"coverage_95", "relative_width"} <= set(study.figures)


def test_too_short_runs_are_counted_as_refused(study_of_coverage):
    found = Study("kinetics", "coverage", {}, packages=("torch",))
    study_of_coverage.coverage(found, repeats=2, frames=2000, lags=[200], only=["double_well"], draws=50, seed=0)
    assert found.figures["refused_fraction_double_well_markov_lag200"].value > 0.7


def test_the_truth_of_states_is_below_that_of_the_chain(study_of_coverage):
    case = study_of_coverage.CASES["double_well"]
    borders = study_of_coverage.borders(case)
    chain = euler_chain(case.landscape(), step=case.step, steps=case.steps, breaks=borders)
    states = study_of_coverage.states(case, chain.points).parts[0]
    assert len(states.unique()) == 20
    seen = study_of_coverage.eigenvalues(chain.transition_matrix(states, 5))[0]
    exact = float(torch.exp(-5 / chain.timescales(1)[0]))
    assert exact * 0.97 < float(seen) < exact
