"""The table of all families, by rows that cost little."""

import pytest

from bayesmol.report import Study


@pytest.fixture
def module(study):
    return study("calibration_families")


def test_rows_are_marked_and_drawn(module, monkeypatch):
    true = module.Row("true", 0.95, lambda repeats, seed: module._binomial(0.95, 1.0, repeats))
    narrow = module.Row("narrow", 0.95, lambda repeats, seed: module._binomial(0.6, 0.4, repeats, (0.5, 0.3), "peer"))
    monkeypatch.setattr(module, "ROWS", (true, narrow))
    run = Study("calibration", "families")
    found = module.families(run, repeats=100, seed=0)
    assert run.figures["rows_outside"].value == 1
    assert run.figures["coverage_95_narrow_peer"].value == 0.5
    assert [run.figures[f"relative_width_{name}"].value for name in ("true", "narrow", "narrow_peer")] == [1, 0.4, 0.3]
    assert run.notes[0].startswith("true: inside its 99 % band 0.8")
    assert [len(axes.lines) for axes in module.plot(found).axes] == [7, 4]


def test_bond_lengths_are_covered(module):
    one = module._diatomic(20, 0)
    assert one.lower <= one.observed <= one.upper
    assert 0.7 < one.width < 2
    assert module.ROWS[0].name == "certified_energies"
