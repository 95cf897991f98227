"""VAMPnets on the double well, twice."""

import pytest

from bayesmol.report import Study


def test_rates_and_their_bands(study):
    run = Study("kinetics", "vampnet")
    study("kinetics_vampnet").vampnet(run, repeats=2, trajectories=60, frames=81)
    assert run.figures["vampnet_rate"].value == pytest.approx(0.0555, rel=0.4)
    assert 0 <= run.figures["vampnet_coverage_95"].value <= 1
    assert run.figures["vampnet_relative_width"].value > 0
