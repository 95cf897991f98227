import pytest

from bayesmol.errors import DependencyError
from bayesmol.optional import optional


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A function that puts a library of this content where Python looks for libraries."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def put(name, files):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text, encoding="utf-8")

    return put


def test_what_is_there_is_imported(library):
    library("whole_library", {"__init__.py": "", "part.py": "number = 3"})
    assert optional("whole_library.part", "md").number == 3
    assert optional("math").pi > 3


def test_what_is_missing_names_the_extra():
    with pytest.raises(DependencyError, match=r"none_such: expected .*got none; pip install 'bayesmol\[md\]'"):
        optional("none_such.part", "md")


@pytest.mark.parametrize(
    ("name", "files", "got"),
    [
        ("empty_library", {}, "a folder without it"),
        ("cut_library", {"__init__.py": "def f(:"}, "does not start .SyntaxError"),
        ("broken_library", {"__init__.py": "import json\njson.no_such_name"}, "does not start .AttributeError"),
        ("partial_library", {"__init__.py": "from json import no_such_name"}, "does not start .ImportError"),
    ],
)
def test_half_an_installation_is_named_with_the_way_out(library, name, files, got):
    library(name, files)
    with pytest.raises(DependencyError, match=rf"{got}.*; pip uninstall {name}, then pip install 'bayesmol\[all\]'"):
        optional(name, "all")
