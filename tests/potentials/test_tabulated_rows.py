"""Sums of splines over pairs against sums of the functions that they stand for."""

import pytest
import torch
from ase import Atoms
from ase.build import bulk

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials import tabulated_rows
from bayesmol.potentials.tabulated_rows import PairTable, portions
from bayesmol.potentials.tabulated_splines import spline_coefficients
from bayesmol.representation.neighbours import neighbours

CUTOFF, KNOTS = 4.0, 400


def functions(distances, pair):
    """Two functions of each pair of elements and their slopes; zero at the cutoff."""
    window, slope = (1 - distances / CUTOFF) ** 2, -2 / CUTOFF * (1 - distances / CUTOFF)
    rate = 1 + pair
    wave = torch.stack([torch.sin(rate * distances), torch.cos(rate * distances)], -1)
    steep = torch.stack([torch.cos(rate * distances), -torch.sin(rate * distances)], -1) * rate
    return window[:, None] * wave, slope[:, None] * wave + window[:, None] * steep


@pytest.fixture
def table():
    places = torch.linspace(0, CUTOFF, KNOTS, dtype=torch.float64)
    splines = []
    for pair in range(3):
        values, slopes = functions(places, pair)
        splines.append(spline_coefficients(values, slopes[[0, -1]], CUTOFF / (KNOTS - 1)))
    constants = torch.tensor([[1.0, 0.5], [2.0, -0.5]], dtype=torch.float64)
    return PairTable((11, 17), CUTOFF, torch.stack(splines), constants)


@pytest.fixture
def structures():
    salt = bulk("NaCl", "rocksalt", a=5.0)
    salt.rattle(0.1, seed=2)
    return Structures.from_ase([Atoms("NaCl2", [[0, 0, 0], [1.2, 0.3, 0], [0.2, -1.5, 0.4]]), salt])


def wanted(structures):
    edges = neighbours(structures, CUTOFF)
    distances = edges.vectors.norm(dim=1)
    kinds = (structures.species == 17).long()
    pair = kinds[edges.first] + kinds[edges.second]  # 0, 1, 2: the order of the table
    values, slopes = functions(distances, 0.0)
    for number in (1, 2):
        own = pair == number
        values[own], slopes[own] = functions(distances[own], number)
    owner = structures.structure_index
    constants = torch.tensor([[1.0, 0.5], [2.0, -0.5]], dtype=torch.float64)[kinds]
    energies = torch.zeros(len(structures), 2, dtype=torch.float64).index_add(0, owner[edges.first], 0.5 * values)
    energies = energies.index_add(0, owner, constants)
    pull = slopes[:, None] * (edges.vectors / distances[:, None])[:, :, None]
    forces = torch.zeros(len(owner), 3, 2, dtype=torch.float64).index_add(0, edges.first, pull)
    strain = 0.5 * pull[:, :, None] * edges.vectors[:, None, :, None]
    virials = torch.zeros(len(structures), 3, 3, 2, dtype=torch.float64).index_add(0, owner[edges.first], strain)
    return energies, forces.flatten(0, 1), virials.flatten(0, 2)


@pytest.mark.parametrize("numbers", [1, 4_000_000])
def test_rows_are_sums_of_the_functions(table, structures, monkeypatch, numbers):
    monkeypatch.setattr(tabulated_rows, "_NUMBERS", numbers)
    edges = table.edges(structures)
    found = table.energies(edges), table.forces(edges), table.virials(edges)
    for got, want in zip(found, wanted(structures), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_the_first_function_edge_by_edge_is_the_first_column(table, structures):
    edges = table.edges(structures)
    energies, forces, virials = table.first(edges, virial=True)
    torch.testing.assert_close(energies, table.energies(edges)[:, 0])
    torch.testing.assert_close(forces.flatten(), table.forces(edges)[:, 0])
    torch.testing.assert_close(virials.flatten(), table.virials(edges)[:, 0])
    assert table.first(edges, virial=False)[2] is None


def test_lonely_atoms_have_constants_alone(table):
    lonely = Structures.from_ase([Atoms("Na"), Atoms("Cl")])
    edges = table.edges(lonely)
    torch.testing.assert_close(table.energies(edges), table.constants)
    assert not table.forces(edges).any()


def test_unknown_elements_are_refused(table):
    with pytest.raises(DataError, match="species"):
        table.edges(Structures.from_ase(Atoms("Ar")))


def test_portions_are_all_structures(structures):
    many = Structures.concatenate([structures] * 5)
    parts = list(portions(many, atoms=6))
    assert len(parts) > 2
    assert torch.equal(torch.cat([part.positions for part in parts]), many.positions)
