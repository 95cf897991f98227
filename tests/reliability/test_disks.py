"""A disk that is full or may not be written: the old file is whole, nothing is left, and the error says what to do."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from typer.testing import CliRunner

import bayesmol as bm
from bayesmol import judging, sampling
from bayesmol.acquisition.ledger import Ledger
from bayesmol.acquisition.trace import TraceFile
from bayesmol.checkpoints import write_checkpoint
from bayesmol.data.label_cache import Cached
from bayesmol.errors import WriteError
from bayesmol.report import Study, write_text

from ..acquisition.conftest import TINY, Springs
from ..acquisition.test_campaign import campaign, decisions
from ..data.test_label_cache import Counted, batch
from ..test_sampling import water

NUMPY = {"a": np.arange(500.0)}
NOBODY = 65534


@contextmanager
def limited(size: int) -> Iterator[None]:
    """No file gets longer than ``size`` bytes: the system refuses to write on in the middle of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def nobody() -> Iterator[None]:
    """Not the user who may write everywhere."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.fixture(scope="module")
def model():
    return TINY.fit(bm.data.load("rmd17/ethanol")[:8], seed=0)


@pytest.fixture
def open_folder():
    """A folder that other users can look into, as those of pytest are not."""
    with TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def model_file(path: Path, model: Any) -> None:
    bm.save(model, path)


def checkpoint(path: Path, model: Any) -> None:
    write_checkpoint(path, {"molecule": "He"}, {"steps": 1}, NUMPY)


def draws(path: Path, model: Any) -> None:
    sampling._savez(path, NUMPY)


def force_field(path: Path, model: Any) -> None:
    water().write(path)


def page(path: Path, model: Any) -> None:
    write_text(path, "<html>" + 99 * "text ")


def figures_as_json(path: Path, model: Any) -> None:
    Study("bayesmol", "fit", {"seed": 0}, console=Console(quiet=True)).finish(path)


def plot(path: Path, model: Any) -> None:
    study = Study("bayesmol", "evaluate", {"seed": 0})
    judging._save(study, SimpleNamespace(plot=lambda: Figure(figsize=(1, 1))), path)


@cache
def three() -> Any:
    """Read once, by a user who may read it."""
    return bm.data.load("rmd17/ethanol")[:3]


def structures(path: Path, model: Any) -> None:
    bm.data.write(path, three())


def label(path: Path, model: Any) -> None:
    """A label is named by what it answers; here it has the name ``path``."""
    cached = Cached(Counted(), path.parent)
    object.__setattr__(cached, "_path", lambda name: path)
    cached._write("name", Counted().results(batch(1))[0])


WRITERS = [model_file, checkpoint, draws, force_field, page, figures_as_json, plot, structures, label]


def refused(write: Callable[..., None], path: Path, model: Any, remedy: str) -> None:
    """The error names the path and what to do."""
    with pytest.raises(WriteError) as caught:
        write(path, model)
    text = str(caught.value)
    assert str(path) in text and remedy in text and "expected to write it" in text, text


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_where_a_file_cannot_be_written_the_old_one_is_whole(write, model, open_folder, monkeypatch):
    path = open_folder / "file"
    write(path, model)
    size = path.stat().st_size
    path.write_bytes(b"what was there before")
    with limited(size // 2):
        refused(write, path, model, "ulimit")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _full)
        refused(write, path, model, "free space")
    path.parent.chmod(0o555)
    with nobody():
        refused(write, path, model, "can be written")
    assert path.read_bytes() == b"what was there before"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"], "nothing half-written stays"
    path.parent.chmod(0o755)
    write(path, model)
    assert path.stat().st_size == pytest.approx(size, abs=60), "and with space again it is written"


def _full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of a megabyte, where one may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here; limits of the system stand for it in the other tests")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize("left", [0, 4096])
def test_on_a_disk_that_is_full_the_old_file_is_whole(write, left, model, tiny_disk):
    path = tiny_disk / "file"
    write(path, model)
    size = path.stat().st_size
    path.write_bytes(b"what was there before")
    with (tiny_disk / "all the rest").open("wb") as file:
        file.truncate(0)
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(tiny_disk).free - left)
    if size > left:
        refused(write, path, model, "No space left on device; free space")
        assert path.read_bytes() == b"what was there before"
    assert {entry.name for entry in tiny_disk.iterdir()} == {"file", "all the rest"}, "nothing half-written stays"


@pytest.mark.parametrize("write", [model_file, page, plot, draws], ids=lambda write: write.__name__)
def test_a_file_in_place_of_a_folder_is_named(write, model, tmp_path):
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(WriteError, match=r"folder.*expected to write it, got .*can be written"):
        write(tmp_path / "folder" / "file", model)
    assert (tmp_path / "folder").read_text() == "a file"


def test_a_ledger_goes_on_after_the_disk_was_full(tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append("start", seed=1)
        size = path.stat().st_size
        with limited(size + 20), pytest.raises(WriteError, match=r"ledger\.jsonl.*ulimit"):
            ledger.append("label", index=3)
        with monkeypatch.context() as patch, pytest.raises(WriteError, match="free space"):
            patch.setattr(os, "fsync", _full)
            ledger.append("label", index=4)
        assert path.stat().st_size == size and len(ledger.entries) == 1
        ledger.append("label", index=5)
    with Ledger(path) as ledger:
        assert [entry.get("index") for entry in ledger.entries] == [None, 5]


def test_a_trace_goes_on_after_the_disk_was_full(tmp_path):
    trace = TraceFile(tmp_path / "trace.f64", 3)
    trace.append(np.arange(3.0))
    trace.flush()
    trace.append(np.arange(3.0) + 10)
    with limited(37), pytest.raises(WriteError, match=r"trace\.f64.*ulimit"):
        trace.flush()
    assert (tmp_path / "trace.f64").stat().st_size == 24
    trace.append(np.arange(3.0) + 20)
    trace.flush()
    assert trace.read()[:, 0].tolist() == [0, 10, 20]
    assert TraceFile(tmp_path / "trace.f64", 3, 3).read()[:, 2].tolist() == [2, 12, 22]


def test_a_campaign_goes_on_after_the_disk_was_full(tmp_path):
    settings = {"budget": 8, "holdout": 0, "reference": Springs()}
    campaign(tmp_path / "whole", **settings).run()
    size = (tmp_path / "whole" / "ledger.jsonl").stat().st_size
    with limited(int(0.6 * size)), pytest.raises(WriteError):
        campaign(tmp_path / "full", **settings).run()
    campaign(tmp_path / "full", **settings).run()
    assert decisions(tmp_path / "full") == decisions(tmp_path / "whole")


def test_a_command_says_in_one_line_that_the_disk_is_full(model, tmp_path):
    from bayesmol.cli import app

    bm.save(model, tmp_path / "model.bm")
    arguments = ["predict", str(tmp_path / "model.bm"), "rmd17/ethanol@:3", "--out", str(tmp_path / "out.extxyz")]
    with limited(500):
        found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 2
    (line,) = [line for line in found.output.splitlines() if "error:" in line]
    assert "out.extxyz: expected to write it, got File too large; raise the limit" in line
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.bm"]
