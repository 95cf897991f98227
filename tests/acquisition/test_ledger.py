import json
import math
import subprocess
import sys

import pytest

from bayesmol.acquisition.ledger import Ledger
from bayesmol.errors import DataError, FormatError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "ledger.jsonl"


def test_what_is_appended_is_read_back_to_the_last_bit(path):
    numbers = [0.1 + 0.2, math.pi, 5e-324, -0.0, 1e308]
    with Ledger(path) as ledger:
        ledger.append("label", numbers=numbers, text="Å")
        ledger.append("stop", reason="budget")
    with Ledger(path) as ledger:
        assert ledger.of("label")[0]["numbers"] == numbers
        assert math.copysign(1, ledger.of("label")[0]["numbers"][3]) == -1
        assert [entry["kind"] for entry in ledger.entries] == ["label", "stop"]


def test_an_unfinished_line_is_removed(path):
    with Ledger(path) as ledger:
        ledger.append("a", n=1)
        ledger.append("b", n=2)
    whole = path.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second, len(whole)):
        path.write_bytes(whole[:end])
        with Ledger(path) as ledger:
            assert len(ledger.entries) == 1
        assert path.read_bytes() == whole[:second]
    with Ledger(path) as ledger:
        ledger.append("b", n=2)
    assert path.read_bytes() == whole


@pytest.mark.parametrize("change", [lambda lines: lines[1:], lambda lines: [lines[0].replace(b"1", b"3"), *lines[1:]]])
def test_a_changed_ledger_is_refused(path, change):
    with Ledger(path) as ledger:
        for n in (1, 2, 3):
            ledger.append("a", n=n)
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
    with pytest.raises(FormatError, match="as it was written"), Ledger(path):
        pass


@pytest.mark.parametrize("line", [b"nonsense\n", b"[1]\n", b'{"kind": "a"}\n', b"[" * 100_000 + b"\n", b"\xff\xfe\n"])
def test_nonsense_is_refused(path, line):
    path.parent.mkdir()
    path.write_bytes(line)
    with pytest.raises(FormatError, match="line 1"), Ledger(path):
        pass


def test_numbers_that_are_none_are_refused(path):
    with Ledger(path) as ledger:
        with pytest.raises(ValueError, match="JSON"):
            ledger.append("a", n=math.nan)
        assert ledger.entries == []
    assert not path.exists()


def test_one_process_at_a_time(path):
    code = f"from bayesmol.acquisition.ledger import Ledger\nwith Ledger({str(path)!r}): pass"
    with Ledger(path) as ledger:
        ledger.append("a", n=1)
        with pytest.raises(DataError, match="no other process"), Ledger(path):
            pass
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "no other process" in other.stderr
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_lines_are_json(path):
    with Ledger(path) as ledger:
        ledger.append("a", n=1)
    assert json.loads(path.read_text(encoding="utf-8"))["n"] == 1
