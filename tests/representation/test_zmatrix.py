import numpy as np
import pytest
import torch
from ase.build import molecule

from bayesmol.errors import DataError, ShapeError
from bayesmol.representation.zmatrix import ZMatrix, bonds, zmatrix


def of(name):
    atoms = molecule(name)
    return torch.tensor(atoms.numbers), torch.tensor(atoms.positions)


def quadruples(matrix):
    """Atoms of each torsion: child, bonded, angle, torsion atom."""
    places = torch.cat([torch.arange(3, len(matrix.atoms))[:, None], matrix.references], 1)
    return matrix.atoms[places].tolist()


@pytest.mark.parametrize(("name", "count"), [("C2H6", 7), ("CH3CONH2", 8), ("H2O", 2), ("C6H6", 12), ("CH3SH", 5)])
def test_bonds(name, count):
    assert len(bonds(*of(name))) == count


def test_acetamide_by_hand():
    species, x = of("CH3CONH2")  # O C N C H H H H H
    matrix = zmatrix(species, x)
    assert species[matrix.atoms[:3]].tolist() == [7, 6, 6]
    edges = {frozenset(pair) for pair in bonds(species, x).tolist()}
    child, bonded, angle, torsion = zip(*quadruples(matrix), strict=True)
    assert all(frozenset(pair) in edges for pair in zip(child, bonded, strict=True))
    assert all(frozenset(pair) in edges for pair in zip(bonded, angle, strict=True))
    assert all(len(set(four)) == 4 for four in zip(child, bonded, angle, torsion, strict=True))
    assert len(matrix.rotors) == 1 and (species[matrix.atoms[matrix.rotors[0] + 3]] == 1).all()
    assert int(matrix.rotating.sum()) == 2  # methyl and amide
    assert matrix.handedness[matrix.rotors[0]].tolist() == [0, 1, -1]
    assert [len(level) for level in matrix.levels] == [6]


def test_start_spares_rotors_and_hydrogens():
    species, x = of("CH3CH2OH")
    assert (species[zmatrix(species, x).atoms[:3]] != 1).all()
    species, x = of("CH3OH")
    matrix = zmatrix(species, x)
    assert len(matrix.rotors) == 1, "the hydrogen of the hydroxyl starts, none of the methyl"
    assert len(zmatrix(*of("C2H6")).rotors) == 1, "the other methyl gives an atom to the start"
    assert len(zmatrix(*of("CH4")).rotors) == 0


def test_rings_do_not_rotate():
    assert not zmatrix(*of("C6H6")).rotating.any()


def test_numbering_does_not_matter(source):
    species, x = of("CH3CONH2")
    new = torch.randperm(len(x), generator=source)
    matrix, other = zmatrix(species, x), zmatrix(species[new], x[new])
    assert species[matrix.atoms].tolist() == species[new][other.atoms].tolist()
    assert int(other.rotating.sum()) == int(matrix.rotating.sum()) and len(other.rotors) == 1


def test_bad_input():
    species, x = of("CH3CONH2")
    with pytest.raises(DataError, match="NaN"):
        zmatrix(species, torch.full_like(x, torch.nan))
    with pytest.raises(DataError, match="on top"):
        zmatrix(species, x / 10)
    with pytest.raises(DataError, match=r"atoms \[1\] apart"):
        zmatrix(torch.tensor([1, 1, 8]), torch.tensor([[0.0, 0, 0], [9, 0, 0], [1, 0, 0]]))
    with pytest.raises(DataError, match="three atoms"):
        zmatrix(*of("N2"))
    with pytest.raises(DataError, match="line"):
        zmatrix(*of("CO2"))
    with pytest.raises(DataError, match="line"):
        zmatrix(*of("CH3CN"))
    with pytest.raises(ShapeError):
        bonds(species[1:], x)


def test_a_matrix_places_parents_first():
    rows = torch.zeros(1, dtype=torch.long)
    ZMatrix(torch.arange(4), rows, rows - 1, rows, rows[:0].reshape(0, 3), rows == 0)
    with pytest.raises(DataError, match="earlier"):
        ZMatrix(torch.arange(4), rows + 3, rows - 1, rows, rows[:0].reshape(0, 3), rows == 0)
    with pytest.raises(DataError, match="level"):
        two = torch.zeros(3, dtype=torch.long)
        ZMatrix(torch.arange(6), torch.tensor([0, 3, 1]), two - 1, two, rows[:0].reshape(0, 3), two > 0)
    with pytest.raises(DataError, match="order"):
        ZMatrix(torch.ones(4, dtype=torch.long), rows, rows - 1, rows, rows[:0].reshape(0, 3), rows == 0)
    with pytest.raises(ShapeError):
        ZMatrix(torch.arange(5), rows, rows - 1, rows, rows[:0].reshape(0, 3), rows == 0)


def test_handedness_is_of_the_geometry():
    _, x = of("CH4")
    species = torch.tensor([6, 1, 9, 17, 35])
    edges = torch.tensor([[0, k] for k in range(1, 5)])
    left, right = zmatrix(species, x, edges), zmatrix(species, x * torch.tensor([1.0, 1.0, -1.0]), edges)
    assert sorted(left.handedness.tolist()) == [-1, 1]
    assert torch.equal(left.handedness, -right.handedness)
    assert not zmatrix(*of("NH3")).handedness.any(), "ammonia inverts"
    assert np.all(zmatrix(*of("CH4")).handedness.abs().numpy() == 1)
