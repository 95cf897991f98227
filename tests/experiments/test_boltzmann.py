"""The commands of the study: they teach, refuse what is missing, and one runs to its figures."""

import json

import pytest
from typer.testing import CliRunner


@pytest.fixture
def command(study):
    return lambda *words: CliRunner().invoke(study("boltzmann").app, list(words))


@pytest.mark.parametrize("name", ["train", "coverage", "transferable", "temperature", "speed", "peers"])
def test_help(command, name):
    found = command(name, "--help")
    assert found.exit_code == 0
    assert "--json" in found.output


def test_what_is_missing_is_named(command):
    found = command("train", "--target", "lj13")
    assert found.exit_code != 0
    assert "--data" in str(found.exception) + found.output


def test_a_brief_training_writes_its_figures(command, tmp_path):
    out = tmp_path / "out.json"
    found = command("train", "--target", "double-well", "--minutes", "0.02", "--draws", "2000", "--json", str(out))
    assert found.exit_code == 0, found.output
    wanted = {"ess_fraction", "forward_ess_fraction", "k_hat", "virial_z", "verdict", "energy_evaluations"}
    assert wanted <= set(json.loads(out.read_text())["figures"])
