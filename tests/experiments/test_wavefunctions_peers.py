"""Figures of DeepQMC come from the events that it wrote, or are missing."""

import pytest

from bayesmol.errors import DataError


@pytest.fixture
def module(study):
    return study("wavefunctions_peers")


def test_figures_from_events(module):
    steps = range(100)
    events = {
        "local_energy/mean/0/0": [[50.0 + k, -8.0 - 0.001 * k] for k in steps],
        "local_energy/std/0/0": [[50.0 + k, 0.4 if k >= 90 else 2.0] for k in steps],
        "local_energy/max/0/0": [[50.0, 1.0]],
    }
    found = module.read(events, 10.0)
    assert found["energy_hartree"] == pytest.approx(-8.0945)
    assert found["variance"] == pytest.approx(0.16)
    assert found["iterations"] == 100
    assert found["seconds_to_first_iteration"] == 40


def test_a_run_without_energies_is_refused(module):
    with pytest.raises(DataError, match="local_energy/mean"):
        module.read({"psi/log": [[0.0, 1.0]]}, 0.0)


def test_the_command_names_system_and_seed(module, tmp_path):
    words = module.command(tmp_path / "deepqmc", "LiH", tmp_path, 3)
    assert {"hamil/mol=LiH", "task.seed=3", "hydra/job_logging=default"} <= set(words)


def test_missing_is_said_and_nothing_stands_in(module, monkeypatch):
    from types import SimpleNamespace

    from bayesmol.report import Study

    variance = SimpleNamespace(value=0.01)
    judged = SimpleNamespace(energy=SimpleNamespace(variance=variance))
    monkeypatch.setattr(module, "energy", lambda *words, **options: judged)
    study = Study("wavefunctions", "peers LiH")
    module.peers(study, "LiH", minutes=1.0, deepqmc=None)
    assert "ratio_to_deepqmc" not in study.figures
    assert any("missing" in note for note in study.notes)
    assert any("not in this run" in note for note in study.notes)


def test_the_ratio_is_theirs_over_ours(module, monkeypatch, tmp_path):
    from types import SimpleNamespace

    from bayesmol.report import Study

    judged = SimpleNamespace(energy=SimpleNamespace(variance=SimpleNamespace(value=0.01)))
    monkeypatch.setattr(module, "energy", lambda *words, **options: judged)
    monkeypatch.setattr(module, "_run", lambda *words: {"variance": 0.2, "energy_hartree": -8.06})
    study = Study("wavefunctions", "peers LiH")
    module.peers(study, "LiH", minutes=1.0, deepqmc=tmp_path / "deepqmc")
    assert study.figures["ratio_to_deepqmc"].value == pytest.approx(20)
