"""Certified potentials: conformal intervals, verdicts and guarantees."""

import json

import pytest
import torch
from ase import Atoms

import bayesmol as bm
from bayesmol.applicability import Domain
from bayesmol.calibration import binomial_band, coverage_band
from bayesmol.certified import CertifiedModel, certify
from bayesmol.data import Labelled
from bayesmol.errors import ApplicabilityError, DataError
from bayesmol.potentials import BayesianACE, GradientGP, MixingSchedule


@pytest.fixture(scope="module")
def parts():
    """Training, calibration and test frames."""
    return bm.data.load("rmd17/ethanol").split(12, 149, 200)


@pytest.fixture(scope="module")
def model(parts):
    return BayesianACE(channels=(8, 8, 4), mixing=MixingSchedule(steps=2, checks=1)).fit(parts[0])


@pytest.fixture(scope="module")
def certified(model, parts):
    return certify(model, parts[1])


@pytest.fixture(scope="module")
def prediction(certified, parts):
    return certified.predict(parts[2])


def test_rules_are_attached(certified, prediction):
    assert prediction.energy.rule is certified.energy_rule and prediction.forces.rule is certified.force_rule
    assert certified.energy_rule.count == certified.force_rule.count == 149
    assert "≥ 0.9" in prediction.energy.interval(0.9).guarantee
    assert prediction.provenance["guarantees"] == certified.guarantees


def test_the_model_is_unchanged(certified, model, prediction, parts):
    plain = model.predict(parts[2])
    assert torch.equal(plain.energy.mean, prediction.energy.mean) and plain.energy.rule is None
    assert torch.equal(plain.forces.variance, prediction.forces.variance)
    assert certified.noise_force == model.noise_force
    assert torch.equal(certified.strangeness(parts[2][:3]), model.strangeness(parts[2][:3]))
    got, want = certified.force_factor(parts[2][:1], 8, 1), model.force_factor(parts[2][:1], 8, 1)
    assert torch.equal(got[0], want[0])


def test_guarantees_in_words(certified):
    said = certified.guarantees
    assert set(said) == {"energy", "forces", "domain"}
    assert "a new label" in said["energy"] and "n = 149" in said["energy"]
    assert "random component of a new structure" in said["forces"]
    assert "at most 2 %" in said["domain"]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_energy_coverage_in_the_exact_band(prediction, parts, level):
    covered = float(prediction.energy.interval(level).covered(parts[2].energies))
    low, high = coverage_band(149, 200, level, 0.999)
    assert low <= covered <= high


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_force_coverage_of_one_random_component_a_structure(prediction, parts, level):
    hits = prediction.forces.interval(level).contains(parts[2].forces).reshape(200, -1)
    source = torch.Generator().manual_seed(0)
    drawn = torch.randint(hits.shape[1], (200, 1), generator=source)
    low, high = coverage_band(149, 200, level, 0.999)
    assert low <= float(hits.gather(1, drawn).double().mean()) <= high
    assert low <= float(hits.double().mean()) <= high


def test_few_frames_are_called_outside(prediction):
    outside = 200 - int(prediction.inside.sum())
    assert outside <= 200 * binomial_band(200, 0.02, 0.999)[1]
    for level in (0.1, 0.5):
        assert float((prediction.p_value <= level).double().mean()) <= coverage_band(149, 200, level, 0.999)[1]


