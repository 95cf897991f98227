"""The studies are scripts: their folder is on the path while a test runs."""

import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture
def study(monkeypatch):
    """Import a script of the folder by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = {path.stem for path in FOLDER.glob("*.py")}
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)
