"""The command for a GPU says when there is none, rehearses on a CPU, and goes on when a part fails."""

import json

import pytest
import torch
from typer.testing import CliRunner

from bayesmol.errors import DataError
from bayesmol.report import Study

CHEAP = ("agreement-ace", "agreement-gradient-gp", "many-rows-ace", "many-rows-inducing")


@pytest.fixture
def rehearsed(study, tmp_path):
    """Content of the JSON file of a rehearsal of some parts."""

    def run(*parts, code=0):
        chosen = [text for part in parts for text in ("--part", part)]
        options = ["gpu", "--device", "cpu", "--small", *chosen, "--json", str(tmp_path / "gpu.json")]
        result = CliRunner().invoke(study("potentials").app, options)
        assert result.exit_code == code, (result.output, result.exception)
        return json.loads((tmp_path / "gpu.json").read_text())

    return run


def test_without_a_device_the_exit_code_is_3(study, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ([], ["--device", "cuda:1"]):
        result = CliRunner().invoke(study("potentials").app, ["gpu", *device, "--json", str(tmp_path / "none.json")])
        assert result.exit_code == 3 and "no CUDA device" in result.output and "--device cpu --small" in result.output
    assert not (tmp_path / "none.json").exists()


def test_rehearsal(rehearsed):
    content = rehearsed(*CHEAP)
    figures = content["figures"]
    assert figures["failed_parts"] == 0 and "rehearsal" in content["settings"]["environment"]["device"]
    assert figures["agreement_ace"] == figures["agreement_gradient-gp"] == 0.0  # both are this CPU
    assert figures["many_force_rows"] == 540 and figures["many_ace_force_mae"] > 0
    assert figures["many_inducing_force_mae"] > 0


@pytest.mark.slow
def test_rehearsal_of_all_parts(rehearsed, study):
    content = rehearsed()
    assert content["figures"]["failed_parts"] == 0, content["notes"]
    for name in study("potentials_gpu").TARGETS:
        assert name in content["figures"]


def test_a_part_that_fails_is_told_and_the_others_go_on(rehearsed, study, monkeypatch):
    def broken(found, rows):
        raise RuntimeError("out of memory")

    monkeypatch.setitem(study("potentials_gpu").PARTS, "gaussian-process", broken)
    content = rehearsed("gaussian-process", "agreement-ace", code=1)
    assert content["figures"]["failed_parts"] == 1 and "agreement_ace" in content["figures"]
    assert any("gaussian-process failed" in note and "out of memory" in note for note in content["notes"])


def test_differences_are_relative_to_the_largest_value(study):
    gpu = study("potentials_gpu")
    first = torch.tensor([1.0, -100.0])
    assert gpu.relative(first, first + torch.tensor([0.0, 1.0])) == pytest.approx(0.01)
    with pytest.raises(DataError, match="--part"):
        gpu.chosen_parts(["everything"])
    assert gpu.chosen_parts(None) == list(gpu.PARTS)


def test_times_of_a_process_add_up(study):
    gpu = study("potentials_gpu")
    found, rows = Study("potentials", "gpu"), gpu.Rows(_frames(), "cpu", gpu.SMALL, 0)
    gpu.gaussian_process(found, rows)
    assert found.figures["gp_rows"].value == 110
    assert found.figures["gp_speedup"].value == 1.0  # the same turn on both sides


def _frames():
    from bayesmol.data import load

    return load("rmd17/ethanol")
