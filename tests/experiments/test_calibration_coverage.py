"""The study of coverage counts what lies outside of the exact bands."""

import pytest

from bayesmol.report import Study


def test_coverage(study):
    module, filled = study("calibration_coverage"), Study("calibration", "conformal")
    module.coverage(filled, replications=6)
    for name in module.CASES:
        assert 0.8 < filled.figures[f"coverage_{name}"].value < 1
    assert filled.figures["outside_absolute"].upper == pytest.approx(2000 / 6)  # of 6, two may be outside by chance
    assert "outside_structure" not in filled.figures


def test_outside_of_the_band_is_noticed(study):
    module = study("calibration_coverage")
    assert module._inside(180, 200, 99)
    assert not module._inside(150, 200, 99) and not module._inside(200, 200, 99)
