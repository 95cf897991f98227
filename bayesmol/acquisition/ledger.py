"""Ledger: what happened, line by line, in a file that is only ever appended to."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from bayesmol.errors import DataError, FormatError, expected
from bayesmol.files import extending, made, writing

__all__ = ["Ledger"]

_START = "0" * 64


class Ledger:
    """Entries in a file of JSON lines, each with the SHA-256 of itself and all before: ``with Ledger(path) as ledger``.

    An entry is on the disk before :meth:`append` returns. A last line that a killed process left unfinished is
    removed; a line that was changed, or is missing elsewhere, is an error. One process at a time may hold a ledger.

    Parameters
    ----------
    path
        The file; made with its folder where there is none.

    Raises
    ------
    DataError
        If another process holds it.
    FormatError
        If a line is not what was written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.entries: list[dict[str, Any]] = []
        self._size = 0

    def __enter__(self) -> Ledger:
        from filelock import FileLock, Timeout

        made(self.path.parent)
        self._lock = FileLock(self.path.with_suffix(".lock"))
        with writing(self.path):
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                remedy = "wait for it, or use another folder"
                raise DataError(expected("path", "a ledger that no other process holds", self.path, remedy)) from error
        try:
            self.entries = self._read()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def append(self, kind: str, **content: Any) -> dict[str, Any]:
        """Write one more entry; numbers are kept to the last bit."""
        entry = json.loads(json.dumps({"kind": kind, **content}, allow_nan=False))
        line = (json.dumps({**entry, "sha256": _digest(self._last, entry)}, ensure_ascii=False) + "\n").encode()
        with extending(self.path, self._size) as file:
            file.write(line)
        self._size += len(line)
        self.entries.append(json.loads(line))
        return entry

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Entries of one kind, oldest first."""
        return [entry for entry in self.entries if entry["kind"] == kind]

    @property
    def _last(self) -> str:
        return self.entries[-1]["sha256"] if self.entries else _START

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        data = self.path.read_bytes()
        whole = self._size = data.rfind(b"\n") + 1
        if whole < len(data):
            os.truncate(self.path, whole)
        entries, last = [], _START
        for number, line in enumerate(data[:whole].splitlines(), 1):
            entry = _entry(line, number)
            if entry["sha256"] != _digest(last, {key: value for key, value in entry.items() if key != "sha256"}):
                remedy = "restore the file from a copy"
                raise FormatError(expected(f"line {number} of {self.path}", "as it was written", "a change", remedy))
            entries.append(entry)
            last = entry["sha256"]
        return entries


def _entry(line: bytes, number: int) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(expected(f"line {number}", "one JSON object", f"no JSON ({error})")) from error
    if not isinstance(entry, dict) or not {"kind", "sha256"} <= entry.keys():
        raise FormatError(expected(f"line {number}", "an object with kind and sha256", str(entry)[:80]))
    return entry


def _digest(last: str, entry: dict[str, Any]) -> str:
    return hashlib.sha256((last + json.dumps(entry, sort_keys=True)).encode()).hexdigest()
