"""Processes that are killed at a chosen moment of their writing, or by the clock."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["answer", "killed_in_time", "killed_writing"]

sys.path.insert(0, str(Path(__file__).parents[2]))  # other processes import the functions of the tests by their names

# A process that has computed nothing is forked: it has neither threads nor locks, and the package is there already.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "pytest",
        "ase.build",
        "bayesmol.cli",
        "bayesmol.acquisition.campaign",
        "bayesmol.acquisition.on_the_fly_run",
        "bayesmol.flows.flow_matching",
        "bayesmol.flows.generator",
        "bayesmol.potentials.gradient_posterior",
        "bayesmol.potentials.neural",
    ]
)


def answer(function: Callable[..., Any], *arguments: Any) -> Any:
    """What ``function`` returns in a process of its own."""
    here, there = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_answered, args=(there, function, arguments))
    process.start()
    there.close()
    try:
        return here.recv()
    finally:
        process.join()


def _answered(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pipe.send(function(*arguments))


def killed_writing(function: Callable[..., Any], *arguments: Any, write: int, cut: int) -> None:
    """Run ``function`` in a process that dies when it brings its write number ``write`` to the disk.

    ``cut`` bytes of what it writes are missing then; a file that is to be replaced has still its temporary name.
    """
    process = CONTEXT.Process(target=_doomed, args=(function, arguments, write, cut))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL, f"it should be killed, and ends with {process.exitcode}"


def _doomed(function: Callable[..., Any], arguments: tuple[Any, ...], write: int, cut: int) -> None:
    fsync, count = os.fsync, 0

    def dying(file: int) -> None:
        nonlocal count
        count += 1
        if count == write:
            os.ftruncate(file, max(0, os.fstat(file).st_size - cut))
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(file)

    os.fsync = dying
    function(*arguments)


def killed_in_time(function: Callable[..., Any], *arguments: Any, seconds: float) -> bool:
    """Run ``function`` in a process that is killed after so many seconds; whether it ended before."""
    process = CONTEXT.Process(target=function, args=arguments)
    process.start()
    process.join(seconds)
    process.kill()  # nothing, if it has ended
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), "it ends, or is killed, and does not fail"
    return process.exitcode == 0
