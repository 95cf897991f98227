"""Error control on made-up frames: what is drawn, what is counted, and that the certificate is true."""

import pytest
import torch

from bayesmol.report import Study


@pytest.fixture
def control(study):
    return study("applicability_control")


@pytest.fixture
def rows(control, normal):
    """Atoms of frames of three, whose errors follow their scores."""
    score = (0.5 * normal(3000)).exp()
    return control.Scored(score, (score * normal(3000)).abs(), torch.arange(3000) // 3)


def test_worst_of_a_frame(control, rows):
    worst = rows.worst()
    assert torch.equal(worst.score, rows.score.reshape(-1, 3).amax(1))
    assert torch.equal(worst.error, rows.error.reshape(-1, 3).amax(1))


def test_frames_that_are_drawn_twice_are_two(rows):
    drawn = rows.frames(torch.tensor([5, 5, 0]))
    assert drawn.frame.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert torch.equal(drawn.score, torch.cat([rows.score[15:18], rows.score[15:18], rows.score[:3]]))


def test_rate_and_margin(control, rows):
    accepted = torch.zeros(3000, dtype=torch.bool)
    assert control.rate(rows, accepted, 1.0) == 0 and control.margin(rows, accepted) == 0
    accepted[:300] = True
    assert control.rate(rows, accepted, 1.0) == pytest.approx(float((rows.error[:300] > 1).double().mean()))
    assert control.margin(rows, accepted) == pytest.approx(0.04), "9 of 100 frames"


def test_certificates_hold(control, rows):
    study = Study("applicability", "control")
    assert control.held(study, "atom", rows, 600, 8, 0) >= 7
    assert control.held(study, "structure", rows.worst(), 600, 8, 0) >= 7
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["certified_fraction_atom_97"] == 1 and found["accepted_fraction_atom_97"] > 0.8
    assert found["tolerance_structure_80"] > found["tolerance_atom_80"]


def test_rejection(control, rows):
    study = Study("applicability", "control")
    control.rejection(study, "atom", rows)
    random = control.Scored(rows.score[torch.randperm(3000)], rows.error, rows.frame)
    control.rejection(study, "random", random)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert 0.2 < found["risk_coverage_gain_atom"] < found["risk_coverage_gain_atom_oracle"] < 1
    assert abs(found["risk_coverage_gain_random"]) < 0.15


def test_decisions(control, rows):
    study = Study("applicability", "control")
    control.decisions(study, rows, 600, 0)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["decision_cost"] <= found["decision_cost_bound"] <= found["decision_cost_all_computed"]