def test_strange_structures_are_outside(certified):
    verdict = certified.predict(Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    assert not bool(verdict.inside) and float(verdict.p_value) == pytest.approx(1 / 150)


def test_training_frames_are_refused(model, parts):
    """Also those on which only the mixing was learned."""
    for frame in range(12):
        with pytest.raises(DataError, match="1 shared"):
            certify(model, Labelled.concatenate([parts[2][:3], parts[0][frame]]))


def test_training_frames_are_refused_by_other_potentials(parts):
    potential = GradientGP().fit(parts[0][:3])
    with pytest.raises(DataError, match="3 shared"):
        certify(potential, parts[0])


def test_updated_frames_are_refused(model, parts):
    updated = model.update(parts[2][:2])
    with pytest.raises(DataError, match="2 shared"):
        certify(updated, parts[2])


def test_too_few_frames_for_the_domain(model, parts):
    with pytest.raises(ApplicabilityError, match="149"):
        certify(model, parts[1][:148])
    assert certify(model, parts[1][:40], domain=Domain(level=0.1)).domain.level == 0.1


def test_left_out_frames_cost_no_data(parts):
    model = BayesianACE(channels=(4, 4, 2), mixing=MixingSchedule(steps=0)).fit(parts[1][:30])
    with pytest.raises(ApplicabilityError, match="149"):
        certify(model)
    certified = certify(model, domain=Domain(level=0.3))
    assert certified.energy_rule.source == certified.force_rule.source == "leave-one-out"
    assert "approximate" in certified.guarantees["energy"] and "approximate" in certified.guarantees["forces"]
    assert certified.energy_rule.count == 30
    found = certified.predict(parts[2])
    low, high = coverage_band(30, 200, 0.8, 0.999)
    assert low <= float(found.energy.interval(0.8).covered(parts[2].energies)) <= high
    assert low <= float(found.forces.interval(0.8).covered(parts[2].forces)) <= high


def test_energies_alone_have_no_force_rule(model, parts):
    calibration = Labelled(parts[1].structures, energies=parts[1].energies)
    certified = certify(model, calibration)
    assert certified.force_rule is None and set(certified.guarantees) == {"energy", "domain"}
    assert certified.predict(parts[2][:2]).forces.rule is None


def test_state_round_trip(certified, prediction, parts):
    header, arrays = certified.state()
    other = CertifiedModel.from_state(json.loads(json.dumps(header)), {k: v.clone() for k, v in arrays.items()})
    found = other.predict(parts[2])
    for name in ("energy", "forces"):
        before, after = (getattr(item, name).interval(0.9) for item in (prediction, found))
        assert torch.equal(before.lower, after.lower) and torch.equal(before.upper, after.upper)
    assert torch.equal(prediction.inside, found.inside) and torch.equal(prediction.p_value, found.p_value)
    assert other.guarantees == certified.guarantees


def test_an_update_says_that_the_guarantees_are_old(certified, parts):
    updated = certified.update(parts[2][:2])
    assert updated.learned == 2 and certified.learned == 0 and "not guaranteed now" not in str(certified.guarantees)
    assert all("has learned 2 more structures, so this is not guaranteed now" in t for t in updated.guarantees.values())
    twice = updated.update(parts[2][2:5])
    assert all(said.count("has learned 5 more structures") == 1 for said in twice.guarantees.values())
    assert "has learned 5" in twice.predict(parts[2][10:12]).energy.interval(0.9).guarantee
    assert bool(twice.model.trained(parts[2][:5].structures).all())
    header, arrays = twice.state()
    assert CertifiedModel.from_state(json.loads(json.dumps(header)), arrays).guarantees == twice.guarantees


def test_an_update_with_calibration_data_is_a_new_certificate(certified, model, parts):
    updated = certified.update(parts[2][:2], parts[1])
    want = certify(model.update(parts[2][:2]), parts[1])
    assert updated.guarantees == want.guarantees and updated.learned == 0
    first, second = (item.predict(parts[2][5:9]) for item in (updated, want))
    assert torch.equal(first.energy.interval(0.9).lower, second.energy.interval(0.9).lower)
    assert torch.equal(first.p_value, second.p_value)
    with pytest.raises(DataError, match="2 shared"):
        certified.update(parts[2][:2], parts[2])


def test_a_potential_without_update_is_refused(certified):
    from dataclasses import replace

    with pytest.raises(DataError, match="a potential with update"):
        replace(certified, model=object()).update(None)


def test_calculator_answers_with_the_domain(certified, parts):
    atoms = parts[2][:1].structures.to_ase()[0]
    atoms.calc = certified.calculator(level=0.8)
    energy, want = atoms.get_potential_energy(), certified.predict(parts[2][:1])
    assert energy == float(want.energy.mean) and atoms.calc.uncertainty["inside"] is bool(want.inside)
    assert atoms.calc.uncertainty["energy_interval"][0] == float(want.energy.interval(0.8).lower)
