"""What a file of text must be before a reader may take it: whole at its end, and no larger than it is."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import BinaryIO

from bayesmol.errors import FormatError, expected

__all__ = ["check_end", "check_xyz"]

_PROPERTIES = re.compile(rb"properties=[\"']?(\S+)", re.IGNORECASE)
_AGAIN = "fetch it again"


def check_end(file: Path) -> None:
    """Refuse a file of text that was cut within its last line, which would be read as other numbers.

    Raises
    ------
    FormatError
        If the last line is shorter than the one before and has no end.
    """
    with file.open("rb") as content:
        content.seek(max(file.stat().st_size - 4096, 0))
        tail = content.read().splitlines(keepends=True)
    if len(tail) > 1 and not tail[-1].endswith(b"\n") and len(tail[-1]) < len(tail[-2].rstrip(b"\r\n")):
        remedy = "fetch it again, or end it with a newline if it is complete"
        raise FormatError(expected(str(file), "a complete last line", "a short one without newline", remedy))


def check_xyz(file: Path) -> None:
    """Refuse an xyz file whose frames say that they have more atoms or columns than there is text.

    ASE takes such a header at its word, and waits or fills the memory. All else that is wrong it notices itself.

    Raises
    ------
    FormatError
        If a frame says so, or as :func:`check_end`.
    """
    check_end(file)
    with file.open("rb") as content:
        for frame in itertools.count():
            if not _sound(content, file, frame):
                return


def _sound(content: BinaryIO, file: Path, frame: int) -> bool:
    """Whether there was a frame; the content is after it then."""
    head = content.readline()
    while head.lstrip().startswith(b"VEC"):
        head = content.readline()
    if not head.strip().isdigit():
        return False
    atoms, text = int(head.strip()[:20]), os.fstat(content.fileno()).st_size
    if atoms > text:
        raise FormatError(expected(f"frame {frame} of {file}", f"{atoms} atoms, as it says", f"{text} bytes", _AGAIN))
    columns, row = _columns(content.readline()), b""
    for place in range(atoms):
        row = content.readline()
        if not place and columns > len(row):
            got = f"{len(row)} bytes of the first atom"
            raise FormatError(expected(f"frame {frame} of {file}", f"{columns} columns, as it says", got, _AGAIN))
    return True


def _columns(comment: bytes) -> int:
    """How many an extended comment declares; none if it is plain."""
    found = _PROPERTIES.search(comment)
    return sum(int(count[:20]) for count in re.findall(rb":(\d+)", found[1])) if found else 0
