"""The figures of locality: known answers for forces that are drawn from their own posterior, and for others."""

import pytest
import torch
from scipy import stats

import bayesmol as bm
from bayesmol.posterior import Gaussian, Prediction
from bayesmol.report import Study


@pytest.fixture
def locality(study):
    return study("calibration_locality")


@pytest.fixture
def frames():
    return bm.data.load("rmd17/ethanol")[:60]


def predicted(frames, stddev):
    """A prediction with errors of the forces drawn from its own posterior, and the labels."""
    source = torch.Generator().manual_seed(1)
    noise = stddev * torch.randn(frames.forces.shape, generator=source, dtype=torch.float64)
    forces = Gaussian(frames.forces + noise, stddev.square().expand(frames.forces.shape).clone(), unit="eV/Å")
    energy = Gaussian(frames.energies + 0.1, torch.ones_like(frames.energies), unit="eV")
    return Prediction(energy, forces, frames.structures.pointer)


def by_species(frames):
    """Standard deviations that depend on the element and on chance."""
    source = torch.Generator().manual_seed(2)
    kind = torch.where(frames.structures.species == 1, 0.05, 0.2).double()
    return (kind * (0.7 * torch.randn(len(kind), generator=source, dtype=torch.float64)).exp()).unsqueeze(1)


def test_true_uncertainties_meet_their_reference(locality, frames):
    study = Study("calibration", "locality")
    prediction = predicted(frames, by_species(frames))
    locality.rank_correlations(study, prediction, frames, seed=0)
    for name in ("", "_atom", "_structure"):
        measured, reference = (study.figures[f"rank_correlation{name}{end}"] for end in ("", "_reference"))
        assert measured.value == pytest.approx(reference.value, abs=4 * reference.standard_error)
        assert 0 < reference.value < 1 and measured.standard_error > 0
    assert {"rank_correlation_energy", "rank_correlation_energy_reference"} <= study.figures.keys()


def test_between_and_within_elements(locality, frames, monkeypatch):
    monkeypatch.setattr(locality, "RESAMPLES", 50)
    study, deviation = Study("calibration", "locality"), by_species(frames)
    locality.species(study, predicted(frames, deviation), frames, seed=0)
    found = {name: figure.value for name, figure in study.figures.items()}
    spread = deviation.log().flatten()
    assert found["gain_of_species"] < found["gain_of_stddev"] <= found["gain_of_both"]
    assert found["gain_of_stddev"] == pytest.approx(float((2 * spread).exp().mean().log() / 2 - spread.mean()), abs=0.1)
    assert 0 < found["rank_correlation_within_species"] < 1
    assert {"rank_correlation_H", "rank_correlation_C", "rank_correlation_O"} <= found.keys()


def test_subgroups_are_what_the_descriptors_tell(locality, frames):
    study = Study("calibration", "locality")
    light = torch.where(frames.structures.species == 1, 0.02, 0.2).double().unsqueeze(1)
    locality.subgroups(study, predicted(frames, light), frames, seed=0)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["subgroup_coverage"] == pytest.approx(6 / 9, abs=0.01)
    assert found["subgroup_relative_error"] == pytest.approx(found["subgroup_relative_stddev"], rel=0.15)
    assert found["subgroup_beyond_stddev_relative_error"] > 0.8
    assert any("atomic number ≤" in note for note in study.notes)


def test_fields(locality, frames, monkeypatch):
    monkeypatch.setattr(locality, "TREES", 20)
    study = Study("calibration", "locality")
    light = torch.where(frames.structures.species == 1, 0.02, 0.2).double().unsqueeze(1)
    locality.fields(study, predicted(frames, light), frames, seed=0)
    found = {name: figure.value for name, figure in study.figures.items()}
    assert found["locality_skill"] > 0.4 and found["locality_p_value"] < 0.01
    assert found["locality_beyond_stddev_p_value"] > 0.01 and found["locality_beyond_stddev_gain"] < 0.02
    names = ("locality", "locality_of_stddev", "locality_of_both", "locality_beyond_stddev")
    assert {f"{name}_{end}" for name in names for end in ("skill", "gain", "p_value")} <= found.keys()


def test_spearman_and_its_bootstrap(locality, normal):
    one, other = normal(200).round(), normal(200)
    other = one + other
    want = stats.spearmanr(one.numpy(), other.numpy())
    assert float(locality.spearman(one, other)) == pytest.approx(want.statistic)
    assert float(locality.spearman(one, torch.ones(200, dtype=torch.float64))) == 0
    owner = torch.arange(200).repeat_interleave(3)
    columns = [values.repeat_interleave(3) for values in (one, other)]
    single = locality.bootstrapped(locality.spearman, (one, other), torch.arange(200), 0)
    grouped = locality.bootstrapped(locality.spearman, tuple(columns), owner, 0)
    assert float(grouped.standard_error) == pytest.approx(float(single.standard_error))
    assert float(single.standard_error) == pytest.approx((1 - want.statistic**2) / 200**0.5, rel=0.5)
