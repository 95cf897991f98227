"""The studies of conformal intervals fill in the right figures."""

import numpy as np
import pytest

import bayesmol as bm
from bayesmol.report import Study


@pytest.fixture
def conformal(study):
    return study("calibration_conformal")


@pytest.fixture
def table(conformal, monkeypatch, tmp_path):
    """A folder whose only table is noise that grows with the first feature."""
    generator = np.random.default_rng(0)
    inputs = generator.random((1600, 3))
    targets = inputs.sum(1) + inputs[:, 0] * generator.normal(size=1600)
    made = lambda tables: (inputs, targets, range(1600), ("a", "b", "c"))  # noqa: E731
    monkeypatch.setattr(conformal, "COLUMNS", {"superconductor": made, "steel": made})
    monkeypatch.setattr(conformal, "TREES", 30)
    return tmp_path


def test_superconductors(conformal, table):
    study = Study("calibration", "conformal")
    conformal.superconductors(study, table, seeds=(0, 1))
    found = {name: figure.value for name, figure in study.figures.items()}
    for rule in ("absolute", "normalised"):
        # the same scores around the same forest
        assert found[f"relative_width_{rule}"] == pytest.approx(found[f"relative_width_mapie_{rule}"], rel=0.02)
    assert 0.8 < found["table_coverage"] <= 1 and 0 < found["relative_width"] < 5
    chosen = found[f"worst_decile_coverage_{conformal.CHOSEN}"]
    assert found["worst_decile_coverage"] == chosen <= found["table_coverage"]


def test_widths(conformal, table):
    study = Study("calibration", "conformal")
    conformal.widths(study, table, seeds=(0,))
    assert study.figures["width_ratio_steel_floor"].value <= 3
    assert "width_ratio_steel_mapie_residual" in study.figures


def test_worst_decile(conformal):
    inside = np.ones(100, dtype=bool)
    inside[[3, 4, 50]] = False
    order = np.random.default_rng(0).permutation(100)
    assert conformal.worst_decile(inside[order], np.arange(100)[order]) == pytest.approx(0.8)


@pytest.mark.parametrize("points", [200, 1563])
def test_worst_of_perfect_by_simulation(conformal, points):
    generator = np.random.default_rng(0)
    draws = [generator.binomial(len(part), 0.9, 20000) / len(part) for part in np.array_split(np.arange(points), 10)]
    simulated = np.min(draws, axis=0)
    assert conformal.worst_of_perfect(points) == pytest.approx(simulated.mean(), abs=5 * simulated.std() / 20000**0.5)


@pytest.mark.slow
def test_all_atoms(conformal):
    study = Study("calibration", "conformal")
    conformal.all_atoms(study, *bm.data.load("rmd17/ethanol").split(10, 100, 100), resplits=5)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["all_atoms_coverage"] > 0.85 > found["all_atoms_coverage_pooled"]
    assert 0.85 < found["atom_coverage_per_atom"] < found["atom_coverage"]
    assert found["volume_ball_over_box"] < 1
