"""The fast mean of Bayesian ACE potentials equals the mean of predict."""

from dataclasses import replace

import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError
from bayesmol.potentials import BayesianACE, MixingSchedule
from bayesmol.potentials.ace_surface import PIECE, ACESurface
from bayesmol.potentials.molecular_dynamics import moved


@pytest.fixture(scope="module")
def crystal():
    """A few frames of an alloy with stresses, and a small potential."""
    frames = []
    for seed in range(8):
        atoms = bulk("Cu", cubic=True) * (1, 1, 2)
        atoms.symbols[:3] = "Ni"
        atoms.rattle(0.08, seed=seed)
        atoms.calc = EMT()
        forces, stress = atoms.get_forces(), atoms.get_stress()
        atoms.calc = SinglePointCalculator(atoms, energy=atoms.get_potential_energy(), forces=forces, stress=stress)
        frames.append(atoms)
    frames = Labelled.from_ase(frames)
    spec = BayesianACE(cutoffs=(4.0,), channels=(4, 4, 2), degrees=(1, 2, 1), mixing=MixingSchedule(steps=2, checks=1))
    return spec.fit(frames), frames.structures


def test_equals_predict(potential, ethanol):
    structures = ethanol[2].structures
    want, got = potential.predict(structures), ACESurface.of(potential).surface(structures)
    torch.testing.assert_close(got.energies, want.energy.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.forces, want.forces.mean, rtol=0, atol=1e-9)
    assert got.virials is None


def test_equals_predict_on_crystals(crystal):
    potential, structures = crystal
    want, got = potential.predict(structures), ACESurface.of(potential).surface(structures, virial=True)
    stress = got.virials / structures.cell.det().abs()[:, None, None]
    torch.testing.assert_close(got.energies, want.energy.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(got.forces, want.forces.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(stress, want.stress.mean, rtol=0, atol=1e-9)


def test_mixed_batches_and_pieces(potential, ethanol, monkeypatch):
    """Molecules of different size; atoms in pieces; a lone atom."""
    first = ethanol[2].structures[:3]
    keep = first[0].species != 8
    torn = Structures(
        first[0].positions[keep],
        first[0].species[keep],
        torch.tensor([0, int(keep.sum())]),
        first[0].cell,
        first[0].pbc,
    )
    batch = Structures.concatenate([first, torn])
    surface = ACESurface.of(potential)
    whole = surface.surface(batch)
    torch.testing.assert_close(whole.energies, potential.predict(batch).energy.mean, rtol=0, atol=1e-9)
    monkeypatch.setitem(PIECE, "cpu", 2)
    torch.testing.assert_close(surface.surface(batch).forces, whole.forces, rtol=0, atol=1e-10)


def test_forces_are_the_slope_of_the_energy(potential, ethanol, normal):
    frame, surface = ethanol[2].structures[0], ACESurface.of(potential)
    direction, step = normal(9, 3), 1e-4
    ends = [surface.surface(moved(frame, frame.positions + sign * step * direction)) for sign in (1, -1)]
    slope = float((ends[0].energies - ends[1].energies)[0]) / (2 * step)
    assert slope == pytest.approx(-float((surface.surface(frame).forces * direction).sum()), rel=1e-6)


def test_draws_side_by_side(potential, ethanol):
    drawn = potential.draws(4, seed=0)
    structures = ethanol[2].structures[:8]
    got = ACESurface.of(*drawn).surface(structures)
    for number, own in enumerate(drawn):
        want = own.predict(structures[2 * number : 2 * number + 2])
        torch.testing.assert_close(got.energies[2 * number : 2 * number + 2], want.energy.mean, rtol=0, atol=1e-9)
        rows = slice(18 * number, 18 * number + 18)
        torch.testing.assert_close(got.forces[rows], want.forces.mean, rtol=0, atol=1e-9)
    assert float((got.energies - potential.predict(structures).energy.mean).abs().max()) > 1e-6


def test_draws_need_equal_replicas(potential, ethanol, crystal):
    drawn = potential.draws(2, seed=0)
    with pytest.raises(DataError, match="equal replicas"):
        ACESurface.of(*drawn).surface(ethanol[2].structures[:3])
    with pytest.raises(DataError, match="draws from one posterior"):
        ACESurface.of(potential, replace(potential, model=crystal[0].model))
