"""The commands of the studies exist, teach, and call what they are about."""

import json

import pytest
from typer.testing import CliRunner

from bayesmol.errors import DataError


@pytest.fixture
def app(study):
    return study("potentials").app


@pytest.mark.parametrize("command", ["md-soak", "foundation", "posteriors", "tabulate", "crossover"])
def test_help_teaches(app, command):
    found = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0 and "Example: " in found.output and "--json" in found.output


def test_a_foundation_needs_frames_to_be_certified_with(app):
    names = ["--train", "rmd17/ethanol/train", "--test", "rmd17/ethanol/test", "--calibration-size", "0"]
    result = CliRunner().invoke(app, ["foundation", "--base", "GFN2-xTB", *names, "--train-size", "4"])
    assert isinstance(result.exception, DataError) and "--calibration-size" in str(result.exception)


@pytest.mark.slow
def test_md_soak(app, tmp_path):
    sizes = ["--train-size", "10", "--validation-size", "4", "--calibration-size", "160"]
    short = ["--replicas", "2", "--steps", "20", "--picoseconds", "0", "--draws", "0"]
    out = tmp_path / "soak.json"
    result = CliRunner().invoke(app, ["md-soak", "--model", "gradient-gp", *sizes, *short, "--json", str(out)])
    assert result.exit_code == 0, (result.output, result.exception)
    content = json.loads(out.read_text())
    assert content["figures"]["steps_of_all_replicas"] == 40 and content["targets"]["failures"] == [None, 0.0]


@pytest.mark.slow
def test_crossover(app, tmp_path):
    out = tmp_path / "crossover.json"
    sizes = [text for size in (8, 16) for text in ("--size", str(size))]
    models = ["--model", "gradient-gp", "--model", "schnet"]
    options = ["--seeds", "2", "--test-size", "20", "--json", str(out)]
    result = CliRunner().invoke(app, ["crossover", *models, *sizes, *options])
    assert result.exit_code == 0, (result.output, result.exception)
    assert json.loads(out.read_text())["figures"]["force_mae_gradient-gp_16"] > 0
