"""CHGNet: the numbers of the package itself, exact derivatives, its identity, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, FormatError
from bayesmol.potentials.foundation import Foundation


@pytest.fixture(scope="module")
def crystals():
    from ase.build import bulk

    frames = []
    for seed in range(8):
        atoms = bulk("Si") if seed % 2 else bulk("NaCl", "rocksalt", a=5.6)
        atoms.set_cell(atoms.cell.array * (1 + 0.01 * seed), scale_atoms=True)
        atoms.positions += 0.1 * np.random.default_rng(seed).normal(size=(2, 3))
        frames.append(atoms)
    return Structures.from_ase(frames)


@pytest.fixture(scope="module")
def chgnet():
    return Foundation.chgnet(dtype=torch.float64)


def test_energies_forces_and_stresses_are_those_of_the_package(crystals):
    from pymatgen.core import Lattice, Structure

    published = Foundation.chgnet()
    found = published.surface(crystals, virial=True)
    for s in range(2):
        one = crystals[s]
        crystal = Structure(Lattice(one.cell[0].numpy()), one.species, one.positions.numpy(), coords_are_cartesian=True)
        answer = published._network.predict_structure(crystal, task="efs")
        assert float(found.energies[s]) / 2 == pytest.approx(float(answer["e"]), abs=2e-6)
        np.testing.assert_allclose(found.forces[2 * s : 2 * s + 2], answer["f"], atol=2e-5)
        stress = found.virials[s] / one.cell.det().abs() * 160.21766208
        np.testing.assert_allclose(stress, answer["s"], atol=2e-3)


def test_derivatives_are_exact(chgnet, crystals):
    heads = torch.randn(64, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 8
    one = crystals[:2]
    base, design = chgnet.layer(one, heads, virial=True)
    step = 1e-4 * torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ends = [chgnet.layer(replace(one, positions=one.positions + s * step), heads, forces=False) for s in (1, -1)]
    work = (base.forces * step).sum(1).reshape(2, 2).sum(1)
    torch.testing.assert_close((ends[1][0].energies - ends[0][0].energies) / 2, work, rtol=1e-5, atol=1e-9)
    slope = (design.forces.reshape(2, 6, 2) * step.reshape(2, 6, 1)).sum(1)
    torch.testing.assert_close((ends[1][1].energy - ends[0][1].energy) / 2, slope, rtol=1e-5, atol=1e-9)
    strain = 1e-4 * torch.tensor([[1.0, 0.3, 0], [0.3, -0.5, 0.2], [0, 0.2, 0.7]]).double()
    strained = []
    for sign in (1, -1):
        moved = torch.eye(3).double() + sign * strain
        strained.append(chgnet.surface(replace(one, positions=one.positions @ moved, cell=one.cell @ moved)).energies)
    want = (base.virials * strain).sum((1, 2))
    torch.testing.assert_close((strained[0] - strained[1]) / 2, want, rtol=1e-5, atol=1e-9)


def test_a_last_layer_is_fitted_saved_and_found_again(chgnet, crystals):
    base = chgnet.surface(crystals, virial=True)
    volume = crystals.cell.det().abs()[:, None, None]
    labelled = Labelled(crystals, 1.2 * base.energies + 3.0, 1.2 * base.forces, 1.2 * base.virials / volume)
    model = chgnet.with_last_layer(labelled[:6], rank=2)
    prediction = model.predict(labelled[6:].structures)
    torch.testing.assert_close(prediction.forces.mean, labelled[6:].forces, atol=5e-3, rtol=0)
    assert prediction.stress.mean.shape == (2, 3, 3)
    header, arrays = model.state()
    again = type(model).from_state(header, arrays).predict(labelled[6:].structures)
    assert torch.equal(again.forces.mean, prediction.forces.mean)
    header["foundation"] = {**header["foundation"], "sha256": "0" * 64}
    with pytest.raises(FormatError, match="CHGNet weights"):
        type(model).from_state(header, arrays)


def test_molecules_isolated_atoms_and_unknown_weights_are_refused(chgnet, crystals):
    with pytest.raises(DataError, match="periodic"):
        chgnet.surface(replace(crystals[0], pbc=torch.zeros(1, 3, dtype=torch.bool)))
    with pytest.raises(DataError, match="isolated"):
        chgnet.surface(replace(crystals[0], cell=10 * crystals[0].cell, positions=10 * crystals[0].positions))
    with pytest.raises(DataError, match="version"):
        Foundation.chgnet("9.9")
