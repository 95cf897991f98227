"""A calculator with a Bayesian ACE on top: sums, certificates, files, updates."""

from dataclasses import replace

import pytest
import torch
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones

import bayesmol as bm
from bayesmol.errors import FormatError
from bayesmol.potentials.foundation import Foundation
from bayesmol.potentials.residual import ResidualPotential, difference
from bayesmol.potentials.surface import Surface, surface
from bayesmol.testing import assert_calibrated


@pytest.fixture(scope="module")
def frames():
    return bm.data.load("rmd17/ethanol").split(12, 160, 100)


@pytest.fixture(scope="module")
def model(frames, small):
    return Foundation.from_calculator(EMT()).with_residual(frames[0], small, seed=0)


def test_a_prediction_is_the_calculator_plus_the_residual(model, frames):
    one = frames[2].structures[:3]
    found, base, rest = model.predict(one), model.foundation.surface(one), model.residual.predict(one)
    torch.testing.assert_close(found.energy.mean, base.energies + rest.energy.mean)
    torch.testing.assert_close(found.forces.mean, base.forces + rest.forces.mean)
    assert torch.equal(found.forces.variance, rest.forces.variance)
    assert torch.equal(found.energy.epistemic.variance, rest.energy.epistemic.variance)
    mean = surface(model, one)
    torch.testing.assert_close(mean.energies, found.energy.mean, rtol=1e-9, atol=1e-7)
    torch.testing.assert_close(mean.forces, found.forces.mean, rtol=1e-6, atol=1e-7)
    assert found.provenance["foundation" if "foundation" in found.provenance else "model"]


def test_the_labels_come_back(model, frames):
    own = model.training
    match = (frames[0].energies[:, None] - own.energies).abs().min(0).values
    assert float(match.max()) < 1e-9
    assert model.leave_one_out().forces.mean.shape == own.forces.shape


def test_its_certificate_holds(model, frames):
    certified = bm.certify(model, frames[1])
    prediction = certified.predict(frames[2].structures)
    hits = int(prediction.energy.interval(0.9).contains(frames[2].energies).sum())
    assert_calibrated(hits, 100, 0.9, calibration=160)
    with pytest.raises(bm.errors.DataError, match="shared"):
        bm.certify(model, frames[0])


def test_a_file_wants_its_calculator_back(model, frames):
    one = frames[2].structures[:2]
    header, arrays = model.state()
    loaded = ResidualPotential.from_state(header, arrays)
    with pytest.raises(FormatError, match="hand it back"):
        loaded.predict(one)
    again = Foundation.from_calculator(EMT()).attach(loaded)
    assert torch.equal(again.predict(one).forces.mean, model.predict(one).forces.mean)
    with pytest.raises(FormatError, match="LennardJones"):
        Foundation.from_calculator(LennardJones()).attach(loaded)
    certified = bm.certify(loaded.__class__(model.foundation, model.residual, model.known, model.probes), frames[1])
    hidden = replace(certified, model=loaded)
    torch.testing.assert_close(
        Foundation.from_calculator(EMT()).attach(hidden).predict(one).forces.mean, model.predict(one).forces.mean
    )


def test_other_settings_of_the_same_class_are_found_out(frames, small):
    model = Foundation.from_calculator(LennardJones(sigma=1.0, epsilon=0.01)).with_residual(frames[0], small)
    loaded = ResidualPotential.from_state(*model.state())
    with pytest.raises(FormatError, match="a difference of"):
        Foundation.from_calculator(LennardJones(sigma=1.0, epsilon=0.02)).attach(loaded)


def test_more_labels_make_it_surer(model, frames):
    more = frames[1][:4]
    updated = model.update(more)
    assert bool(updated.trained(more).all())
    assert bool((updated.strangeness(more) < model.strangeness(more)).all())
    gap = [(m.predict(more).forces.mean - more.forces).abs().mean() for m in (updated, model)]
    assert gap[0] < gap[1]


def test_it_has_draws_factors_features_and_a_calculator(model, frames):
    one = frames[2].structures[:2]
    first, second = model.draws(2, seed=0)
    assert not torch.equal(first.predict(one).energy.mean, second.predict(one).energy.mean)
    assert len(model.force_factor(one, rank=8)) == 2 and len(model.features(one)) == 2
    assert model.deviation_gradient(one)[1].shape == (18, 3)
    atoms = one[0].to_ase()[0]
    atoms.calc = model.calculator()
    assert atoms.get_potential_energy() == pytest.approx(float(model.predict(one).energy.mean[0]))
    assert model.noise_energy > 0 and model.noise_force > 0


def test_unlabelled_forces_stay_masked(frames):
    some = replace(frames[0], has_forces=torch.arange(12) < 6)
    ones = Surface(torch.ones(12).double(), torch.ones(108, 3).double())
    found = difference(some, ones)
    assert not bool(found.forces[54:].any())
    torch.testing.assert_close(found.energies, some.energies - 1)
    torch.testing.assert_close(difference(found, ones, 1.0).forces[:54], some.forces[:54])


def test_files_and_batches_as_of_any_potential(model, frames, tmp_path):
    pool = frames[2].structures
    certified = bm.certify(model, frames[1])
    bm.save(certified, tmp_path / "model")
    again = model.foundation.attach(bm.load(tmp_path / "model"))
    one, two = (potential.predict(pool[:3]).forces for potential in (certified, again))
    assert torch.equal(one.mean, two.mean)
    assert torch.equal(one.interval(0.9).width, two.interval(0.9).width)
    chosen = bm.acquisition.select(certified, pool, 4, seed=0)
    assert len(set(chosen.indices.tolist())) == 4
