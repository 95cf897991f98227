"""A run goes back where a check found an error or the reference failed, and a kill at any point changes nothing."""

import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bayesmol.acquisition.learner import largest_force_error
from bayesmol.acquisition.ledger import Ledger
from bayesmol.acquisition.on_the_fly import Verlet
from bayesmol.acquisition.trace import MISSED
from bayesmol.errors import ApplicabilityError

from .test_on_the_fly import SPEC, Morse, water


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return SPEC.run(folder, water(), 46, seed=1), folder


SCRIPT = """
import os, signal, sys
sys.path.insert(0, {folder!r})
import tests.acquisition.test_on_the_fly as t
from bayesmol.acquisition.ledger import Ledger
keep, count = Ledger.append, [0]
def append(self, kind, **content):
    count[0] += 1
    if count[0] == {kill}:
        os.kill(os.getpid(), signal.SIGKILL)
    return keep(self, kind, **content)
Ledger.append = append
t.SPEC.run({target!r}, t.water(), 46, seed=1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kill", [2, 9, 31])
def test_a_kill_changes_nothing(run, tmp_path, kill):
    learned, folder = run
    script = SCRIPT.format(folder=str(Path(__file__).parents[2]), kill=kill, target=str(tmp_path / "killed"))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    again = SPEC.run(tmp_path / "killed", water(), 46, seed=1)
    assert (tmp_path / "killed" / "ledger.jsonl").read_bytes() == (folder / "ledger.jsonl").read_bytes()
    assert torch.equal(again.trace.positions, learned.trace.positions)
    assert torch.equal(again.model.predict(again.labels).forces.mean, learned.model.predict(again.labels).forces.mean)


def test_a_finished_run_is_read_back(run):
    learned, folder = run
    again = SPEC.run(folder, water(), 46, seed=1)
    assert torch.equal(again.trace.positions, learned.trace.positions) and again.calls == learned.calls
    assert again.labels.fingerprint == learned.labels.fingerprint
    np.testing.assert_array_equal(again.atoms.get_momenta(), learned.atoms.get_momenta())


def test_a_wrong_accepted_step_is_taken_back(tmp_path, monkeypatch):
    """Checks that find an error above the tolerance, here invented ones, take the last steps back."""
    spec, calls = replace(SPEC, audit=0.3, rewind=3, dynamics=Verlet(0.5)), []

    def invented(prediction, truth):
        calls.append(largest_force_error(prediction, truth))
        return 1.0 if len(calls) in (30, 31) else calls[-1]

    monkeypatch.setattr("bayesmol.acquisition.learner.largest_force_error", invented)
    learned = spec.run(tmp_path / "a", water(), 60, seed=0)
    with Ledger(tmp_path / "a" / "ledger.jsonl") as ledger:
        back, exceeded = ledger.of("back"), [e for e in ledger.of("label") if e["purpose"] == MISSED]
    assert len(exceeded) == learned.audits.exceeded == len(back) >= 1
    assert all(1 <= entry["by"] <= 4 for entry in back)
    assert not bool((learned.trace.kind == MISSED).any()) and len(learned.trace) == 60


def test_failures_are_recorded_and_not_learned(tmp_path):
    """Two atoms fly apart until the reference fails: it is asked again elsewhere, and in the end the run says so."""
    atoms = water()
    atoms.set_momenta([[0, 0, 0], [0, 3.0, 0], [0, -3.0, 0]])
    spec = replace(SPEC, reference=Morse(reach=2.2), dynamics=Verlet(0.5), rewind=2)
    with pytest.raises(ApplicabilityError, match=r"failure upon failure, the last: .*too long"):
        spec.run(tmp_path / "a", atoms, 400, seed=0)
    with Ledger(tmp_path / "a" / "ledger.jsonl") as ledger:
        assert len(ledger.of("failure")) >= 2 and "too long" in ledger.of("failure")[0]["reason"]
        assert len(ledger.of("back")) >= 1
