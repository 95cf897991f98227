"""Feasible permutations of molecules whose groups are known."""

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from bayesmol.errors import DataError
from bayesmol.representation.symmetry import Topology


def frames(atoms, normal, count=20, noise=0.03):
    positions = torch.tensor(atoms.positions)
    return positions + noise * normal(count, *positions.shape), torch.tensor(atoms.numbers).long()


GROUPS = {
    "H2O": 2,
    "NH3": 6,
    "CH3CH2OH": 6,  # methyl rotation, and reflection together with the methylene group
    "CH3OH": 6,
    "C2H4": 4,  # the ends of a double bond do not turn
    "C6H6": 12,
    "CO2": 2,
    "HCN": 1,
}


def closed(group):
    members = set(map(tuple, group.tolist()))
    return len(members) == len(group) and all(tuple(p[q].tolist()) in members for p in group for q in group)


@pytest.mark.parametrize("name", ["H2O", "NH3", "CH3CH2OH", "CH3OH", "C2H4", "C6H6", "CO2", "HCN"])
@pytest.mark.parametrize("count", [1, 20])
def test_known_groups(name, count, normal):
    positions, species = frames(molecule(name), normal, count)
    group = Topology.of(positions, species).permutations()
    assert len(group) == GROUPS[name]
    assert torch.equal(group[0], torch.arange(len(species)))
    assert bool((species[group] == species).all())
    assert closed(group)


def test_permutations_keep_the_bonds(normal):
    topology = Topology.of(*frames(molecule("CH3CH2OH"), normal))
    for p in topology.permutations():
        assert torch.equal(topology.graph[p][:, p], topology.graph)


def test_handedness_forbids_the_exchange_of_two_hydrogens_alone(normal):
    topology = Topology.of(*frames(molecule("CH3CH2OH"), normal))
    group = topology.permutations()
    parity = (group != torch.arange(9)).sum(1)
    assert 2 not in parity.tolist(), "an exchange of one pair would turn one centre inside out"


def test_a_group_comes_out_of_the_bond_graph_not_of_the_order_of_atoms(normal, source):
    positions, species = frames(molecule("CH3CH2OH"), normal)
    order = torch.randperm(9, generator=source)
    group = Topology.of(positions, species).permutations()
    moved = Topology.of(positions[:, order], species[order]).permutations()
    inverse = order.argsort()
    assert {tuple(inverse[p[order]].tolist()) for p in group} == set(map(tuple, moved.tolist()))


def test_orders_recognise_shuffled_atoms(normal, source):
    positions, species = frames(molecule("CH3CH2OH"), normal)
    topology = Topology.of(positions, species)
    group = set(map(tuple, topology.permutations().tolist()))
    shuffles = torch.stack([torch.randperm(9, generator=source) for _ in positions])
    moved = positions.gather(1, shuffles[..., None].expand(-1, -1, 3))
    found = shuffles.gather(1, topology.orders(moved, species[shuffles]))
    assert {tuple(p) for p in found.tolist()} <= group
    assert torch.equal(topology.orders(positions, species.expand(20, -1)), torch.arange(9).expand(20, -1))


def test_orders_keep_a_frame_with_a_broken_bond_and_refuse_it_shuffled(normal):
    positions, species = frames(molecule("CH3CH2OH"), normal)
    topology = Topology.of(positions, species)
    broken = positions[:1].clone()
    broken[0, 3] += 5.0
    assert torch.equal(topology.orders(broken, species[None])[0], torch.arange(9))
    order = torch.arange(9).flip(0)
    with pytest.raises(DataError, match="order of the training structures"):
        topology.orders(broken[:, order], species[order][None])


def test_kinds_are_constant_on_orbits_and_tell_bonds_from_contacts(normal):
    topology = Topology.of(*frames(molecule("H2O"), normal))
    assert topology.kinds().unique().numel() == 2
    water = topology.kinds()
    assert water[0] == water[1] != water[2], "O-H, O-H, H-H"


def test_a_cluster_of_unbonded_atoms_asks_for_permutations(normal):
    cluster = Atoms("Ar8", positions=[[6.0 * i, 0, 0] for i in range(8)])
    with pytest.raises(DataError, match="give the permutations"):
        Topology.of(*frames(cluster, normal)).permutations()
