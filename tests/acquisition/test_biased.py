"""The bias is the gradient of the deviation, its dynamics conserve the biased energy, and go where less is known."""

import numpy as np
import pytest
import torch
from ase import units
from ase.md.verlet import VelocityVerlet

import bayesmol as bm
from bayesmol.acquisition.biased import Biased, strength
from bayesmol.applicability import Domain
from bayesmol.certified import CertifiedModel, certify
from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials import BayesianACE, GradientGP, MixingSchedule

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def data():
    return bm.data.load("rmd17/ethanol")


@pytest.fixture(scope="module", params=["ace", "gp"])
def model(request, data):
    if request.param == "gp":
        return GradientGP(length_scale=3.0, energy_noise=2e-3, force_noise=0.02).fit(data[:6])
    return BayesianACE(cutoffs=(4.5,), channels=(4, 4, 2), mixing=MixingSchedule(steps=0)).fit(data[:6])


def moved(structures, atom, axis, step):
    positions = structures.positions.clone()
    positions[atom, axis] += step
    return Structures(positions, structures.species, structures.pointer, structures.cell, structures.pbc)


def test_forces_are_the_gradient_of_the_biased_energy(model, data):
    biased, structure, step = Biased(model, 1.5), data[20:21].structures, 1e-4
    forces = biased.predict(structure).forces.mean
    for atom, axis in ((0, 0), (3, 1), (8, 2)):
        ends = [float(biased.predict(moved(structure, atom, axis, sign * step)).energy.mean) for sign in (1, -1)]
        assert float(forces[atom, axis]) == pytest.approx(-(ends[0] - ends[1]) / (2 * step), rel=1e-5, abs=1e-5)


def test_deviation_gradient_of_a_batch_is_that_of_each(model, data):
    batch = data[20:24].structures
    deviation, slope = model.deviation_gradient(batch)
    close(deviation, model.predict(batch).energy.epistemic.stddev, rtol=1e-6, atol=1e-9)
    for k in range(4):
        one = model.deviation_gradient(batch[k : k + 1])
        close(one[0][0], deviation[k], rtol=1e-6, atol=1e-9)
        close(one[1], slope[9 * k : 9 * k + 9], rtol=1e-6, atol=1e-9)


def test_no_bias_is_the_model(model, data):
    plain, same = model.predict(data[20:22]), Biased(model, 0.0).predict(data[20:22])
    assert torch.equal(plain.energy.mean, same.energy.mean) and torch.equal(plain.forces.mean, same.forces.mean)
    assert torch.equal(plain.forces.variance, same.forces.variance)


def test_strength_is_a_share_of_the_force(model, data):
    found = strength(model, data[20:26], 0.3)
    plain, biased = (item.predict(data[20:26]).forces.mean for item in (model, Biased(model, found)))
    assert float((biased - plain).norm() / plain.norm()) == pytest.approx(0.3)


def drift(model, push, data, timestep, steps):
    """Change of the total energy over a run, and the deviation of the energy at its end."""
    atoms = data[20].structures.to_ase()[0]
    atoms.calc = Biased(model, push).calculator()
    source = np.random.default_rng(3)
    atoms.set_momenta(source.normal(size=(9, 3)) * np.sqrt(atoms.get_masses() * 300 * units.kB)[:, None])
    before = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep * units.fs).run(steps)
    after = float(model.deviation_gradient(Structures.from_ase(atoms))[0])
    return atoms.get_total_energy() - before, after


def test_biased_energy_is_conserved_and_uncertainty_grows(model, data):
    """The error of Verlet falls as the square of the time step, as it does for forces with a potential only."""
    push = strength(model, data[20:26], 0.5)
    coarse, fine = drift(model, push, data, 0.2, 20), drift(model, push, data, 0.1, 40)
    assert coarse[0] / fine[0] == pytest.approx(4, rel=0.1)
    assert coarse[1] > drift(model, 0.0, data, 0.2, 20)[1]


def test_a_certified_model_can_be_biased(data):
    fitted = BayesianACE(cutoffs=(4.5,), channels=(4, 4, 2), mixing=MixingSchedule(steps=0)).fit(data[:6])
    certified = certify(fitted, data[30:60], domain=Domain(level=0.2))
    assert isinstance(certified, CertifiedModel)
    plain, biased = certified.predict(data[20:22]), Biased(certified, 2.0).predict(data[20:22])
    assert torch.equal(plain.inside, biased.inside)
    close(plain.energy.mean - biased.energy.mean, 2 * certified.deviation_gradient(data[20:22])[0])
    assert certified.features(data[20:22]).shape[0] == 2


def test_bad_arguments(model, data):
    with pytest.raises(DataError, match="strength: expected a finite number"):
        Biased(model, -1.0)
    with pytest.raises(DataError, match="without deviation_gradient"):
        Biased(object(), 1.0)
    with pytest.raises(DataError, match="fraction"):
        strength(model, data[:2], -0.1)
