"""A cluster chooses what one process chooses, and the study says how long each takes."""

import pytest

from bayesmol.report import Study


@pytest.mark.slow
def test_the_choice_is_the_same_wherever_it_is_made(study):
    run = Study("reliability", "workers")
    study("reliability_workers").compare(run, pool=600, workers=(1, 2))
    assert run.figures["same_choice"].value == 1
    seconds = {name: run.figures[f"seconds_{name}"].value for name in ("here", "1_workers", "2_workers")}
    assert min(seconds.values()) > 0
    gain = seconds["1_workers"] / seconds["2_workers"]
    assert run.figures["gain_of_2_workers"].value == pytest.approx(gain)
