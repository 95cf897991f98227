import pytest
import typer
from typer.testing import CliRunner

from bayesmol.errors import DataError
from bayesmol.options import COMMON, Commands, check_output, commands


def test_a_command_gets_the_common_options_and_its_docstring_as_help():
    app = typer.Typer(cls=Commands)

    @commands(app)("Next: nothing")
    def count(study, size: int = 3):
        """Count up to a size."""
        study.add("size", size)
        return study

    @app.command()
    def other():
        """So that the first is a command of its own."""

    told = CliRunner().invoke(app, ["count", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert "Count up to a size." in told.output and "Next: nothing" in told.output
    assert all(f"--{name}" in told.output for name in COMMON)
    ran = CliRunner().invoke(app, ["count", "--size", "5", "--json", "-"])
    assert '"size": 5' in ran.stdout


def test_output_that_cannot_be_written_or_would_replace_is_refused(tmp_path):
    check_output("--out", tmp_path / "new.bm")
    (tmp_path / "old.bm").write_text("worth keeping")
    with pytest.raises(DataError, match="--force"):
        check_output("--out", tmp_path / "old.bm")
    check_output("--out", tmp_path / "old.bm", force=True)
    with pytest.raises(DataError, match="folder"):
        check_output("--out", tmp_path / "none" / "x.bm")
    (tmp_path / "run.json").write_text('{"study": "bayesmol"}')
    check_output("--json", tmp_path / "run.json")
