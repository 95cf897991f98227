"""The kernel of pair functions, its features, and rows of pair sums against brute force."""

from itertools import product

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.pair_gp_kernel import PairKernel, PairRepresentation, parameters

KERNEL = PairKernel(4.0, 0.25)


@pytest.mark.parametrize("length", [0.08, 0.25, 1.0])
def test_features_are_the_kernel(length):
    kernel = PairKernel(5.0, length)
    distances = torch.linspace(0.02, 5.0, 200, dtype=torch.float64)
    values, _ = kernel(distances)
    assert values.shape[1] == kernel.size
    torch.testing.assert_close(values @ values.mT, kernel.covariance(distances, distances), rtol=0, atol=1e-10)


def test_slopes_are_derivatives():
    distances = torch.linspace(0.3, 3.9, 30, dtype=torch.float64)
    step = 1e-5
    slope = (KERNEL(distances + step)[0] - KERNEL(distances - step)[0]) / (2 * step)
    torch.testing.assert_close(KERNEL(distances)[1], slope, rtol=1e-5, atol=5e-6)


def test_the_kernel_ends_smoothly():
    beyond = torch.tensor([4.0, 4.5], dtype=torch.float64)
    values, slopes = KERNEL(beyond)
    assert not values.any() and not slopes.any()
    near = KERNEL(beyond[:1] - 1e-3)[0]
    assert float(near.abs().max()) < 1e-6


def test_lengths_grow_with_the_distance():
    def correlation(distance, apart=0.3):
        pair = torch.tensor([distance, distance + apart], dtype=torch.float64)
        matrix = KERNEL.covariance(pair, pair)
        return float(matrix[0, 1] / matrix.diagonal().prod().sqrt())

    assert correlation(1.0) < correlation(2.0) < correlation(3.0)


@pytest.mark.parametrize("options", [{"cutoff": 0.0}, {"length_scale": -1.0}, {"length_scale": 1e-4}])
def test_bad_kernels_are_refused(options):
    with pytest.raises(DataError):
        PairKernel(**options)


def test_parameters_make_the_kernel_again():
    assert PairKernel(**parameters(KERNEL)) == KERNEL


@pytest.fixture
def structures():
    salt = bulk("NaCl", "rocksalt", a=4.2, cubic=False)
    salt.rattle(0.05, seed=1)
    return Structures.from_ase([salt, Atoms("NaCl2", [[0, 0, 0], [1.2, 0.3, 0], [0.2, -1.5, 0.4]])])


def brute(structure, weights, representation):
    """Energy by a sum over images, differentiable in the positions."""
    cell, positions, species = structure.cell[0], structure.positions, structure.species.tolist()
    images = list(product(range(-3, 4), repeat=3)) if bool(structure.pbc.any()) else [(0, 0, 0)]
    blocks = weights.view(2, 2, -1)
    energy = positions.new_zeros(())
    for i, j, image in product(range(len(species)), range(len(species)), images):
        if i == j and not any(image):
            continue
        shift = torch.tensor(image, dtype=torch.float64) @ cell
        distance = (positions[j] + shift - positions[i]).norm()
        if distance < representation.basis.cutoff:
            a, b = (representation.species.index(species[k]) for k in (i, j))
            energy = energy + 0.5 * representation.basis(distance[None])[0][0] @ blocks[a, b]
    return energy


def test_rows_are_brute_force(structures, normal):
    representation = PairRepresentation((11, 17), KERNEL)
    weights = normal(4 * KERNEL.size)
    design = representation.design(representation.environments(structures), virial=True)
    torch.testing.assert_close(design.atomic.sum(), design.energy.sum())
    start = 0
    for s in range(2):
        one = structures[s]
        strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
        turn = torch.eye(3, dtype=torch.float64) + strain
        moved = one.positions.clone().requires_grad_()
        deformed = object.__new__(Structures)
        for name, value in {**vars(one), "positions": moved @ turn, "cell": one.cell @ turn}.items():
            object.__setattr__(deformed, name, value)
        energy = brute(deformed, weights, representation)
        torch.testing.assert_close(design.energy[s] @ weights, energy.detach())
        slope, virial = torch.autograd.grad(energy, (moved, strain))
        stop = start + 3 * len(one.species)
        torch.testing.assert_close((design.forces[start:stop] @ weights).view(-1, 3), -slope, atol=1e-9, rtol=1e-7)
        got = (design.virial[9 * s : 9 * s + 9] @ weights).view(3, 3)
        torch.testing.assert_close(got, (virial + virial.mT) / 2, atol=1e-9, rtol=1e-7)
        start = stop
    kinds = torch.tensor([0, 1, 1, 2]).repeat_interleave(KERNEL.size)
    assert torch.equal(representation.families, kinds)


def test_the_energy_feels_the_sum_of_both_orders(structures):
    """f_ab and f_ba together have the covariance of the kernel, so half of their sum has half of it."""
    representation = PairRepresentation((11, 17), KERNEL)
    pair = Structures.from_ase(Atoms("NaCl", [[0, 0, 0], [2.0, 0, 0]]))
    row = representation.design(representation.environments(pair)).energy[0].view(2, 2, -1)
    torch.testing.assert_close(row[0, 1], row[1, 0])
    kernel = KERNEL.covariance(*[torch.tensor([2.0], dtype=torch.float64)] * 2)[0, 0]
    torch.testing.assert_close(row.square().sum(), 0.5 * kernel)


def test_chunks_are_all_structures(monkeypatch):
    from bayesmol.potentials import pair_gp_kernel

    monkeypatch.setattr(pair_gp_kernel, "CHUNK_BYTES", 1)
    water = Structures.from_ase([molecule("H2O")] * 3)
    representation = PairRepresentation((1, 8), KERNEL)
    assert list(representation.chunks(water)) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert representation.composition(water).tolist() == [[2, 1]] * 3
    with pytest.raises(DataError, match="species"):
        representation.environments(Structures.from_ase(molecule("CH4")))
