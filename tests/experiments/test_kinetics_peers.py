"""deeptime's intervals beside ours on a few short runs."""

import pytest

from bayesmol.report import Study

pytest.importorskip("deeptime")


@pytest.mark.slow
def test_ours_are_wider_because_frames_are_not_independent(study):
    table = Study("kinetics", "peers")
    options = {"name": "prinz", "repeats": 8, "frames": 20_000, "lag": 25, "count": 2, "draws": 100, "seed": 0}
    study("kinetics_peers").peers(table, **options)
    figures = {name: figure.value for name, figure in table.figures.items()}
    assert figures["coverage_95"] > 0.7 and figures["relative_width"] > 2 * figures["relative_width_deeptime"]
    assert figures["coverage_95"] > figures["coverage_95_deeptime"]
