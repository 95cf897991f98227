"""Leaving one molecule out, in a few seconds."""

import ase.build
import numpy as np
import pytest
import torch

from bayesmol.errors import DataError
from bayesmol.flows.transferable_context import Molecule
from bayesmol.report import Study


@pytest.fixture
def boltzmann_transferable(study):
    return study("boltzmann_transferable")


@pytest.fixture
def data(tmp_path):
    source, arrays = np.random.default_rng(0), {}
    for name in ("H2O", "CH3OH", "CH4"):
        atoms = ase.build.molecule(name)
        noise = 0.03 * source.normal(size=(60, len(atoms), 3))
        arrays |= {f"Z_{name}": atoms.numbers, f"xyz_nm_{name}": ((atoms.positions + noise) / 10).reshape(60, -1)}
        arrays[f"equilibrium_nm_{name}"] = atoms.positions.flatten() / 10
    np.savez(tmp_path / "molecules.npz", **arrays)
    return tmp_path / "molecules.npz"


def test_one_molecule_is_left_out(boltzmann_transferable, data):
    run = Study("boltzmann", "transferable")
    boltzmann_transferable.transferable(run, data, 0.01, 0, molecules="CH3OH", draws=40, energies=0)
    wanted = {"valid_fraction", "nats_above_own_gaussian_median", "ess_against_own_gaussian_median"}
    assert wanted | {"torsion_js_median", "unseen_element_flagged"} <= run.figures.keys()
    assert run.figures["unseen_element_flagged"].value == 1
    assert run.notes[1].startswith("CH3OH (atoms [6, 8, 1, 1, 1, 1])")
    assert "no molecule of the training has" in run.notes[1]


def test_valid_geometries(boltzmann_transferable, data):
    water = boltzmann_transferable.read(data)[0]
    molecule = Molecule.of(water.species, water.equilibrium)
    assert bool(boltzmann_transferable.valid(molecule, water.rows).all())
    place = water.rows[:1].unflatten(1, (-1, 3))
    close, far, short = place.clone(), place.clone(), place.clone()
    close[0, 2] = close[0, 1] + torch.tensor([0.0, 0.2, 0.2])
    far[0, 1] = place[0, 0] + 1.6 * (place[0, 1] - place[0, 0])
    short[0, 1] = place[0, 0] + 0.6 * (place[0, 1] - place[0, 0])
    broken = torch.cat([close, far, short]).flatten(1)
    assert boltzmann_transferable.valid(molecule, broken).tolist() == [False] * 3


def test_the_rival_is_normalised(boltzmann_transferable, data):
    water = boltzmann_transferable.read(data)[0]
    molecule = Molecule.of(water.species, water.equilibrium)
    rival = boltzmann_transferable.Rival(molecule, water.rows)
    drawn = rival.law.sample((500,)).reshape(500, 3)
    values = torch.zeros(500, 2, 3, dtype=torch.float64)
    values[:, molecule.known] = drawn
    y, volume = molecule.columns(values)
    x, more = molecule.internal.inverse(y)
    torch.testing.assert_close(rival.log_prob(x), rival.law.log_prob(drawn) - volume - more)


def test_bad_input(boltzmann_transferable, data):
    with pytest.raises(DataError, match="molecules"):
        boltzmann_transferable.transferable(Study("boltzmann", "transferable"), data, molecules="NaCl")
