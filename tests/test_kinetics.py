"""The ``kinetics`` command: from files of trajectories to timescales with intervals, or to the reason for none."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from bayesmol import kinetics as command
from bayesmol.options import commands

P = np.array([[0.97, 0.02, 0.01], [0.02, 0.96, 0.02], [0.01, 0.02, 0.97]])
SLOWEST = -1 / np.log(np.linalg.eigvalsh(P)[1])


def walk(frames, seed):
    source, states = np.random.default_rng(seed), [0]
    for _ in range(frames - 1):
        states.append(source.choice(3, p=P[states[-1]]))
    return np.array(states)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinetics")
    for k in range(2):
        states = walk(6000, k)
        np.save(folder / f"states{k}.npy", states)
        noise = np.random.default_rng(k).normal(0, 0.2, (6000, 2))
        np.save(folder / f"run{k}.npy", np.stack([states, states == 1], 1) + noise)
    return folder


@pytest.fixture(scope="module")
def app():
    app = typer.Typer()

    @app.callback()
    def main():
        pass

    commands(app)()(command.kinetics)
    return app


def run(app, *words):
    return CliRunner().invoke(app, ["kinetics", *map(str, words)])


def test_features_give_timescales_and_a_page(app, folder, tmp_path):
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    words = [folder / "run0.npy", folder / "run1.npy", "--lag", 2, "--states", 6, "--json", out, "--report", page]
    found = run(app, *words)
    assert found.exit_code == 0, found.output
    content = json.loads(out.read_text())
    figures, errors = content["figures"], content["standard_errors"]
    assert abs(figures["timescale_1"] - SLOWEST) < 5 * errors["timescale_1"]
    assert figures["population_1"] + figures["population_2"] == pytest.approx(1)
    assert figures["passage_time_1_2"] > 0 and 0 <= figures["chapman_kolmogorov_p"] <= 1
    assert figures["left_out_fraction"] < 0.01
    assert any("timescale_1" in note and "95 %" in note for note in content["notes"])
    text = page.read_text(encoding="utf-8")
    assert text.count("<img") == 3 and "Student" in text


def test_states_are_taken_as_they_are(app, folder, tmp_path):
    out = tmp_path / "out.json"
    assert run(app, folder / "states?.npy", "--lag", 1, "--json", out).exit_code == 0
    figures = json.loads(out.read_text())["figures"]
    assert set(figures) >= {"timescale_1", "timescale_2", "population_2"} and "timescale_3" not in figures


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.npy"], "missing.npy"),
        (["--macrostates", "9", "--lag", "1"], "macrostates"),
        (["--lag", "3000"], "at least"),
    ],
)
def test_what_goes_wrong_is_said(app, folder, words, said):
    found = run(app, *([folder / "states0.npy"] if words[0].startswith("--") else []), *words)
    assert found.exit_code != 0
    assert said in str(found.exception)
