"""The commands of the study: they teach and refuse what is missing."""

import pytest
from typer.testing import CliRunner


@pytest.fixture
def command(study):
    return lambda *words: CliRunner().invoke(study("wavefunctions").app, list(words))


@pytest.mark.parametrize("name", ["energy", "exact", "coverage", "curve", "peers"])
def test_help(command, name):
    found = command(name, "--help")
    assert found.exit_code == 0
    assert "--json" in found.output


def test_unknown_systems_are_named(command):
    found = command("energy", "--system", "Unobtainium")
    assert found.exit_code != 0
    assert "Unobtainium" in str(found.exception) + found.output
