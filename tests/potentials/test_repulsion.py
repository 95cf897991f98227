"""Short-range repulsion: derivatives, the law of Ziegler, Biersack and Littmark, and silence at bonding distances."""

import math
from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.units import Bohr, Hartree

from bayesmol.data import Structures, load
from bayesmol.potentials.repulsion import repulsion
from bayesmol.representation.radial import covalent_radii


def pair(symbols, distance):
    return Structures.from_ase(Atoms(symbols, [[0, 0, 0], [0, 0, distance]]))


def crowded(normal):
    """Compressed molecule and cell, where atoms are within the fading range, and a lone atom."""
    squeezed = molecule("CH3OH")
    squeezed.positions *= 0.6
    squeezed.positions += 0.03 * normal(6, 3).numpy()
    cell = Atoms("CHO", [[0, 0, 0], [0.6, 0.2, 0.1], [0.3, 0.8, 0.5]], cell=[[1.5, 0, 0], [0.2, 1.4, 0], [0, 0.1, 1.2]])
    cell.pbc = True
    return Structures.from_ase([squeezed, cell, Atoms("O")])


def five_point(function, step=1e-4):
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def test_forces_by_finite_differences(normal):
    structures = crowded(normal)
    found = repulsion(structures)
    assert bool((found.energies[:2] > 1).all())
    for _ in range(4):
        direction = normal(*structures.positions.shape)
        work = (found.forces * direction).sum(1)
        total = torch.zeros(3).double().index_add(0, structures.structure_index, work)
        slope = five_point(
            lambda h, d=direction: repulsion(replace(structures, positions=structures.positions + h * d)).energies
        )
        torch.testing.assert_close(-total, slope, rtol=1e-7, atol=1e-7 * float(slope.abs().max()))
    net = torch.zeros(3, 3).double().index_add(0, structures.structure_index, found.forces)
    assert float(net.abs().max()) < 1e-10 * float(found.forces.abs().max())


def test_virials_by_finite_differences(normal):
    structures = crowded(normal)
    found = repulsion(structures)
    for x, y in [(0, 0), (1, 1), (2, 2), (0, 1), (2, 0), (1, 2)]:
        strain = torch.zeros(3, 3).double()
        strain[x, y] = 1.0

        def energy(h, strain=strain):
            deform = torch.eye(3).double() + h * strain
            return repulsion(
                replace(structures, positions=structures.positions @ deform.mT, cell=structures.cell @ deform.mT)
            ).energies

        slope = five_point(energy, 3e-5)
        torch.testing.assert_close(found.virials[:, x, y], slope, rtol=1e-6, atol=1e-6 * float(slope.abs().max()))


def law(first, second, distance):
    """Universal screening function in Hartree units, written out independently."""
    length = 0.8854 / (first**0.23 + second**0.23)
    x = distance / Bohr / length
    screen = 0.18175 * math.exp(-3.1998 * x) + 0.50986 * math.exp(-0.94229 * x)
    screen += 0.28022 * math.exp(-0.4029 * x) + 0.02817 * math.exp(-0.20162 * x)
    return Hartree * first * second / (distance / Bohr) * screen


@pytest.mark.parametrize(("symbols", "numbers"), [("HH", (1, 1)), ("CH", (6, 1)), ("OC", (8, 6)), ("SiO", (14, 8))])
def test_is_the_published_law_below_the_fade(symbols, numbers):
    contact = float(covalent_radii(torch.tensor(numbers)).sum())
    for share in (0.3, 0.4, 0.4999):
        energy = float(repulsion(pair(symbols, share * contact)).energies)
        assert energy == pytest.approx(law(*numbers, share * contact), rel=1e-6)
    half = float(repulsion(pair(symbols, 0.65 * contact)).energies)
    assert half == pytest.approx(0.5 * law(*numbers, 0.65 * contact), rel=1e-6)


@pytest.mark.parametrize("symbols", ["HH", "CH", "CC", "OH"])
def test_overlapping_atoms_cost_more_than_ten_volts(symbols):
    found = repulsion(pair(symbols, 0.3))
    assert float(found.energies) > 10
    assert float(found.forces[1, 2]) > 10 and float(found.forces[0, 2]) < -10


@pytest.mark.parametrize("symbols", ["HH", "CO"])
def test_falls_with_the_distance(symbols):
    contact = float(covalent_radii(pair(symbols, 1.0).species).sum())
    distances = torch.linspace(0.2, 1.1, 60).mul(contact).tolist()
    energies = torch.cat([repulsion(pair(symbols, r)).energies for r in distances])
    assert bool((energies.diff() <= 0).all()) and float(energies[-1]) == 0


def test_bonded_ethanol_feels_nothing():
    found = repulsion(load("rmd17/ethanol")[:200].structures)
    assert float(found.energies.abs().max()) < 1e-3 and float(found.forces.abs().max()) < 1e-2


def test_batch_equals_members_and_empty_lists_are_zero(normal):
    structures = crowded(normal)
    found = repulsion(structures)
    parts = [repulsion(structures[k]) for k in range(3)]
    for name in ("energies", "forces", "virials"):
        torch.testing.assert_close(getattr(found, name), torch.cat([getattr(part, name) for part in parts]))
    assert not parts[2].energies.any() and not parts[2].forces.any() and not parts[2].virials.any()
