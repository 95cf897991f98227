"""The same seed on one and on two threads: the same bits, or the same to the digits that are documented."""

import numpy as np
import pytest


@pytest.fixture
def threads(study):
    return study("reliability_threads")


def test_differences_are_relative_to_the_kind(threads):
    one = {"a": np.array([3.0, -4.0, np.nan]), "b": np.array([1.0])}
    two = {"a": np.array([3.0, -4.5, np.nan]), "b": np.array([1.0])}
    assert threads.apart(one, two) == pytest.approx({"a": 0.5 / np.sqrt(12.5), "b": 0.0})


@pytest.mark.slow
def test_the_documented_tolerances_hold_in_processes_of_their_own(threads, tmp_path):
    from bayesmol.report import Study

    study = Study("reliability", "threads")
    threads.compare(study, tmp_path, seed=1)
    for family, tolerance in threads.TOLERANCES.items():
        assert study.figures[f"{family}_two_threads_again"].value == 0
        assert study.figures[f"{family}_one_to_two_threads"].value <= tolerance
