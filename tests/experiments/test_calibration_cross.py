"""The study of cross-validated intervals runs on small sets, and its figures are the right ones."""

from pathlib import Path

import pytest
import torch

from bayesmol.report import Study


@pytest.fixture
def cross(study):
    return study("calibration_cross")


def test_measure(cross, capsys):
    record = Study("calibration", "conformal")
    cross.measure(record, rows=3000, points=60, shared_rows=500, trials=12, repeats=1)
    figures = record.figures
    assert figures["cvplus_difference_to_mapie"].value < 1e-12 and figures["cvplus_difference_to_mapie"].met
    assert 0.8 < figures["cvplus_coverage"].value < 0.98
    assert figures["jackknife_coverage"].value < 0.7 < figures["jackknife_plus_coverage"].value
    assert figures["jackknife_coverage"].standard_error > 0
    assert figures["ratio_to_mapie"].value == pytest.approx(
        figures["cvplus_cpu_seconds_3e3"].value / figures["mapie_cpu_seconds_3e3"].value
    )
    assert figures["cvplus_extra_memory_mb_3e3"].unit == "MB"
    assert any("scaled to 60" in note for note in record.notes) and any("≥ 0." in note for note in record.notes)
    assert set(record.cpu_seconds) == {"cross-validation", "jackknife"}
    record.finish()
    assert "cvplus_difference_to_mapie" in capsys.readouterr().out


def test_data_have_one_law_and_a_seed(cross):
    first, second = cross.friedman(50, 20, seed=3), cross.friedman(50, 20, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], cross.friedman(50, 20, seed=4)[0])
    assert [tuple(part.shape) for part in first] == [(50, 10), (50,), (20, 10), (20,)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_memory_counts_what_a_run_takes(cross):
    assert cross.extra_memory_mb(lambda: torch.ones(25_000_000)) == pytest.approx(100, abs=20)
