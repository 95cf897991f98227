"""Exact derivatives of networks that see a structure through radial functions and spherical harmonics only."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from bayesmol.data import Structures
from bayesmol.potentials.network import Network, contracted, design
from bayesmol.potentials.network_atomic import Atomic
from bayesmol.potentials.network_schnet import SchNet
from bayesmol.representation.ace import mixed
from bayesmol.representation.radial import RadialBasis

KNOWN = (1, 6, 8)
BASIS = RadialBasis(cutoff=3.0, size=4)


class Plain(Network):
    """The smallest network: squares of densities, weighted, and one constant feature."""

    def __init__(self, species=KNOWN):
        super().__init__(species, BASIS, 1, 3)
        source = torch.Generator().manual_seed(0)
        self.mixing = torch.nn.Parameter(torch.randn(2, 2, len(species), BASIS.size, generator=source))

    def forward(self, environment):
        density = mixed(environment, self.mixing)
        found = density[..., 1:].square().sum(-1) + density[..., 0].tanh()
        return torch.cat([found.T, torch.ones_like(found[:1].T)], 1)


def networks():
    """One of each kind, in double precision."""
    small = Atomic(basis=BASIS, degree=2, correlation=4, channels=2, hidden=(4,), width=3)
    convolution = SchNet(basis=BASIS, features=4, interactions=2, width=3)
    return {
        "plain": Plain().double(),
        "atomic": small.network(KNOWN, seed=1).double(),
        "schnet": convolution.network(KNOWN, seed=1).double(),
    }


@pytest.fixture(params=["plain", "atomic", "schnet"])
def network(request):
    return networks()[request.param]


@pytest.fixture
def frames():
    """A molecule, an atom alone and a crowded skewed cell with images of its own atoms."""
    cell = Atoms("CO", [[0, 0, 0], [1.0, 0.5, 0.3]], cell=[[2.5, 0, 0], [0.3, 2.6, 0], [0, 0.2, 2.7]], pbc=True)
    water = molecule("H2O")
    water.rotate(33, (1, 2, 3))
    return [water, Atoms("H"), cell]


@pytest.fixture
def structures(frames):
    return Structures.from_ase(frames)


@pytest.fixture
def heads(normal):
    return normal(3, 2)


def energies(network, structures, heads):
    found = contracted(network, network.environments(structures), heads, forces=False)
    assert found.forces is None and found.virial is None
    return found.energy


def slope(function, step=1e-4):
    """Derivative at 0 by five points."""
    near, far = function(step) - function(-step), function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)


def test_forces_are_minus_the_slopes_of_the_energies(network, structures, heads, normal):
    direction = normal(*structures.positions.shape)

    def moved(t):
        return energies(network, replace(structures, positions=structures.positions + t * direction), heads)

    found = contracted(network, network.environments(structures), heads)
    work = (found.forces.unflatten(0, (-1, 3)) * direction[..., None]).sum(1)
    rates = torch.zeros(3, 2, dtype=torch.float64).index_add(0, structures.structure_index, work)
    torch.testing.assert_close(rates, -slope(moved), rtol=1e-7, atol=1e-9)
    assert bool((rates[[0, 2]].abs() > 1e-3).all()) and bool((rates[1] == 0).all())


def test_virials_are_the_slopes_along_strains(network, structures, heads, normal):
    strain = normal(3, 3)

    def strained(t):
        map_ = torch.eye(3, dtype=torch.float64) + t * strain
        return replace(structures, positions=structures.positions @ map_, cell=structures.cell @ map_)

    found = contracted(network, network.environments(structures), heads, forces=False, virial=True)
    assert found.forces is None
    work = (found.virial.unflatten(0, (3, 3, 3)) * strain[None, :, :, None]).sum((1, 2))
    expected = slope(lambda t: energies(network, strained(t), heads))
    torch.testing.assert_close(work, expected, rtol=1e-7, atol=1e-9)
    assert bool((work[2].abs() > 1e-3).all())


def test_virials_are_symmetric_and_forces_cancel(network, structures, heads):
    found = contracted(network, network.environments(structures), heads, virial=True)
    virial = found.virial.unflatten(0, (3, 3, 3))
    torch.testing.assert_close(virial, virial.transpose(1, 2))
    total = torch.zeros(3, 3, 2, dtype=torch.float64)
    total = total.index_add(0, structures.structure_index, found.forces.unflatten(0, (-1, 3)))
    torch.testing.assert_close(total, torch.zeros_like(total), rtol=0, atol=1e-12)


def test_several_last_layers_are_one_after_another(network, structures, heads):
    environment = network.environments(structures)
    together = contracted(network, environment, heads, virial=True)
    alone = [contracted(network, environment, head[:, None], virial=True) for head in heads.T]
    for name in ("energy", "forces", "virial", "atomic"):
        each = torch.cat([getattr(found, name) for found in alone], 1)
        torch.testing.assert_close(getattr(together, name), each, rtol=1e-12, atol=1e-12)


def test_the_design_times_a_last_layer_is_its_energy(network, structures, heads):
    environment = network.environments(structures)
    rows, found = design(network, environment, virial=True), contracted(network, environment, heads, virial=True)
    assert rows.energy.shape == (3, 3) and rows.forces.shape == (18, 3) and rows.virial.shape == (27, 3)
    for name in ("energy", "forces", "virial", "atomic"):
        torch.testing.assert_close(getattr(rows, name) @ heads, getattr(found, name), rtol=1e-12, atol=1e-12)
    assert torch.equal(rows.species, environment.species)
    assert not rows.energy.requires_grad and not rows.forces.requires_grad


def test_energies_are_the_sums_of_atomic_energies(network, structures, heads):
    found = contracted(network, network.environments(structures), heads, forces=False)
    torch.testing.assert_close(found.energy[0], found.atomic[:3].sum(0))
    torch.testing.assert_close(found.energy[1], found.atomic[3])


@pytest.mark.parametrize("columns", [1, 2])
def test_a_graph_differentiates_energies_forces_and_virials_by_the_weights(network, structures, heads, normal, columns):
    environment, heads = network.environments(structures), heads[:, :columns].requires_grad_()
    pull, stress = normal(18, columns), normal(27, columns)

    def loss():
        found = contracted(network, environment, heads, virial=True, graph=True)
        return found.energy.sum() + (found.forces * pull).square().sum() + (found.virial * stress).square().sum()

    weights = [*network.parameters(), heads]
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
    directions = [normal(*weight.shape) for weight in weights]
    expected = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)

    def moved(t):
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight += t * direction
        found = loss().detach()
        with torch.no_grad():
            for weight, direction in zip(weights, directions, strict=True):
                weight -= t * direction
        return found

    torch.testing.assert_close(expected, slope(moved, 1e-5), rtol=1e-6, atol=1e-7)


def test_without_a_graph_nothing_is_kept(network, structures, heads):
    found = contracted(network, network.environments(structures), heads.requires_grad_(), virial=True)
    assert not any(getattr(found, name).requires_grad for name in ("energy", "forces", "virial", "atomic"))


def test_atoms_alone_feel_nothing(network, heads):
    structures = Structures.from_ase([Atoms("H"), Atoms("O"), Atoms("HH", [[0, 0, 0], [0, 0, 50.0]])])
    found = contracted(network, network.environments(structures), heads, virial=True)
    assert bool((found.forces == 0).all()) and bool((found.virial == 0).all())
    torch.testing.assert_close(found.energy[2], 2 * found.energy[0])
    assert bool(found.energy.isfinite().all())


def test_rotations_and_inversion_turn_forces_and_virials(network, structures, heads, normal):
    turn = -torch.linalg.qr(normal(3, 3))[0]
    turned = replace(structures, positions=structures.positions @ turn.T, cell=structures.cell @ turn.T)
    before, after = (contracted(network, network.environments(s), heads, virial=True) for s in (structures, turned))
    torch.testing.assert_close(after.energy, before.energy, rtol=1e-12, atol=1e-12)
    forces = torch.einsum("xy,ayc->axc", turn, before.forces.unflatten(0, (-1, 3)))
    torch.testing.assert_close(after.forces.unflatten(0, (-1, 3)), forces, rtol=1e-11, atol=1e-11)
    virial = torch.einsum("xy,syzc,wz->sxwc", turn, before.virial.unflatten(0, (3, 3, 3)), turn)
    torch.testing.assert_close(after.virial.unflatten(0, (3, 3, 3)), virial, rtol=1e-11, atol=1e-11)


def test_a_larger_cell_holds_proportionally_more(network, heads):
    cell = bulk("C", cubic=True)
    cell.rattle(0.1, seed=0)
    found = [
        contracted(network, network.environments(Structures.from_ase([atoms])), heads, virial=True)
        for atoms in (cell, cell * (1, 2, 1))
    ]
    torch.testing.assert_close(found[1].energy, 2 * found[0].energy)
    torch.testing.assert_close(found[1].virial, 2 * found[0].virial)
    torch.testing.assert_close(found[1].forces, found[0].forces.repeat(2, 1))


def test_environments_follow_the_precision_of_the_weights(structures):
    single = Plain().environments(structures)
    assert single.radial.dtype == single.harmonics_slope.dtype == torch.float32
    assert Plain().double().environments(structures.to(dtype=torch.float32)).vectors.dtype == torch.float64
    assert single.harmonics.shape[1] == 4
