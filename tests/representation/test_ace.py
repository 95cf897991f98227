"""Invariants of atomic environments: gradients by hand against automatic and numerical ones."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.representation.ace import environments, invariants, mixed
from bayesmol.representation.couplings import couplings
from bayesmol.representation.radial import RadialBasis

BASIS = RadialBasis(cutoff=3.0, size=4)
KNOWN = (1, 6, 8)
DEGREE = 2


def example(normal):
    """A rattled molecule, a small skew cell (atoms see their own images) and a lone atom."""
    ethanol = molecule("CH3OH")
    cell = Atoms(
        "CHO", [[0, 0, 0], [1.1, 0.2, 0.3], [0.4, 1.4, 1.0]], cell=[[2.6, 0, 0], [0.3, 2.8, 0], [0.2, 0.1, 2.9]]
    )
    cell.pbc = True
    ethanol.positions += 0.05 * normal(len(ethanol), 3).numpy()
    return Structures.from_ase([ethanol, cell, Atoms("O")])


def compute(structures, mixing, **kinds):
    return invariants(environments(structures, BASIS, KNOWN, DEGREE), mixing, couplings(DEGREE, 4), **kinds)


def by_centre(structures, mixing):
    """Invariants summed over the centres of each species of each structure: (channels, structures, species, p)."""
    found = compute(structures, mixing, forces=False).values
    kinds = torch.tensor([KNOWN.index(z) for z in structures.species.tolist()])
    key = structures.structure_index * len(KNOWN) + kinds
    shape = (found.shape[0], len(structures) * len(KNOWN), found.shape[-1])
    return found.new_zeros(shape).index_add(1, key, found).unflatten(1, (len(structures), len(KNOWN)))


def five_point(function, step):
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def test_density_by_a_loop(normal):
    structures, mixing = example(normal), normal(DEGREE + 1, 2, 3, 4)
    environment = environments(structures, BASIS, KNOWN, DEGREE)
    want = torch.zeros(2, len(structures.species), 9, dtype=torch.float64)
    for edge, (i, j) in enumerate(zip(environment.first.tolist(), environment.second.tolist(), strict=True)):
        for degree in range(DEGREE + 1):
            weight = mixing[degree, :, int(environment.species[j])] @ environment.radial[edge]
            part = slice(degree**2, (degree + 1) ** 2)
            want[:, i, part] += weight[:, None] * environment.harmonics[edge, part]
    torch.testing.assert_close(mixed(environment, mixing), want, rtol=1e-12, atol=1e-12)


def test_buckets_hold_each_edge_once(normal):
    environment = environments(example(normal), BASIS, KNOWN, DEGREE)
    edges = torch.cat([edges.reshape(-1) for _, edges in environment.buckets])
    assert torch.equal(edges.sort().values, torch.arange(len(environment.first)))
    for members, edges in environment.buckets:
        assert bool((environment.first[edges] == members[:, None]).all())


def test_harmonics_have_unit_mean_square(normal):
    environment = environments(example(normal), BASIS, KNOWN, DEGREE)
    for degree in range(DEGREE + 1):
        power = environment.harmonics[:, degree**2 : (degree + 1) ** 2].square().sum(1)
        torch.testing.assert_close(power, torch.full_like(power, 2 * degree + 1))


def test_forces_by_finite_differences(normal):
    """Along random directions of all atoms; the derivative of each structure is the work of its own atoms."""
    structures, mixing = example(normal), normal(DEGREE + 1, 2, 3, 4)
    forces = compute(structures, mixing).forces
    for _ in range(3):
        direction = normal(*structures.positions.shape)
        work = torch.einsum("katxp,ax->katp", forces, direction)
        total = work.new_zeros(2, len(structures), *work.shape[2:]).index_add(1, structures.structure_index, work)
        slope = five_point(
            lambda h, d=direction: by_centre(replace(structures, positions=structures.positions + h * d), mixing), 1e-4
        )
        torch.testing.assert_close(-total, slope, rtol=1e-7, atol=1e-7 * float(slope.abs().max()))


def test_each_force_component_by_finite_differences(normal):
    structures, mixing = example(normal), normal(DEGREE + 1, 1, 3, 4)
    forces = compute(structures, mixing).forces
    for atom, axis in [(0, 0), (3, 2), (7, 1), (8, 0)]:
        push = torch.zeros_like(structures.positions)
        push[atom, axis] = 1.0
        slope = five_point(
            lambda h, d=push: by_centre(replace(structures, positions=structures.positions + h * d), mixing), 1e-4
        )[:, structures.structure_index[atom]]
        torch.testing.assert_close(-forces[:, atom, :, axis], slope, rtol=1e-7, atol=1e-7 * float(slope.abs().max()))


def test_virials_by_finite_differences(normal):
    structures, mixing = example(normal), normal(DEGREE + 1, 2, 3, 4)
    virials = compute(structures, mixing, forces=False, virials=True).virials
    for x, y in [(0, 0), (1, 1), (2, 2), (0, 1), (1, 0), (1, 2), (0, 2)]:
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[x, y] = 1.0

        def strained(h, strain=strain):
            deform = torch.eye(3, dtype=torch.float64) + h * strain
            positions, cell = structures.positions @ deform.mT, structures.cell @ deform.mT
            return by_centre(replace(structures, positions=positions, cell=cell), mixing)

        slope = five_point(strained, 1e-4)
        torch.testing.assert_close(virials[..., 3 * x + y, :], slope, rtol=1e-7, atol=1e-7 * float(slope.abs().max()))


def test_virials_are_symmetric(normal):
    structures, mixing = example(normal), normal(DEGREE + 1, 2, 3, 4)
    matrix = compute(structures, mixing, virials=True).virials.unflatten(3, (3, 3))
    torch.testing.assert_close(matrix, matrix.transpose(3, 4), rtol=1e-9, atol=1e-9 * float(matrix.abs().max()))


def test_isolated_atoms_give_zeros(normal):
    structures, mixing = Structures.from_ase([Atoms("O"), Atoms("HH", [[0, 0, 0], [0, 0, 9]])]), normal(3, 2, 3, 4)
    found = compute(structures, mixing, virials=True)
    size = len(couplings(DEGREE, 4).invariants)
    assert found.values.shape == (2, 3, size) and not found.values.any()
    assert found.forces.shape == (2, 3, 3, 3, size) and not found.forces.any()
    assert found.virials.shape == (2, 2, 3, 9, size) and not found.virials.any()


def test_isolated_atom_in_a_batch(normal):
    structures, mixing = example(normal), normal(DEGREE + 1, 2, 3, 4)
    found = compute(structures, mixing, virials=True)
    assert not found.values[:, -1].any() and not found.forces[:, -1].any() and not found.virials[:, -1].any()
    assert bool(found.values[:, :-1].any())


def test_differentiable_in_the_mixing(normal):
    structures = example(normal)
    environment, listed = environments(structures, BASIS, KNOWN, DEGREE), couplings(DEGREE, 3)
    mixing, direction = normal(DEGREE + 1, 2, 3, 4), normal(DEGREE + 1, 2, 3, 4)
    base = invariants(environment, mixing, listed, virials=True)
    weights = [normal(*part.shape) / part.numel() for part in (base.values, base.forces, base.virials)]

    def loss(weight):
        found = invariants(environment, weight, listed, virials=True)
        parts = (found.values, found.forces, found.virials)
        return sum((w * part).sum() for w, part in zip(weights, parts, strict=True))

    variable = mixing.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(variable), variable)
    slope = five_point(lambda h: loss(mixing + h * direction), 1e-3)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-8, atol=1e-10)


def test_single_precision(normal):
    structures, mixing = example(normal), normal(DEGREE + 1, 2, 3, 4)
    environment, listed = environments(structures, BASIS, KNOWN, DEGREE), couplings(DEGREE, 3)
    rough = invariants(environment.to(torch.float32), mixing.float(), listed)
    fine = invariants(environment, mixing, listed)
    assert rough.forces.dtype == torch.float32
    assert float((rough.forces - fine.forces).norm() / fine.forces.norm()) < 1e-5


def test_unknown_element(normal):
    with pytest.raises(DataError, match="7"):
        environments(Structures.from_ase(Atoms("N")), BASIS, KNOWN, DEGREE)
