import errno
import os
import subprocess
import sys

import pytest

from bayesmol import files
from bayesmol.errors import WriteError
from bayesmol.files import extending, made, replacing, writing


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with replacing(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
        assert temporary.parent == tmp_path and path.read_text(encoding="utf-8") == "old"
    assert path.read_text(encoding="utf-8") == "new" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_alone(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError("disk full")

    path = tmp_path / "a.txt"
    path.write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise ZeroDivisionError
    monkeypatch.setattr(files.os, "replace", fails)
    with pytest.raises(OSError, match="disk full"), replacing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_have_names_of_their_own(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first", encoding="utf-8")
        second.write_text("second", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "first", "the last to end"


def abandoned(path, process):
    rest = path.with_name(f".{path.name}.{files._machine()}.{process}.0123456789abcdef.tmp")
    rest.write_text("half", encoding="utf-8")
    return rest


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = tmp_path / "a[1].txt"
    dead, alive, other = (
        abandoned(path, process.pid),
        abandoned(path, os.getppid()),
        abandoned(tmp_path / "b", process.pid),
    )
    with replacing(path) as temporary:
        temporary.write_text("new", encoding="utf-8")
    assert not dead.exists() and alive.exists() and other.exists() and path.read_text(encoding="utf-8") == "new"


def test_a_file_that_is_extended_is_cut_where_it_counted(tmp_path):
    path = tmp_path / "a"
    with extending(path, 0) as file:
        file.write(b"first")
    path.write_bytes(b"first and half of an")
    with pytest.raises(ZeroDivisionError), extending(path, 5) as file:
        file.write(b" second")
        file.flush()
        raise ZeroDivisionError
    assert path.read_bytes() == b"first"
    with extending(path, 5) as file:
        file.write(b" third")
    assert path.read_bytes() == b"first third"


def test_errors_name_the_path_and_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match=r"file/folder: expected to write it, got Not a directory; name a file in"):
        made(tmp_path / "file" / "folder")
    with pytest.raises(WriteError, match="missing/a: expected to write it, got No such file"):
        with replacing(tmp_path / "missing" / "a") as temporary:
            temporary.touch()
    with pytest.raises(WriteError, match=r"file: expected to write it, got .*; free space") as caught:
        with writing(tmp_path / "file"):
            raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC and isinstance(caught.value, OSError)
    assert made(tmp_path / "new" / "folder").is_dir()
