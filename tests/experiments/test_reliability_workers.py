"""The study of workers says how long each choice takes, and whether all choose the same."""

from contextlib import ExitStack

import pytest

from bayesmol.report import Study


def test_the_choice_is_the_same_wherever_it_is_made(study, monkeypatch):
    """Clusters themselves: tests/test_parallel.py."""
    module, asked = study("reliability_workers"), []
    monkeypatch.setattr(module, "_cluster", lambda n: asked.append(n) or ExitStack)
    monkeypatch.setattr(module, "LABELS", 10)
    run = Study("reliability", "workers")
    module.compare(run, pool=300, workers=(1, 2))
    assert asked == [1, 2] and run.figures["same_choice"].value == 1
    seconds = {name: run.figures[f"seconds_{name}"].value for name in ("here", "1_workers", "2_workers")}
    assert min(seconds.values()) > 0
    gain = seconds["1_workers"] / seconds["2_workers"]
    assert run.figures["gain_of_2_workers"].value == pytest.approx(gain)
