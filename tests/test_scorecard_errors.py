"""Lines that labels decide, on predictions whose errors and deviations are known."""

import math
from dataclasses import replace

import pytest
import torch
from ase.build import bulk

from bayesmol.data import Labelled, Structures, load
from bayesmol.errors import DataError
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.scorecard_errors import accurate, force_error, honest, transferable
from bayesmol.scorecard_lines import Score, Thresholds
from bayesmol.units import convert

WANTED = Thresholds()


@pytest.fixture
def truth():
    return load("rmd17/ethanol/test")[:300]


def off(truth, energy, force, stated=1.0, inside=None):
    """Prediction with given errors; the stated deviations are ``stated`` times 0.01 eV and 0.1 eV/Å."""
    parts = {
        "energy": Gaussian(truth.energies + energy, torch.full_like(truth.energies, (0.01 * stated) ** 2), unit="eV"),
        "forces": Gaussian(truth.forces + force, torch.full_like(truth.forces, (0.1 * stated) ** 2), unit="eV/Å"),
    }
    return Prediction(**parts, pointer=truth.structures.pointer, inside=inside)


@pytest.mark.parametrize(("kcal", "said"), [(0.24, "met"), (0.26, "not met")])
def test_accuracy_against_a_quarter_of_a_kilocalorie(truth, kcal, said):
    error = convert(kcal, "kcal/mol", "eV")
    line = accurate(off(truth, error, -0.03), truth, WANTED)
    assert line.verdict == said and line.scores["energy_mae"].value == pytest.approx(error)
    assert line.scores["energy_mae_per_atom"].value == pytest.approx(error / 9)
    assert line.scores["force_mae"].value == pytest.approx(0.03)
    assert f"{kcal} [" in line.sentence and "kcal/mol is wanted" in line.sentence


def test_a_noisy_error_at_the_threshold_cannot_be_told(truth, normal):
    line = accurate(off(truth, normal(300) * WANTED.energy * math.sqrt(math.pi / 2), 0.0), truth, WANTED)
    assert line.verdict == "cannot tell"


def test_crystals_are_judged_by_the_atom_and_stress_that_is_not_there_is_said():
    cell = bulk("Si", cubic=True)
    structures = Structures.from_ase([cell] * 6)
    stresses = torch.zeros(6, 3, 3, dtype=torch.float64)
    truth = Labelled(structures, torch.zeros(6).double(), torch.zeros(48, 3).double(), stresses)
    line = accurate(off(truth, 8 * 0.009, 0.0), truth, WANTED)
    assert line.verdict == "met" and "meV/atom is wanted" in line.sentence
    assert line.absent == {"stress_mae": "the potential predicts no stress"}
    given = replace(off(truth, 8 * 0.02, 0.0), stress=Gaussian(stresses + 0.01, stresses + 1, unit="eV/Å³"))
    line = accurate(given, truth, WANTED)
    assert line.verdict == "not met" and line.scores["stress_mae"].value == pytest.approx(0.01)


def test_without_energies_it_cannot_be_told(truth):
    line = accurate(off(truth, 0.0, 0.02), replace(truth, energies=None), WANTED)
    assert line.verdict == "cannot tell" and line.scores["force_mae"].value == pytest.approx(0.02)
    assert "eV/Å" in line.sentence  # units keep their capitals


def test_masked_forces_do_not_count(truth):
    mask = torch.arange(300) < 100
    error = torch.where(mask[truth.structures.structure_index][:, None], 0.02, 5.0)
    assert force_error(off(truth, 0.0, error), replace(truth, has_forces=mask)).value == pytest.approx(0.02)
    with pytest.raises(DataError, match="frames with forces"):
        force_error(off(truth, 0.0, 0.0), replace(truth, forces=None, has_forces=None))


@pytest.mark.parametrize(("stated", "said"), [(1.0, "met"), (0.3, "not met"), (5.0, "not met")])
def test_honest_if_the_stated_deviations_are_true(truth, normal, stated, said):
    given = off(truth, 0.01 * normal(300), 0.1 * normal(2700, 3), stated)
    line = honest(given, truth, WANTED, level=0.9, seed=0)
    assert line.verdict == said
    assert line.scores["force_width"].value == pytest.approx(2 * 1.6449 * 0.1 * stated, rel=1e-3)
    assert line.scores["energy_width"].unit == "eV" and line.scores["force_width"].unit == "eV/Å"
    area = line.scores["force_miscalibration_area"].value
    assert area < 0.02 if stated == 1.0 else area > 0.1
    coverage = float(given.forces.interval(0.9).contains(truth.forces).double().mean())
    assert line.scores["force_coverage"].value == pytest.approx(coverage)


def test_the_share_of_the_variance_that_data_would_reduce(truth, normal):
    variance = torch.full_like(truth.forces, 0.01)
    given = off(truth, 0.0, 0.1 * normal(2700, 3))
    forces = Gaussian(given.forces.mean, variance, unit="eV/Å", epistemic_variance=0.25 * variance)
    line = honest(replace(given, forces=forces), truth, WANTED, level=0.9, seed=0)
    assert line.scores["force_epistemic_share"].value == pytest.approx(0.25)
    assert "25 [" in line.sentence and "energy_epistemic_share" not in line.scores


def test_infinite_intervals_are_not_honest(truth, normal):
    line = honest(off(truth, 0.01 * normal(300), 0.1 * normal(2700, 3), 1e9), truth, WANTED, level=0.9, seed=0)
    assert line.verdict == "not met" and line.scores["force_coverage"].value == 1.0


@pytest.mark.parametrize(("factor", "said"), [(1.5, "met"), (3.0, "not met")])
def test_transfer_by_the_ratio_of_force_errors(truth, normal, factor, said):
    there = load("methanol/test")
    here = force_error(off(truth, 0.0, 0.1 * normal(2700, 3)), truth)
    inside = torch.arange(len(there)) >= 45
    given = off(there, 3.0, factor * 0.1 * normal(870, 3), inside=inside)
    line = transferable(given, there, here, WANTED, name="methanol", level=0.9)
    assert line.verdict == said and line.scores["transfer_ratio"].value == pytest.approx(factor, rel=0.1)
    gap = line.scores["transfer_gap"]
    assert gap.value == pytest.approx(line.scores["transfer_force_mae"].value - here.value)
    assert gap.lower < (factor - 1) * 0.1 * math.sqrt(2 / math.pi) < gap.upper
    assert line.scores["transfer_flagged"].value == pytest.approx(45 / 145)
    assert line.scores["transfer_relative_energy_mae"].value == pytest.approx(0.0, abs=1e-9)  # one constant is free


def test_a_potential_that_is_as_bad_everywhere_does_not_transfer(truth, normal):
    there, here = load("methanol/test"), Score(0.5, 0.49, 0.51)
    given = off(there, 0.1 * normal(145), 0.1 * normal(870, 3))
    line = transferable(given, there, here, WANTED, name="methanol", level=0.9)
    assert line.scores["transfer_ratio"].upper < 1 and line.verdict == "not met"
    unlabelled = transferable(given, replace(there, energies=None), here, WANTED, name="methanol", level=0.9)
    assert unlabelled.verdict == "met" and "energies by" not in unlabelled.sentence


def test_without_a_domain_nothing_can_be_flagged(truth):
    line = transferable(off(truth, 0.0, 0.1), truth, Score(0.1, 0.09, 0.11), WANTED, name="x", level=0.9)
    assert "no domain" in line.absent["transfer_flagged"] and "has no domain" in line.sentence
