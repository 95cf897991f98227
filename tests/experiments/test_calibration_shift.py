"""Another distribution, drift and correlated streams on small made-up data."""

import pytest
import torch

from bayesmol.data import Labelled, Structures
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.report import Study


@pytest.fixture
def shift(study):
    return study("calibration_shift")


@pytest.fixture
def frames(shift, normal):
    """Frames of three atoms; the larger the strangeness, the more the model is overconfident."""

    def made(count, strangeness):
        size = (0.5 * normal(count) + strangeness).exp()
        atoms = size.repeat_interleave(3)[:, None].expand(-1, 3)
        pointer = torch.arange(0, 3 * count + 1, 3)
        line = torch.arange(3.0).double().repeat(count)[:, None].expand(-1, 3).contiguous()
        cell, pbc = torch.zeros(count, 3, 3).double(), torch.zeros(count, 3, dtype=torch.bool)
        structures = Structures(line, torch.ones(3 * count, dtype=torch.long), pointer, cell, pbc)
        energy = Gaussian(normal(count), 2 * size**2, unit="eV", epistemic_variance=size**2)
        forces = Gaussian(normal(3 * count, 3), 2 * atoms**2, unit="eV/Å", epistemic_variance=atoms**2)
        errors = size * (1 + size) * normal(count), atoms * (1 + atoms) * normal(3 * count, 3)
        labelled = Labelled(structures, energy.mean + errors[0], forces.mean + errors[1])
        return shift.Frames(Prediction(energy, forces, pointer), labelled)

    return made


def test_intervals_under_a_shift(shift, frames):
    study = Study("calibration", "shift")
    shift.shifted(study, frames(500, 0.0), frames(400, 0.5), frames(400, 0.0), frames(400, 0.5), seed=0)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["same_force_coverage"] == pytest.approx(0.9, abs=0.03)
    assert found["plain_coverage"] < 0.87 < found["shift_coverage"]
    assert found["shift_coverage"] == min(found["shift_force_coverage"], found["shift_energy_coverage"])
    assert found["adaptive_force_coverage"] == pytest.approx(0.9, abs=0.03)
    assert 1 < found["relative_width"] < 3 and found["shift_infinite"] < 0.05
    assert 20 < found["shift_effective_sample_size"] < 500


def test_features_are_epistemic_deviations(shift, frames):
    part = frames(5, 0.0)
    size = part.prediction.energy.epistemic.stddev.log()
    want = torch.stack([size, size, size + 0.5 * torch.tensor(3.0).log()], 1)
    torch.testing.assert_close(part.features, want)
    chosen = part.part(torch.tensor([3, 1]))
    torch.testing.assert_close(chosen.features, want[[3, 1]])
    assert torch.equal(chosen.labelled.energies, part.labelled.energies[[3, 1]])


def test_drift(shift, normal):
    study = Study("calibration", "shift")
    shift.drifted(study, normal(600, 2), normal(300, 2) + 2, streams=30, tests=10, seed=0)
    found = {name: figure.value for name, figure in study.figures.items()}
    for name in ("drift", "kernel_test", "classifier_test"):
        assert found[f"{name}_power"] == 1 and found[f"{name}_false_alarm_rate"] <= 0.4
    assert 5 < found["drift_delay"] < 50


def test_correlated_streams(shift):
    values = shift.autoregressive(50, 400, 0.9, seed=0)
    assert float(values.var()) == pytest.approx(1, abs=0.1)
    assert float((values[:, 1:] * values[:, :-1]).mean()) == pytest.approx(0.9, abs=0.1)
    study = Study("calibration", "shift")
    shift.correlated(study, coefficient=0.5, steps=1500, streams=2, seed=0)
    shift.watched(study, coefficient=0.5, streams=2, seed=0)
    for method in ("aci", "dtaci", "pid", "blocks"):
        assert study.figures[f"ar1_coverage_{method}"].value == pytest.approx(0.9, abs=0.05)
    assert study.figures["ar1_effective_fraction_ratio"].value == pytest.approx(1, abs=0.3)
    assert study.figures["ar1_false_alarm_rate_blocks"].value <= 0.5
