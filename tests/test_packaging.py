"""What the files beside the package say of it: extras, versions, pins."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

import bayesmol

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]


def libraries(extra: str) -> set[str]:
    """Names of the packages that an extra brings, through other extras too."""
    found = set()
    for entry in EXTRAS[extra]:
        nested = re.fullmatch(r"bayesmol\[([\w,]+)\]", entry)
        parts = [libraries(name) for name in nested[1].split(",")] if nested else [{re.match(r"[\w-]+", entry)[0]}]
        found = found.union(*parts)
    return found


@pytest.mark.parametrize(
    ("extra", "brings"),
    [
        ("quantum", {"pyscf"}),
        ("md", {"mdtraj", "openmm"}),
        ("acquisition", {"botorch"}),
        ("foundation", {"chgnet"}),
        ("cluster", {"dask", "distributed"}),
        ("docs", {"sphinx", "myst-nb"}),
    ],
)
def test_an_extra_brings_what_it_says(extra, brings):
    assert brings <= libraries(extra)


def test_all_has_all_but_those_of_developers():
    users = EXTRAS.keys() - {"all", "docs", "peers", "test"}
    assert libraries("all") == set().union(*map(libraries, users))


def test_an_error_about_a_missing_library_names_an_extra_that_brings_it():
    seen = 0
    for path in (ROOT / "bayesmol").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "optional" and len(node.args) > 1:
                module, extra = (ast.unparse(argument).removeprefix("f").strip("'") for argument in node.args)
                assert extra in EXTRAS and module.split(".")[0] in libraries(extra), path
                seen += 1
    assert seen > 5


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {bayesmol.__version__}\n" in citation
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_what_is_needed_is_pinned():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {line.split("==")[0] for line in lines if "==" in line}
    wanted = {re.match(r"[\w-]+", entry)[0] for entry in PROJECT["dependencies"]}
    wanted |= libraries("all") | libraries("test") | libraries("docs") | {"build", "hatchling", "mypy", "ruff", "tox"}
    assert wanted <= pinned, sorted(wanted - pinned)
