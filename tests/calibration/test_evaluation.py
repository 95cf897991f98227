import math

import pytest
import torch
from ase import Atoms

from bayesmol.calibration import (
    Conformal,
    binomial_band,
    bootstrap_standard_error,
    coverage,
    crps,
    figures,
    mean_absolute_error,
    miscalibration_area,
    nll,
    root_mean_square_error,
    summary,
    z_std,
)
from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Gaussian, Prediction, StudentT

FIGURES = {"mae", "rmse", "coverage_90", "z_std", "nll", "miscalibration_area", "crps"}


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def case():
    """Forty molecules of two or three atoms whose labels are drawn from the prediction."""
    atoms = [Atoms("H" * (2 + i % 2), [[1.5 * k, 0, 0] for k in range(2 + i % 2)]) for i in range(40)]
    structures = Structures.from_ase(atoms)
    total = len(structures.positions)
    energy = Gaussian(normal(40, seed=0), 0.04 * torch.ones(40, dtype=torch.float64), unit="eV")
    forces = Gaussian(normal(total, 3, seed=1), 0.25 * torch.ones(total, 3, dtype=torch.float64), unit="eV/Å")
    prediction = Prediction(energy=energy, forces=forces, pointer=structures.pointer)
    energies = energy.mean + 0.2 * normal(40, seed=2)
    labels = {"energies": energies, "forces": forces.mean + 0.5 * normal(total, 3, seed=3)}
    return prediction, Labelled(structures=structures, **labels)


def test_names_values_and_units(case):
    prediction, labelled = case
    found = summary(prediction, labelled)
    assert set(found) == {f"{kind}_{name}" for kind in ("energy", "force") for name in FIGURES}
    for kind, posterior, truth in (
        ("energy", prediction.energy, labelled.energies),
        ("force", prediction.forces, labelled.forces),
    ):
        direct = {
            "mae": mean_absolute_error(posterior, truth),
            "rmse": root_mean_square_error(posterior, truth),
            "coverage_90": coverage(posterior, truth, 0.9),
            "z_std": z_std(posterior, truth),
            "nll": nll(posterior, truth),
            "miscalibration_area": miscalibration_area(posterior, truth),
            "crps": crps(posterior, truth),
        }
        for name, value in direct.items():
            assert float(found[f"{kind}_{name}"].value) == pytest.approx(float(value), abs=1e-12), name
    assert found["energy_mae"].unit == "eV" and found["force_crps"].unit == "eV/Å"
    assert found["force_nll"].unit == "nat" and found["force_coverage_90"].unit == ""


def test_standard_errors_are_a_bootstrap_over_structures(case):
    prediction, labelled = case
    found = summary(prediction, labelled, resamples=2000)
    structure = torch.repeat_interleave(torch.arange(40), prediction.pointer.diff())
    groups = structure.unsqueeze(1).expand(-1, 3)
    for name, metric in {
        "rmse": root_mean_square_error,
        "z_std": z_std,
        "miscalibration_area": miscalibration_area,
    }.items():
        slow = bootstrap_standard_error(
            lambda weights, metric=metric: metric(prediction.forces, labelled.forces, weights), groups, seed=5
        )
        assert float(found[f"force_{name}"].standard_error) == pytest.approx(slow, rel=0.25), name
    assert float(found["force_rmse"].effective_sample_size) == 40


def test_conformal_figures_use_the_rule_and_predictive_ones_do_not(case):
    prediction, labelled = case
    bare = summary(prediction, labelled)
    energy_rule = Conformal().fit(prediction.energy, labelled)
    force_rule = Conformal(unit="structure", simultaneous=True).fit(prediction.forces, labelled)
    ruled = Prediction(
        energy=prediction.energy.with_rule(energy_rule),
        forces=prediction.forces.with_rule(force_rule),
        pointer=prediction.pointer,
    )
    found = summary(ruled, labelled)
    assert set(found) - set(bare) == {"energy_conformal_90", "force_conformal_90"}
    assert all(found[name].value == bare[name].value for name in bare)
    inside = ruled.forces.interval(0.9).covered(labelled.forces)
    assert float(found["force_conformal_90"].value) == pytest.approx(inside)
    # on the calibration structures themselves: rank 37 of 40
    assert float(found["energy_conformal_90"].value) == pytest.approx(37 / 40)


def test_frames_without_forces_are_left_out(case):
    prediction, labelled = case
    has_forces = torch.arange(40) % 4 == 0
    rows = torch.repeat_interleave(has_forces, prediction.pointer.diff())
    forces = torch.where(rows.unsqueeze(1), labelled.forces, 0.0)
    partly = Labelled(structures=labelled.structures, energies=labelled.energies, forces=forces, has_forces=has_forces)
    found = summary(prediction, partly)
    expected = mean_absolute_error(prediction.forces[rows], labelled.forces[rows])
    assert float(found["force_mae"].value) == pytest.approx(float(expected))
    assert float(found["force_mae"].effective_sample_size) == 10
    assert float(found["energy_mae"].effective_sample_size) == 40
    none = Labelled(structures=labelled.structures, energies=labelled.energies)
    assert not any(name.startswith("force") for name in summary(prediction, none))


def test_labels_with_standard_errors_widen_the_predictive_distribution():
    posterior = Gaussian(torch.zeros(4000, dtype=torch.float64), torch.ones(4000, dtype=torch.float64), unit="eV")
    errors = torch.full((4000,), 2.0, dtype=torch.float64)
    truth = 5**0.5 * normal(4000, seed=0)
    groups = torch.arange(4000)
    blind, aware = figures(posterior, truth, groups=groups), figures(posterior, truth, errors, groups=groups)
    low, high = binomial_band(4000, 0.9)
    assert low <= float(aware["coverage_90"].value) <= high and float(blind["coverage_90"].value) < 0.6
    assert float(aware["z_std"].value) == pytest.approx(1, abs=0.05)
    assert aware["mae"].value == blind["mae"].value
    student = StudentT(posterior.mean, posterior.stddev, 4.0, unit="eV")
    with pytest.raises(DataError, match="Gaussian"):
        figures(student, truth, errors, groups=groups)


def test_bad_input(case):
    prediction, labelled = case
    with pytest.raises(ShapeError, match="40 structures"):
        summary(prediction, labelled[:10])
    with pytest.raises(DataError, match="energies or forces"):
        summary(Prediction(prediction.energy, prediction.forces, prediction.pointer), Labelled(labelled.structures))
    one = figures(prediction.energy[:1], labelled.energies[:1], groups=torch.zeros(1, dtype=torch.long))
    assert float(one["mae"].standard_error) == math.inf
