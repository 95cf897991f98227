"""BayesianACE.fit: laws of mechanics, both factorisations, kinds of labels, learned noise."""

from dataclasses import replace

import pytest
import torch

import bayesmol as bm
from bayesmol.data import Labelled
from bayesmol.errors import DataError
from bayesmol.inference.conjugate import posterior_from_gram
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.potentials.ace_rows import all_rows
from bayesmol.potentials.ace_scales import dual_posterior

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def atoms():
    """Isolated H, C and O, without forces."""
    found = bm.data.load("ethanol/isolated-atoms")
    return replace(found, forces=None, force_errors=None, has_forces=None, source=None)


@pytest.fixture(scope="module")
def noisy(ethanol):
    """40 frames with force noise of 0.3 eV/Å."""
    source = torch.Generator().manual_seed(3)
    error = 0.3 * torch.randn(ethanol[1].forces.shape, generator=source, dtype=torch.float64)
    return replace(ethanol[1], forces=ethanol[1].forces + error)


def error_of(model, data):
    return float((model.predict(data).forces.mean - data.forces).square().mean().sqrt())


def test_the_contract_of_a_potential(potential, ethanol):
    bm.testing.check_potential(potential, ethanol[2][:2])


def test_it_has_learned(potential, ethanol):
    assert error_of(potential, ethanol[2]) < 0.3 * float(ethanol[2].forces.square().mean().sqrt())


def test_primal_and_dual_fits_agree(small, potential, ethanol):
    primal = replace(small, dual_rows=0).fit(ethanol[0])
    assert potential.posterior.root is None and primal.posterior.root is not None
    close(primal.model.log_noise, potential.model.log_noise, rtol=0, atol=1e-6)
    close(primal.model.log_prior, potential.model.log_prior, rtol=0, atol=1e-6)
    for name in ("energy", "forces"):
        got, want = getattr(primal.predict(ethanol[2]), name), getattr(potential.predict(ethanol[2]), name)
        close(got.mean, want.mean, rtol=0, atol=1e-6)
        close(got.variance, want.variance, rtol=1e-5, atol=1e-9)
    close(primal.leave_one_out().forces.mean, potential.leave_one_out().forces.mean, rtol=0, atol=1e-6)
    close(primal.left_out_strangeness(), potential.left_out_strangeness(), rtol=1e-5, atol=1e-9)


def test_primal_and_dual_posteriors_of_one_model_agree(potential, ethanol):
    rows = all_rows(potential.model, ethanol[0])
    white, noise = rows.whitened(potential.model), rows.noise(potential.model)
    primal = posterior_from_gram((white / noise[:, None]).T @ white, white.T @ (rows.targets / noise))
    new = all_rows(potential.model, ethanol[2][:4]).whitened(potential.model)
    for posterior in (dual_posterior(potential.model, rows), potential.posterior):
        close(new @ primal.mean, new @ posterior.mean, rtol=0, atol=1e-6)
        close(primal.variance(new), posterior.variance(new), rtol=1e-6, atol=1e-9)


def test_the_same_seed_gives_the_same_fit(small, potential, ethanol):
    assert torch.equal(small.fit(ethanol[0]).posterior.mean, potential.posterior.mean)
    assert not torch.equal(small.fit(ethanol[0], seed=1).posterior.mean, potential.posterior.mean)


def test_provenance_names_the_training_set(potential, ethanol):
    assert potential.provenance["structures"] == 12
    assert potential.provenance["training_hash"] == ethanol[0].fingerprint
    assert potential.predict(ethanol[2][0]).provenance["model"] == "BayesianACE"


def test_too_few_labels(small, ethanol):
    with pytest.raises(DataError, match="two or more structures"):
        small.fit(ethanol[0][:1])
    with pytest.raises(DataError, match="energies or forces"):
        small.fit(Labelled(ethanol[0].structures))


def test_energies_alone(small, ethanol):
    frames = bm.data.load("rmd17/ethanol")[200:350]
    fitted = small.fit(replace(frames, forces=None, has_forces=None))
    energy = fitted.predict(ethanol[2]).energy
    gap = energy.mean - ethanol[2].energies
    assert float(gap.square().mean()) < 0.4 * float(ethanol[2].energies.var())
    assert 0.4 < float((gap / energy.stddev).square().mean().sqrt()) < 2


def test_forces_alone(small, ethanol):
    fitted = small.fit(replace(ethanol[0], energies=None))
    assert error_of(fitted, ethanol[2]) < 0.3 * float(ethanol[2].forces.square().mean().sqrt())
    with pytest.raises(DataError, match="energies"):
        fitted.leave_one_out()
    with pytest.raises(DataError, match="energies"):
        fitted.left_out_strangeness()


def test_isolated_atoms_without_forces(small, ethanol, atoms):
    known = atoms[torch.isin(atoms.structures.species, torch.tensor([1, 6, 8]))]
    fitted = small.fit(Labelled.concatenate([replace(ethanol[0], source=None), known]))
    found = fitted.predict(known)
    close(found.energy.mean, known.energies, rtol=0, atol=0.5)
    close(found.forces.mean, torch.zeros_like(found.forces.mean), rtol=0, atol=1e-9)
    assert bool(fitted.strangeness(known).isfinite().all())
    assert error_of(fitted, ethanol[2]) < 0.3 * float(ethanol[2].forces.square().mean().sqrt())


def test_left_out_forces_stay_in_place_beside_frames_without(small, ethanol, atoms):
    known = atoms[torch.isin(atoms.structures.species, torch.tensor([1, 6, 8]))]
    data = Labelled.concatenate([replace(ethanol[0][:6], source=None), known])
    fitted = small.fit(data)
    left = fitted.leave_one_out()
    labelled = fitted.training.has_forces[fitted.training.structures.structure_index]
    assert bool(labelled.any()) and not bool(labelled.all())
    assert bool((left.forces.stddev[labelled] < 10).all()) and bool((left.forces.stddev[~labelled] > 1e5).all())
    z = (fitted.training.forces - left.forces.mean)[labelled] / left.forces.stddev[labelled]
    assert 0.8 < float(z.square().mean().sqrt()) < 1.25


def test_single_atoms_predict_without_being_trained(potential, atoms):
    known = atoms[torch.isin(atoms.structures.species, torch.tensor([1, 6, 8]))]
    found = potential.predict(known)
    assert bool((found.energy.stddev > 100).all()), "one composition says nothing of single atoms"
    assert bool(potential.strangeness(known).isinf().all())


def test_force_noise_is_learned(small, noisy):
    assert small.fit(noisy).noise_force == pytest.approx(0.3, rel=0.2)


def test_standard_errors_of_labels_replace_learned_noise(small, ethanol, noisy):
    clean, blind = small.fit(ethanol[1]), small.fit(noisy)
    told = small.fit(replace(noisy, force_errors=torch.full_like(noisy.forces, 0.3)))
    assert told.noise_force < 0.5 * blind.noise_force
    widths = [float(m.predict(ethanol[2]).forces.epistemic.variance.mean()) for m in (clean, told)]
    assert widths[0] < widths[1], "errors of labels leave more uncertainty"
    z = (told.predict(ethanol[2]).forces.mean - ethanol[2].forces) / told.predict(ethanol[2]).forces.stddev
    assert 0.6 < float(z.square().mean().sqrt()) < 1.6


def test_channels_follow_the_number_of_labels(ethanol):
    fitted = BayesianACE(mixing=MixingSchedule(steps=0)).fit(ethanol[0][:2])
    assert len(fitted.posterior.mean) > 0 and error_of(fitted, ethanol[2]) < 1.5
