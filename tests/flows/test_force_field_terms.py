"""Each term against the plain formula, differentiated by autograd."""

import pytest
import torch

from bayesmol.flows.force_field_terms import NEAREST, Angles, Bonds, Geometry, Nonbonded, Scratch, Torsions, rows

ATOMS = 6


@pytest.fixture
def x(normal):
    """Positions (points, atoms, 3)."""
    return normal(7, ATOMS, 3).requires_grad_()


def laid(x):
    """The same with the axes (3 atoms, points)."""
    return x.detach().permute(2, 1, 0).reshape(-1, len(x))


def check(term, x, energy):
    """Energy and gradient of a term, added to what is there, against autograd of ``energy``."""
    (gradient,) = torch.autograd.grad(energy.sum(), x)
    found, slope = torch.ones(len(x), dtype=torch.float64), torch.ones(3 * ATOMS, len(x), dtype=torch.float64)
    term.add(laid(x), found, slope)
    torch.testing.assert_close(found - 1, energy.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(slope - 1, laid(gradient), rtol=1e-9, atol=1e-9)
    alone = torch.ones(len(x), dtype=torch.float64)
    term.add(laid(x), alone, None)
    assert torch.equal(alone, found)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_rows_take_vectors(x):
    atoms = torch.tensor([[0, 3], [5, 1]])
    index = rows(atoms, ATOMS)
    for place in range(2):
        taken = laid(x).index_select(0, index[place]).view(3, 2, -1)
        torch.testing.assert_close(taken, x.detach()[:, atoms[:, place]].permute(2, 1, 0))


def test_geometry(x):
    pairs = torch.tensor([[0, 1], [2, 5], [4, 3]])
    found = Geometry.of(laid(x), rows(pairs, ATOMS), Scratch(laid(x)))
    want = x.detach()[:, pairs[:, 0]] - x.detach()[:, pairs[:, 1]]
    torch.testing.assert_close(found.difference, want.permute(2, 1, 0))
    torch.testing.assert_close(found.squared, want.square().sum(-1).T)
    torch.testing.assert_close(found.inverse, 1 / want.norm(dim=-1).T)


def test_near_atoms_count_as_at_the_smallest_distance():
    x = torch.zeros(6, 2)
    found = Geometry.of(x, rows(torch.tensor([[0, 1]]), 2), Scratch(x))
    assert found.inverse.tolist() == [[pytest.approx(1 / NEAREST)] * 2]


def test_scratch_gives_memory_again():
    scratch = Scratch(torch.zeros(1))
    first = scratch("a", 3, 4)
    assert first.data_ptr() == scratch("a", 2, 2).data_ptr() != scratch("b", 2, 2).data_ptr()
    assert scratch("a", 10, 10).shape == (10, 10)


def test_bonds(x):
    atoms = torch.tensor([[0, 1], [1, 2], [5, 1], [0, 1]])
    lengths, constants = column(1.0, 1.5, 0.8, 2.0), column(3.0, 1.0, 2.0, 4.0)
    r = (x[:, atoms[:, 0]] - x[:, atoms[:, 1]]).norm(dim=-1)
    energy = (constants[:, 0] * (r - lengths[:, 0]).square() / 2).sum(1)
    check(Bonds(rows(atoms, ATOMS), lengths, constants), x, energy)


def test_angles(x):
    atoms = torch.tensor([[0, 1, 2], [3, 1, 5], [4, 0, 2]])
    values, constants = column(1.0, 2.0, 3.0), column(3.0, 1.0, 2.0)
    a, b = x[:, atoms[:, 0]] - x[:, atoms[:, 1]], x[:, atoms[:, 2]] - x[:, atoms[:, 1]]
    angle = torch.acos((a * b).sum(-1) / a.norm(dim=-1) / b.norm(dim=-1))
    energy = (constants[:, 0] * (angle - values[:, 0]).square() / 2).sum(1)
    check(Angles(rows(atoms, ATOMS), values, constants), x, energy)


@pytest.mark.parametrize("bend", [1e-5, 1e-3])
def test_nearly_straight_angles_keep_their_accuracy(bend):
    place = torch.tensor([[1.0, 0, 0], [0, 0, 0], [-1.0, bend, 0]], dtype=torch.float32)
    term = Angles(rows(torch.tensor([[0, 1, 2]]), 3), torch.zeros(1, 1), torch.ones(1, 1))
    energy = torch.zeros(1)
    term.add(place.T.reshape(9, 1), energy, None)
    angle = torch.pi - torch.atan(torch.tensor(bend, dtype=torch.float64))
    assert float((2 * energy.double()).sqrt()) == pytest.approx(float(angle), abs=3e-7)


def test_torsions(x):
    atoms = torch.tensor([[0, 1, 2, 3], [5, 2, 0, 1]])
    cosines = torch.tensor([[0.3, -1.0], [0.7, 0.2], [0.0, 1.5]], dtype=torch.float64)
    sines = torch.tensor([[0.1, 0.4], [-0.9, 0.0], [0.6, 0.2]], dtype=torch.float64)
    a, b, c, d = (x[:, atoms[:, k]] for k in range(4))
    one, two, three = b - a, c - b, d - c
    left, right = torch.linalg.cross(one, two), torch.linalg.cross(two, three)
    sine = (torch.linalg.cross(left, right) * two).sum(-1) / two.norm(dim=-1)
    angle = torch.atan2(sine, (left * right).sum(-1))
    n = torch.arange(1, 4)[:, None]
    series = cosines * (n * angle[:, None]).cos() + sines * (n * angle[:, None]).sin()
    term = Torsions(rows(atoms, ATOMS), cosines[..., None], sines[..., None], 2.5)
    check(term, x, series.sum((1, 2)) + 2.5)


def test_nonbonded(x):
    """The first two of three pairs interact."""
    pairs = torch.tensor([[0, 1], [2, 5], [4, 3]])
    term = Nonbonded(column(2.0, 0.5), column(1.0, 3.0), column(-1.0, 4.0))
    difference = x[:, pairs[:2, 0]] - x[:, pairs[:2, 1]]
    r = difference.norm(dim=-1).T
    energy = term.repulsion * r**-12 - term.attraction * r**-6 + term.charge / r
    (slope,) = torch.autograd.grad(energy.sum(), r)
    geometry = Geometry.of(laid(x), rows(pairs, ATOMS), Scratch(laid(x)))
    found, change = torch.zeros(7, dtype=torch.float64), torch.zeros(3, 7, dtype=torch.float64)
    term.add(geometry, found, change)
    torch.testing.assert_close(found, energy.detach().sum(0))
    torch.testing.assert_close(change[:2], (slope / r).detach())
    assert not change[2].any()
