"""Intervals from pieces against the whole: on a chain whose kinetics are known."""

import json

import numpy as np
import pytest

from bayesmol.errors import DataError
from bayesmol.report import Study

STAY = np.array([[0.98, 0.02], [0.08, 0.92]])  # of a frame; φ < 0 and φ ≥ 0


@pytest.fixture
def module(study):
    return study("kinetics_alanine")


def write(folder, frames, seed=0, changes=STAY):
    """A run that jumps between the two signs of φ, in the files of the generator."""
    source = np.random.default_rng(seed)
    uniform, state = source.uniform(size=frames), [0]
    for u in uniform[1:]:
        state.append(int(u < changes[state[-1], 1]))
    centres = np.array([[-1.5, 2.0], [1.0, 0.5]])[state]
    (folder / "trajectory_000").mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps({"every": 0.5}))
    arrays = {"torsions": (centres + 0.2 * source.normal(size=(frames, 2))).astype(np.float32)}
    np.savez(folder / "trajectory_000" / "piece_00000.npz", positions=np.zeros((frames, 10, 3)), **arrays)
    return folder


def test_a_chain_with_known_kinetics(module, tmp_path):
    folder, table = write(tmp_path, 24_000), Study("kinetics", "alanine-dipeptide")
    module.alanine(table, folder, lag=1, pieces=10, states=4, draws=400)
    figures = table.figures
    exact = -0.5 / np.log(0.98 + 0.92 - 1)
    for name in ("timescale_1", "tica_timescale_1"):
        assert abs(figures[name].value - exact) < 4 * figures[name].standard_error
        assert figures[name].unit == "ps"
    assert abs(figures["share_positive_phi"].value - 0.2) < 4 * figures["share_positive_phi"].standard_error
    assert figures["mfpt_into_positive_phi"].value == pytest.approx(0.5 / 0.02, rel=0.2)
    assert figures["mfpt_out_of_positive_phi"].value == pytest.approx(0.5 / 0.08, rel=0.2)
    assert figures["coverage_95"].value > 0.75 and figures["refused_timescale_1"].value == 0
    assert figures["relative_width_timescale_1"].value == pytest.approx(3.92 * 0.12, rel=0.6)


def test_pieces_that_cannot_know_refuse(module, tmp_path):
    changes = np.array([[0.9995, 0.0005], [0.002, 0.998]])
    folder, table = write(tmp_path, 24_000, seed=3, changes=changes), Study("kinetics", "alanine-dipeptide")
    module.alanine(table, folder, lag=1, pieces=30, states=4, draws=300)
    assert table.figures["refused_mfpt_into_positive_phi"].value > 0.2
    assert table.figures["held_95"].value <= table.figures["coverage_95"].value


def test_pieces_do_not_cross_runs(module, tmp_path):
    data = module.torsion_features(write(tmp_path, 1000))
    assert data.unit == "ps" and data.time_step == 0.5 and data.parts[0].shape == (1000, 4)
    two = type(data)((data.parts[0][:700], data.parts[0][:300]), 0.5, "ps")
    assert [part.lengths for part in module.cut(two, 4, 10)] == [[250], [250], [250]]
    many = type(data)(tuple(data.parts[0].split(100)), 0.5, "ps")
    assert [part.lengths for part in module.cut(many, 3, 10)] == [[100, 100, 100]] * 3
    with pytest.raises(DataError, match="pieces"):
        module.cut(two, 50, 10)
    with pytest.raises(DataError, match="pieces"):
        module.cut(two, 1, 10)
