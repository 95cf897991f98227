"""The fitted potential: updates, left-out predictions, joint covariances, draws and strangeness."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.potentials.ace_rows import ENERGY, FORCE, all_rows
from bayesmol.potentials.ace_scales import dual_posterior

close = torch.testing.assert_close


@pytest.fixture(scope="module")
def rows(potential, ethanol):
    return all_rows(potential.model, ethanol[0])


def without(rows, model, group):
    """Posterior from the rows of all other structures."""
    keep = rows.group != group
    return dual_posterior(model, replace(rows, **{name: getattr(rows, name)[keep] for name in vars(rows)}))


def hydroxyl(frame, distance):
    """The frame with its O–H bond set to a length in Å."""
    atoms = frame.to_ase()[0]
    oxygen = atoms.numbers.tolist().index(8)
    gaps = atoms.get_distances(oxygen, range(len(atoms)))
    gaps[atoms.numbers != 1] = math.inf
    atoms.set_distance(oxygen, int(gaps.argmin()), distance, fix=0)
    return Structures.from_ase(atoms)


@pytest.mark.parametrize("pieces", [1, 2])
def test_update_equals_refit(potential, ethanol, pieces):
    new = ethanol[1][:4]
    updated = potential
    for part in new.split(*[4 // pieces] * pieces):
        updated = updated.update(part)
    joined = Labelled.concatenate([ethanol[0], new])
    refit = replace(potential, posterior=dual_posterior(potential.model, all_rows(potential.model, joined)))
    got, want = updated.predict(ethanol[2]), refit.predict(ethanol[2])
    for name in ("energy", "forces"):
        close(getattr(got, name).mean, getattr(want, name).mean, rtol=1e-8, atol=1e-8)
        close(getattr(got, name).variance, getattr(want, name).variance, rtol=1e-8, atol=1e-8)
    assert float(got.forces.epistemic.variance.mean()) < float(
        potential.predict(ethanol[2]).forces.epistemic.variance.mean()
    )


def test_left_out_predictions_equal_brute_force(potential, ethanol, rows):
    left = potential.leave_one_out()
    hashes = [ethanol[0].structures[i].positions for i in range(12)]
    for place in range(len(potential.training)):
        frame = potential.training[place]
        group = next(i for i, positions in enumerate(hashes) if torch.equal(positions, frame.structures.positions))
        alone = replace(potential, posterior=without(rows, potential.model, group)).predict(frame)
        for name in ("energy", "forces"):
            close(getattr(left[place], name).mean, getattr(alone, name).mean, rtol=0, atol=1e-6)
            close(getattr(left[place], name).variance, getattr(alone, name).variance, rtol=1e-6, atol=1e-9)


def test_left_out_strangeness_equals_brute_force(potential, ethanol, rows):
    scores = potential.left_out_strangeness()
    assert scores.shape == (12,)
    for group in (0, 5, 11):
        alone = replace(potential, posterior=without(rows, potential.model, group))
        close(scores[group : group + 1], alone.strangeness(ethanol[0][group]), rtol=1e-5, atol=1e-9)


def test_energy_difference_knows_the_correlation(potential, ethanol):
    first, second = ethanol[2][:5], ethanol[2][5:10]
    white = [all_rows(potential.model, part) for part in (first, second)]
    white = [part.whitened(potential.model)[part.kind == ENERGY] for part in white]
    joint = potential.posterior.covariance(torch.cat(white))
    own, cross = joint.diagonal(), joint[:5, 5:].diagonal()
    found = potential.energy_difference(first, second)
    want = potential.inflation[ENERGY] * (own[:5] + own[5:] - 2 * cross)
    close(found.variance, want, rtol=1e-6, atol=1e-9)
    energies = [potential.predict(part).energy.mean for part in (first, second)]
    close(found.mean, energies[0] - energies[1], rtol=0, atol=1e-7)
    assert found.unit == "eV"


def test_a_structure_has_no_difference_from_itself(potential, ethanol):
    found = potential.energy_difference(ethanol[2], ethanol[2])
    assert not bool(found.mean.any()) and not bool(found.variance.any())
    with pytest.raises(DataError, match="20 structures"):
        potential.energy_difference(ethanol[2], ethanol[2][:3])


def test_every_draw_repels_at_short_distance(potential, ethanol):
    frame = ethanol[2].structures[0]
    short = hydroxyl(frame, 0.3)
    for draw in potential.draws(16, seed=0):
        energy = draw.predict(Structures.concatenate([frame, short])).energy
        assert float(energy.mean[1] - energy.mean[0]) > 10
        close(energy.epistemic.variance, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)


def test_draws_spread_like_the_posterior(potential, ethanol):
    frames = ethanol[2][:2]
    want = potential.predict(frames).forces
    values = torch.stack([draw.predict(frames).forces.mean for draw in potential.draws(80, seed=1)])
    deviation = want.epistemic.stddev
    assert bool(((values.mean(0) - want.mean).abs() < 5 * deviation / math.sqrt(80)).all())
    ratio = values.var(0) / deviation.square()
    assert float(ratio.mean()) == pytest.approx(1, abs=0.25)
    assert torch.equal(potential.draws(1, seed=1)[0].posterior.mean, potential.draws(1, seed=1)[0].posterior.mean)


def test_force_factor_has_the_joint_covariance(potential, ethanol):
    frames = ethanol[2][:2]
    factor = torch.cat(potential.force_factor(frames))
    rows = all_rows(potential.model, frames)
    want = potential.posterior.covariance(rows.whitened(potential.model)[rows.kind == FORCE])
    close(factor @ factor.T, want, rtol=0, atol=1e-9 * float(want.diagonal().max()))
    size = 3 * int(frames.structures.counts[0])
    block = potential.predict(frames, covariance=True).forces.covariance[0]
    noise = potential.model.force_noise(frames.structures[0]).expand(-1, 3).reshape(-1)
    close(block, want[:size, :size] + torch.diag(noise), rtol=1e-6, atol=1e-9)


def test_atomic_energies_add_up(potential, ethanol):
    found = potential.predict(ethanol[2][:3], atomic=True)
    total = found.atomic_energies.mean.reshape(3, -1).sum(1)
    repulsion = potential.model.baseline(ethanol[2].structures[:3])[0]
    references = potential.model.representation.composition(ethanol[2].structures[:3]) @ potential.model.references
    close(total + repulsion - references, found.energy.mean, rtol=0, atol=1e-6)


def test_unknown_elements_are_refused(potential):
    with pytest.raises(DataError, match="7"):
        potential.predict(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))


def test_strangeness_is_infinite_outside(potential, ethanol):
    frame = ethanol[2].structures[0]
    water = Structures.from_ase(Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    nitrogen = Structures.from_ase(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]))
    mixed = Structures.concatenate([nitrogen, frame, water, hydroxyl(frame, 0.3), nitrogen])
    scores = potential.strangeness(mixed)
    assert scores.isinf().tolist() == [True, False, True, True, True]
    close(scores[1:2], potential.strangeness(frame), rtol=1e-6, atol=1e-9)
    close(scores[1:2], potential.strangeness(frame, potential.predict(frame)), rtol=1e-6, atol=1e-9)
    assert bool(potential.strangeness(water, potential.predict(water)).isinf().all())
    assert bool(potential.strangeness(nitrogen).isinf().all())
    assert float(potential.predict(water).energy.stddev) > 100


def test_strangeness_grows_with_distance_from_the_data(potential, ethanol):
    frames = ethanol[2].structures
    source = torch.Generator().manual_seed(0)
    moved = 0.15 * torch.randn(frames.positions.shape, generator=source, dtype=torch.float64)
    shaken = replace(frames, positions=frames.positions + moved)
    assert float(potential.strangeness(shaken).median()) > 1.3 * float(potential.strangeness(frames).median())
    assert float(potential.strangeness(ethanol[0]).median()) < float(potential.strangeness(frames).median())


def test_updating_teaches_new_compositions(potential, ethanol):
    water = Structures.from_ase(Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    data = Labelled(water, energies=torch.tensor([-2079.0], dtype=torch.float64))
    updated = potential.update(data)
    assert bool(updated.strangeness(water).isfinite().all())
    assert float(updated.predict(water).energy.stddev) < 1


def test_all_training_frames_are_known_again(potential, ethanol):
    assert bool(potential.trained(ethanol[0]).all()) and not bool(potential.trained(ethanol[2]).any())
    updated = potential.update(ethanol[2][:2])
    assert bool(updated.trained(ethanol[0]).all())
    assert updated.trained(ethanol[2]).tolist() == [True] * 2 + [False] * 18


@pytest.fixture(scope="module")
def copper():
    """Rattled and strained cells of four atoms with energies, forces and stresses of effective-medium theory."""
    random, frames = np.random.default_rng(0), []
    for _ in range(14):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * random.normal(size=(3, 3))), scale_atoms=True)
        atoms.positions += 0.08 * random.normal(size=(4, 3))
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces(), "stress": atoms.get_stress()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return Labelled.from_ase(frames)


def test_stress_of_a_crystal(small, copper):
    """Stresses are learned, and they are the derivative of the predicted energy along a strain."""
    model = small.fit(copper[:10])
    found = model.predict(copper[10:].structures)
    spread = float(copper.stresses.std())
    assert float((found.stress.mean - copper[10:].stresses).abs().mean()) < 0.3 * spread
    atoms = copper[10].structures.to_ase()[0]
    energies = []
    for step in (-1e-4, 1e-4):
        strained = atoms.copy()
        strained.set_cell(atoms.cell @ (np.eye(3) + step * np.diag([1.0, 0.0, 0.0])), scale_atoms=True)
        energies.append(float(model.predict(strained).energy.mean))
    slope = (energies[1] - energies[0]) / 2e-4 / atoms.get_volume()
    assert float(found.stress.mean[0, 0, 0]) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_inflation_scales_energies_and_stresses_alone(small, copper):
    """A factor four doubles their standard deviations, whatever they are asked for; forces and means stay."""
    model, frames = small.fit(copper[:10]), copper[10:].structures
    wide = replace(model, inflation=4 * model.inflation)
    first, second = (each.predict(frames, atomic=True) for each in (model, wide))
    for name in ("energy", "stress", "atomic_energies"):
        close(getattr(second, name).stddev, 2 * getattr(first, name).stddev)
        close(getattr(second, name).mean, getattr(first, name).mean)
    assert torch.equal(second.forces.stddev, first.forces.stddev)
    close(wide.strangeness(frames), 2 * model.strangeness(frames))
    assert wide.noise_energy == pytest.approx(2 * model.noise_energy)
