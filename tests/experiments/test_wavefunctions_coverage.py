"""The study of coverage counts what it says, and stuck samplers are what they are called."""

from types import SimpleNamespace

import pytest
import torch

from bayesmol.report import Study


class Fitted:
    """A wavefunction after training, as far as the study looks."""

    parameters = "trained"
    trial = SimpleNamespace(log_psi=None)


@pytest.fixture
def module(study):
    return study("wavefunctions_coverage")


def test_sound_and_stuck(module):
    study = Study("wavefunctions", "coverage")
    module.coverage(study, repeats=8, walkers=32, draws=200, only=("screened_helium", "frozen_walkers"), seed=0)
    value = {name: figure.value for name, figure in study.figures.items()}
    assert value["coverage_95"] == value["coverage_95_screened_helium"] >= 0.6
    assert value["refused_fraction_sound"] <= 0.25
    assert 0.4 < value["relative_width"] < 3
    assert value["refused_fraction_stuck"] == value["refused_fraction_frozen_walkers"] == 1


def test_a_trained_wavefunction_has_its_steps_and_nothing_else_ends_it(module, monkeypatch):
    seen = []
    monkeypatch.setattr(
        module.PauliNet, "fit", lambda ansatz, molecule, *, seed: seen.append((ansatz, seed)) or Fitted()
    )
    assert module._case("H2", 3, 7).parameters == "trained"
    training = seen[0][0].training
    assert seen[0][1] == 7
    assert (training.steps, training.minutes, training.window) == (3, None, None)


def test_moves_that_are_too_short_go_nowhere(module):
    energy = next(iter(module._stuck("short_moves", 2, 16, 60, 0)))
    assert energy.acceptance > 0.99
    assert float(energy.local.std(1).mean()) < 0.2 * float(energy.local.mean(1).std())


def test_walkers_stay_in_two_regions(module):
    energy = next(iter(module._stuck("two_regions", 2, 16, 100, 0)))
    means = energy.potential.mean(1)
    ionic, covalent = means[::2], means[1::2]
    assert abs(float(ionic.mean() - covalent.mean())) > 5 * float(torch.maximum(ionic.std(), covalent.std())) / 4
