"""Known energies belong to distances, charge and spin, not to coordinates."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bayesmol.wavefunctions.known_energies import known_energy
from bayesmol.wavefunctions.molecule import Molecule


@pytest.mark.parametrize("name", ["H", "He", "LiH", "H2O", "H10", "N2"])
def test_rotated_and_shifted_molecules_are_known(name):
    molecule = Molecule.named(name)
    turned = molecule.positions @ Rotation.from_rotvec([0.3, -1.0, 0.7]).as_matrix().T + 5.0
    order = np.arange(len(molecule.charges))[::-1]
    moved = replace(molecule, charges=molecule.charges[order], positions=turned[order])
    assert known_energy(moved) == known_energy(molecule) is not None


def test_other_states_are_not():
    lithium_hydride = Molecule.named("LiH")
    assert known_energy(replace(lithium_hydride, positions=lithium_hydride.positions * 1.01)) is None
    assert known_energy(replace(lithium_hydride, spin=2)) is None
    assert known_energy(replace(lithium_hydride, charge=1, spin=1)) is None
    assert known_energy(Molecule.named("H4-rectangle")) is None


def test_what_passes_through_a_file_in_angstrom_is_known():
    atoms = Molecule.named("LiH").to_ase()
    atoms.positions = atoms.positions.round(5)
    assert known_energy(Molecule.from_ase(atoms)).energy == -8.070548


def test_correlation_lowers_the_energy():
    for name in ("H2", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "LiH", "Li2", "N2"):
        known = known_energy(Molecule.named(name))
        pairs = Molecule.named(name).electrons / 2
        assert 0.02 * pairs < known.hartree_fock - known.energy < 0.1 * pairs
