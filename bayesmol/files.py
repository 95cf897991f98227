"""Files that appear complete or not at all, and what to do where they cannot be written."""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import platform
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from bayesmol.errors import WriteError, expected

__all__ = ["extending", "made", "replacing", "writing"]

_SPACE = "free space on this disk, or name a place on another one"
_PLACE = "name a file in a folder that exists and can be written"
_REMEDIES = {errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EFBIG: "raise the limit (ulimit -f), or " + _PLACE}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses within the block is an error that names ``path`` and the remedy.

    Raises
    ------
    WriteError
        In place of any other :class:`OSError`.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        number = error.errno or 0
        text = expected(str(path), "to write it", error.strerror or error, _REMEDIES.get(number, _PLACE))
        raise WriteError(number, text) from error


def made(folder: Path) -> Path:
    """The folder, made with all above it where there is none.

    Raises
    ------
    WriteError
        If the system refuses.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path`` that takes its place at the end, on the disk, or vanishes on an error.

    The name differs between threads, processes, and machines that share the folder, which must exist. What a process
    that was killed left under such a name is removed by the next one on its machine that writes ``path``.

    Raises
    ------
    WriteError
        If the system refuses; the file that was there before is whole.
    """
    with writing(path):
        _remove_abandoned(path)
        temporary = path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.{uuid.uuid4().hex[:16]}.tmp")
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def extending(path: Path, size: int) -> Iterator[BinaryIO]:
    """A file, made where there is none, to be written on from byte ``size``; on the disk at the end.

    What lies beyond ``size`` is of a write that did not end, and is removed, as is what this one writes on an error.

    Raises
    ------
    WriteError
        If the system refuses; the first ``size`` bytes are whole.
    """
    with writing(path):
        path.touch()
        os.truncate(path, size)
        try:
            with path.open("ab") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                os.truncate(path, size)
            raise


def _remove_abandoned(path: Path) -> None:
    """Remove what processes that are no more have left of ``path``."""
    for rest in path.parent.glob(f".{glob.escape(path.name)}.{_machine()}.*.tmp"):
        process = rest.name.split(".")[-3]
        if process.isdigit() and not _alive(int(process)):
            rest.unlink(missing_ok=True)


@cache
def _machine() -> str:
    """Names what a process number is unique in: this machine, or this container."""
    with suppress(OSError):
        return hashlib.sha256((platform.node() + os.readlink("/proc/self/ns/pid")).encode()).hexdigest()[:8]
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _alive(process: int) -> bool:
    """Whether there is such a process; where that cannot be asked, there may be."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
