"""Molecules: spins and energies by hand, round trips, equality, and what is no molecule."""

import ase
import ase.build
import numpy as np
import pytest

from bayesmol.errors import DataError, ShapeError
from bayesmol.units import convert
from bayesmol.wavefunctions.molecule import Molecule


def hydride(**changes):
    settings = {"charges": np.array([3, 1]), "positions": np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])}
    return Molecule(**(settings | changes))


def test_numbers_by_hand():
    molecule = hydride()
    assert (molecule.electrons, molecule.up, molecule.down) == (4, 2, 2)
    assert molecule.symbols == ("Li", "H")
    assert molecule.nuclear_repulsion == 1.0
    ion = hydride(charge=1, spin=1)
    assert (ion.electrons, ion.up, ion.down) == (3, 2, 1)
    assert str(ion) == "LiH (+)" and str(hydride(charge=-2)) == "LiH (2-)"
    triplet = Molecule([8], [[0, 0, 0]], spin=2)
    assert (triplet.up, triplet.down, triplet.nuclear_repulsion) == (5, 3, 0.0)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"charges": np.array([3, 0])}, DataError, "charges: expected atomic numbers from 1 to 118, got \\[0\\]"),
        ({"charges": np.array([3, 119])}, DataError, "charges: .*119"),
        ({"charges": np.array([3.5, 1.0])}, DataError, "charges: .*3.5"),
        ({"charges": np.array([3.0, np.nan])}, DataError, "charges: .*nan"),
        ({"charges": np.array([], dtype=int)}, ShapeError, "charges: .*at least one"),
        ({"charges": np.array([3])}, ShapeError, "positions: expected \\(1, 3\\) in bohr, got \\(2, 3\\)"),
        ({"positions": np.zeros((3, 2))}, ShapeError, "positions: expected \\(2, 3\\)"),
        ({"positions": np.array([[0, 0, 0], [0, 0, np.nan]])}, DataError, "positions: expected finite"),
        (
            {"positions": np.array([[0, 0, 0], [0, 0, 0.01]])},
            DataError,
            "nuclei 0 and 1 at 0.01 bohr; are they",
        ),
        ({"spin": 1}, DataError, "spin: expected an even number of unpaired electrons from 0 to 4"),
        ({"spin": -2}, DataError, "spin"),
        ({"spin": 6}, DataError, "spin"),
        ({"spin": 0.5}, DataError, "spin: expected a whole number"),
        ({"charge": 1}, DataError, "spin: expected an odd number"),
        ({"charge": 4}, DataError, "charge: expected less than 4"),
        ({"charge": float("nan")}, DataError, "charge: expected a whole number"),
    ],
)
def test_what_is_no_molecule(changes, error, message):
    with pytest.raises(error, match=message):
        hydride(**changes)


def test_equal_by_value_and_frozen():
    assert hydride() == hydride() and hash(hydride()) == hash(hydride())
    assert hydride() == hydride(positions=[[0.0, -0.0, 0.0], [0.0, 0.0, 3.0]])
    others = [hydride(charge=2), hydride(spin=2), hydride(charges=[1, 3]), Molecule.named("LiH"), "LiH"]
    assert all(hydride() != other for other in others)
    positions = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    molecule = hydride(positions=positions)
    positions[1, 2] = 5.0
    assert molecule.nuclear_repulsion == 1.0
    with pytest.raises(ValueError, match="read-only"):
        molecule.positions[0, 0] = 1.0


NAMES = ["H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "H2", "LiH", "Li2", "N2", "H2O", "H4-square"]


@pytest.mark.parametrize("name", [*NAMES, "H4-rectangle", "H10"])
def test_by_name_and_through_ase(name):
    molecule = Molecule.named(name)
    again = Molecule.from_ase(molecule.to_ase())
    np.testing.assert_allclose(again.positions, molecule.positions, atol=1e-14)
    assert (again.electrons, again.spin) == (molecule.electrons, molecule.spin)
    assert molecule.electrons == molecule.charges.sum()


def test_geometries():
    def distance(name, a, b):
        return np.linalg.norm(np.subtract(*Molecule.named(name).positions[[a, b]]))

    assert [distance(name, 0, 1) for name in ("H2", "LiH", "Li2", "N2")] == [1.4, 3.015, 5.051, 2.068]
    assert np.isclose(distance("H2O", 0, 1), convert(0.9572, "Å", "bohr"))
    assert np.isclose(distance("H2O", 1, 2), 2 * convert(0.9572, "Å", "bohr") * np.sin(np.deg2rad(52.26)))
    assert np.isclose(distance("H4-square", 0, 1), distance("H4-square", 1, 2))
    assert np.isclose(distance("H4-rectangle", 0, 2), 2 * 3.2843)
    assert np.isclose(distance("H4-rectangle", 0, 3), 2 * 3.2843 * np.sin(np.deg2rad(40)))
    np.testing.assert_allclose(np.diff(Molecule.named("H10").positions[:, 2]), 1.8)
    with pytest.raises(DataError, match=r"name: expected one of H, He, .*H10, got 'Xx'"):
        Molecule.named("Xx")


def test_from_ase():
    water = ase.build.molecule("H2O")
    np.testing.assert_allclose(Molecule.from_ase(water).positions, water.positions / convert(1.0, "bohr", "Å"))
    assert Molecule.from_ase(water, charge=1).spin == 1
    assert Molecule.from_ase(ase.build.molecule("O2")).spin == 2  # its magnetic moments
    assert Molecule.from_ase(ase.Atoms("N")).spin == 3
    assert Molecule.from_ase(ase.Atoms("C"), charge=1).spin == 1
    assert Molecule.from_ase(ase.Atoms("N"), spin=1).spin == 1
    with pytest.raises(DataError, match="atoms: expected a molecule without periodic directions"):
        Molecule.from_ase(ase.build.bulk("Cu"))
    with pytest.raises(DataError, match=r"spin: .*more than 18 electrons"):
        Molecule.from_ase(ase.Atoms("Fe"), charge=2)
