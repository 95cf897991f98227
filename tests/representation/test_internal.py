import math

import pytest
import torch
from ase.build import molecule

from bayesmol.errors import ShapeError
from bayesmol.representation.internal import dihedral, internal_coordinates, internal_volume, positions, wrapped
from bayesmol.representation.zmatrix import ZMatrix, zmatrix


def random_tree(atoms, source):
    """A Z-matrix of random parents, in a random order of atoms."""
    parents = sorted(int(torch.randint(0, p, (), generator=source)) for p in range(3, atoms))
    parents = [min(parent, row + 2) for row, parent in enumerate(parents)]
    first = {}
    siblings = [first.setdefault(p, row) for row, p in enumerate(parents)]
    siblings = [-1 if s == row else s for row, s in enumerate(siblings)]
    none = torch.zeros(atoms - 3, dtype=torch.long)
    order = torch.randperm(atoms, generator=source)
    rotors = none[:0].reshape(0, 3)
    return ZMatrix(
        order, torch.tensor(parents, dtype=torch.long), torch.tensor(siblings).long(), none, rotors, none > 0
    )


def random_rows(atoms, points, source):
    rand = lambda *shape: torch.rand(*shape, generator=source, dtype=torch.float64)  # noqa: E731
    lengths = 0.8 + rand(points, atoms - 1)
    angles = 0.1 + (math.pi - 0.2) * rand(points, atoms - 2)
    return lengths, angles, wrapped(2 * math.pi * rand(points, atoms - 3))


def volume_by_autograd(lengths, angles, torsions, matrix):
    """Of the map to orthonormal coordinates of centred configurations, with the generators of the rotations."""
    sizes = [q.shape[1] for q in (lengths, angles, torsions)]
    rows = torch.cat([lengths, angles, torsions], 1)
    jacobian = torch.autograd.functional.jacobian(lambda q: positions(*q.split(sizes, 1), matrix)[0], rows)
    x = positions(lengths, angles, torsions, matrix).reshape(-1, 3)
    generators = torch.stack([torch.linalg.cross(axis.expand_as(x), x) for axis in torch.eye(3).double()], -1)
    square = torch.cat([jacobian[:, 0], generators.flatten(0, 1)], 1)
    # Columns are centred: the three further directions are those of the translations, orthonormal.
    shifts = torch.eye(3).double().repeat(len(x), 1) / math.sqrt(len(x))
    return math.log(8 * math.pi**2) + torch.linalg.slogdet(torch.cat([square, shifts], 1)).logabsdet


@pytest.mark.parametrize("atoms", [3, 4, 5, 8, 13, 22])
def test_round_trip_of_random_trees(atoms, source):
    for _ in range(5):
        matrix = random_tree(atoms, source)
        rows = random_rows(atoms, 20, source)
        x = positions(*rows, matrix)
        lengths, angles, torsions = internal_coordinates(x, matrix)
        assert (lengths - rows[0]).abs().max() < 1e-10
        assert (angles - rows[1]).abs().max() < 1e-10
        assert not len(matrix.parents) or wrapped(torsions - rows[2]).abs().max() < 1e-8
        again = positions(lengths, angles, torsions, matrix)
        assert (again - x).abs().max() < 1e-9
        assert x.reshape(20, atoms, 3).mean(1).abs().max() < 1e-12


@pytest.mark.parametrize("atoms", [3, 4, 6, 9])
def test_volume_is_that_of_autograd(atoms, source):
    for _ in range(3):
        matrix, rows = random_tree(atoms, source), random_rows(atoms, 1, source)
        want = volume_by_autograd(*rows, matrix)
        assert float(internal_volume(*rows[:2])[0]) == pytest.approx(float(want), abs=1e-9)


def test_float32(source):
    matrix, rows = random_tree(12, source), random_rows(12, 50, source)
    x = positions(*(q.float() for q in rows), matrix)
    assert x.dtype == torch.float32
    assert (x - positions(*rows, matrix)).abs().max() < 1e-5


def test_rotation_translation_and_mirror(source):
    atoms = molecule("CH3CONH2")
    x = torch.tensor(atoms.positions)
    matrix = zmatrix(torch.tensor(atoms.numbers), x)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=source, dtype=torch.float64))
    turn = turn * torch.linalg.det(turn)
    here = internal_coordinates(x.reshape(1, -1), matrix)
    there = internal_coordinates((x @ turn + 7).reshape(1, -1), matrix)
    mirrored = internal_coordinates((x * torch.tensor([1.0, 1.0, -1.0])).reshape(1, -1), matrix)
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(mirrored[1], here[1])
    torch.testing.assert_close(wrapped(mirrored[2] + here[2]).cos(), torch.ones_like(here[2]))


def test_dihedral_is_that_of_ase():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=1)
    quadruples = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2], [5, 1, 2, 3]])
    want = [atoms.get_dihedral(*q) for q in quadruples.tolist()]
    got = dihedral(torch.tensor(atoms.positions).reshape(1, -1), quadruples)[0]
    assert wrapped(got - torch.tensor(want).deg2rad()).abs().max() < 1e-10


def test_siblings_are_relative(source):
    atoms = molecule("C2H6")
    x = torch.tensor(atoms.positions)
    matrix = zmatrix(torch.tensor(atoms.numbers), x)
    torsions = internal_coordinates(x.reshape(1, -1), matrix)[2][0]
    torch.testing.assert_close(torsions[matrix.siblings >= 0].abs(), torch.full((2,), 2 * math.pi / 3).double())


def test_gradients(source):
    matrix, rows = random_tree(6, source), random_rows(6, 2, source)
    rows = tuple(q.requires_grad_() for q in rows)
    assert torch.autograd.gradcheck(lambda *q: positions(*q, matrix), rows)
    x = positions(*rows, matrix).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda q: internal_coordinates(q, matrix), x)


def test_bad_input(source):
    with pytest.raises(ShapeError, match="points, 18"):
        internal_coordinates(torch.zeros(2, 15), random_tree(6, source))


def test_wrapped():
    angles = torch.tensor([-math.pi, 0.5, 3.5, -4.0, 9.0], dtype=torch.float64)
    assert ((wrapped(angles) >= -math.pi) & (wrapped(angles) < math.pi)).all()
    torch.testing.assert_close(wrapped(angles).sin(), angles.sin())
