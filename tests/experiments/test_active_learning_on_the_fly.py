"""The study of learning on the fly on a small scale, and its parts against hand and closed form."""

import pytest
import torch

from bayesmol.data import load
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.report import Study


@pytest.fixture
def script(study):
    return study("active_learning_on_the_fly")


def test_pulled_bonds_grow(script):
    start = load("rmd17/ethanol")[3].structures
    for trial, (one, two) in enumerate(script.BONDS.values()):
        positions = script._pulled(start, trial)
        lengths = (positions[:, two] - positions[:, one]).norm(dim=1)
        torch.testing.assert_close(lengths - lengths[0], 0.02 * torch.arange(60).double())


def test_the_study_runs(script, tmp_path, monkeypatch):
    small = BayesianACE(cutoffs=(4.5,), channels=(4, 4, 2), mixing=MixingSchedule(steps=0))
    monkeypatch.setattr(script, "POTENTIAL", small)
    study = Study("active_learning", "on-the-fly")
    sizes = {"steps": 60, "replicas": 2, "sampling": 10, "trials": 1, "seeds": 2}
    figures = script.on_the_fly(study, tmp_path, tolerance=2.0, **sizes)
    wanted = {"reference_call_fraction", "accepted_within_tolerance", "js_ccoh", "js_hcco", "cost_ratio"}
    assert wanted | {"heated_stopped_in_time", "pulled_stopped_in_time", "biased_steps_to_uncertainty"} <= set(
        study.figures
    )
    assert set(figures) == {"on_the_fly", "torsions"}
