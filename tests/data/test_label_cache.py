"""Cached labels: identical to the first run, never of other settings, never of a damaged file."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from bayesmol.data import Structures
from bayesmol.data.label_cache import Cached
from bayesmol.data.labelled import Source
from bayesmol.data.labelling import Reference, Result

CALLS = []


@dataclass(frozen=True)
class Counted(Reference):
    """Irrational numbers; every calculation is counted; argon fails, and xenon stops the program."""

    factor: float = 1.0
    forces: bool = True

    library: ClassVar[str] = "numpy"

    @property
    def source(self) -> Source:
        return Source("counted", "", "", "")

    def calculation(self) -> Callable:
        def calculate(frame) -> Result:
            CALLS.append(frame)
            if frame.numbers[0] == 18:
                raise ValueError("no argon")
            if frame.numbers[0] == 54:
                raise KeyboardInterrupt
            forces = np.sin(self.factor * frame.positions) / 3 if self.forces else None
            return Result(float(np.cos(self.factor * frame.positions).sum() / 7), forces, None, 0.1, None)

        return calculate


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


def atom(number, place):
    zeros = torch.zeros(1, 3, 3, dtype=torch.float64)
    position = torch.full((1, 3), float(place), dtype=torch.float64)
    return Structures(position, torch.tensor([number]), torch.tensor([0, 1]), zeros, torch.zeros(1, 3).bool())


def batch(*numbers):
    return Structures.concatenate([atom(number, place) for place, number in enumerate(numbers)])


def same(first, second):
    assert first.failures == second.failures and first.hashes == second.hashes
    assert torch.equal(first.succeeded, second.succeeded)
    assert first.labelled.fingerprint == second.labelled.fingerprint


@pytest.mark.parametrize("forces", [True, False])
def test_a_second_run_reads_the_same_to_the_last_bit(tmp_path, forces):
    reference = Counted(forces=forces)
    cached = Cached(reference, tmp_path)
    first = cached.label(batch(1, 18, 6))
    assert len(CALLS) == 3
    same(cached.label(batch(1, 18, 6)), first)
    assert len(CALLS) == 3, "failures are kept too"
    same(reference.label(batch(1, 18, 6)), first)
    assert cached.fingerprint == reference.fingerprint and cached.settings == reference.settings


def test_only_what_is_missing_is_calculated(tmp_path):
    cached = Cached(Counted(), str(tmp_path / "made" / "when needed"))
    cached.label(batch(1, 6))
    mixed = Structures.concatenate([batch(1, 6, 8), batch(1, 6, 8)])
    labels = cached.label(mixed)
    assert len(CALLS) == 3, "copies are calculated once"
    same(labels, Counted().label(mixed))


def test_other_settings_do_not_answer(tmp_path):
    Cached(Counted(), tmp_path).label(batch(1))
    assert Cached(Counted(2.0), tmp_path).label(batch(1, 1)).labelled.energies[1] == np.cos(2.0) * 3 / 7
    assert len(CALLS) == 3


@pytest.mark.parametrize("damage", ["", "{}", "[1]", '{"label": "x"', "\udcff", "number", "name"])
def test_a_damaged_file_is_calculated_anew(tmp_path, damage):
    cached = Cached(Counted(), tmp_path)
    first = cached.label(batch(1, 6))
    paths = sorted(tmp_path.rglob("*.json"))
    content = json.loads(paths[0].read_text())
    if damage == "number":
        content["result"]["energy"] += 1e-9
        damage = json.dumps(content)
    elif damage == "name":
        damage = paths[1].read_text()
    paths[0].write_bytes(damage.encode(errors="surrogateescape"))
    with pytest.warns(UserWarning, match=r"calculated anew"):
        again = cached.label(batch(1, 6))
    same(again, first)
    assert len(CALLS) == 3
    same(cached.label(batch(1, 6)), first)


def test_a_run_that_is_killed_keeps_what_it_had(tmp_path):
    cached = Cached(Counted(), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cached.label(batch(1, 6, 54, 8))
    assert len(list(tmp_path.rglob("*.json"))) == 2
    assert not list(tmp_path.rglob("*.tmp"))
    CALLS.clear()
    cached.label(batch(1, 6))
    assert not CALLS


def test_what_was_calculated_is_handed_on(tmp_path):
    cached, seen = Cached(Counted(), tmp_path), {}
    cached.label(batch(1))
    cached.results(batch(1, 6, 8), seen.__setitem__)
    assert list(seen) == [1, 2]


def _label(folder):
    Cached(Counted(), folder).label(batch(*range(1, 17)))


def test_two_processes_share_a_folder(tmp_path):
    root = Path(__file__).parents[2]
    code = f"from pathlib import Path\nfrom tests.data.test_label_cache import _label\n_label(Path({str(tmp_path)!r}))"
    processes = [subprocess.Popen([sys.executable, "-c", code], cwd=root) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    cached = Cached(Counted(), tmp_path)
    same(cached.label(batch(*range(1, 17))), Counted().label(batch(*range(1, 17))))
    assert len(CALLS) == 16, "all were in the folder; these are of the bare reference"
    assert len(list(tmp_path.rglob("*"))) == 16 + len({p.parent for p in tmp_path.rglob("*.json")})
