"""SchNet: one round by hand, messages that vanish at the cutoff, the laws of energies, and reproducible weights."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from torch.nn.functional import silu

import bayesmol as bm
from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.network import contracted
from bayesmol.potentials.network_schnet import SchNet
from bayesmol.representation.radial import RadialBasis

KNOWN = (1, 6, 8)
SMALL = SchNet(basis=RadialBasis(cutoff=3.5, size=5), features=6, interactions=2, width=4)


@pytest.fixture(scope="module")
def structures():
    return bm.data.load("rmd17/ethanol").structures[:20]


@pytest.fixture
def network():
    return SMALL.network(KNOWN, seed=0)


def features(network, structures):
    return network(network.environments(structures)).detach()


def test_one_round_by_hand(structures):
    network = replace(SMALL, interactions=1).network(KNOWN, seed=0).double()
    environment = network.environments(structures[:1])
    first, second = (layer[0] for layer in network.filters.layers)
    state, found = network.embedding[environment.species], []
    for atom in range(9):
        message = torch.zeros(6, dtype=torch.float64)
        for edge in (environment.first == atom).nonzero()[:, 0]:
            filters = silu(environment.radial[edge] @ first) @ second
            message = message + filters * (state[environment.second[edge]] @ network.sending[0])
        hidden = silu(message @ network.receiving[0].layers[0][0])
        found.append(silu((state[atom] + hidden @ network.receiving[0].layers[1][0]) @ network.last.layers[0][0]))
    torch.testing.assert_close(network(environment), torch.stack(found))


def test_messages_of_standardised_rounds_have_unit_size(network, structures):
    environment = network.environments(structures)
    network.standardise(environment)
    state, filters = network.embedding[environment.species], network.filters(environment.radial)
    for turn in range(2):
        message = network._gathered(turn, state, filters, environment) / network.magnitude[turn]
        torch.testing.assert_close(message.square().mean(), torch.tensor(1.0))
        state = state + network.receiving[turn](message)[0]


def test_standardising_atoms_alone_changes_nothing(network):
    network.standardise(network.environments(Structures.from_ase([Atoms("H"), Atoms("O")])))
    assert bool((network.magnitude == 1).all())


def test_messages_travel_as_far_as_there_are_rounds():
    chain = Atoms("CCCC", [[3.0 * place, 0, 0] for place in range(4)])
    pushed = chain.copy()
    pushed.positions[3, 0] += 0.2
    for rounds, reached in ((1, [False, False, True, True]), (2, [False, True, True, True])):
        network = replace(SMALL, interactions=rounds).network(KNOWN, seed=0)
        before, after = (network(network.environments(Structures.from_ase([a]))) for a in (chain, pushed))
        assert (before != after).any(1).tolist() == reached


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    one, same, other = SMALL.network(KNOWN, seed=3), SMALL.network(KNOWN, seed=3), SMALL.network(KNOWN, seed=4)
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in one.named_parameters():
        assert torch.equal(weight, same.get_parameter(name))
    assert not torch.equal(one.sending, other.sending) and not torch.equal(one.embedding, other.embedding)


def test_weights_go_through_a_state(network, structures):
    network.standardise(network.environments(structures))
    copy = SMALL.network(KNOWN, seed=9)
    copy.load_state_dict(network.state_dict())
    assert torch.equal(features(copy, structures), features(network, structures))


def test_two_copies_far_apart_have_twice_the_energy(network):
    single = molecule("CH3CH2OH")
    far = single.copy()
    far.translate([30.0, 0, 0])
    pair = [
        contracted(network, network.environments(Structures.from_ase([a])), None, forces=False)
        for a in (single, single + far)
    ]
    torch.testing.assert_close(pair[1].energy, 2 * pair[0].energy, rtol=1e-6, atol=1e-6)


def test_single_precision_keeps_symmetries_to_a_millionth(network, structures, normal):
    network.standardise(network.environments(structures))
    turn = -torch.linalg.qr(normal(3, 3))[0]
    moved = replace(structures, positions=structures.positions @ turn.T + 3.0)
    before, after = features(network, structures), features(network, moved)
    assert float((after - before).abs().max() / before.abs().max()) < 2e-6


def test_equal_atoms_may_change_places(network):
    atoms = molecule("CH3CH2OH")
    order = [0, 1, 2, *reversed(range(3, 9))]
    one, other = (network(network.environments(Structures.from_ase([a]))) for a in (atoms, atoms[order]))
    torch.testing.assert_close(other, one[order])


def test_energies_and_forces_are_smooth_across_the_cutoff(network):
    network = network.double()
    distances = [SMALL.basis.cutoff + step for step in (-2e-4, -1e-4, 1e-4)]
    pairs = Structures.from_ase([Atoms("CO", [[0, 0, 0], [0, 0, distance]]) for distance in distances])
    found = contracted(network, network.environments(pairs), torch.ones(4, 1, dtype=torch.float64))
    energy, force = found.energy[:, 0] - found.energy[2, 0], found.forces[5::6, 0].abs()
    assert energy[2] == 0 and force[2] == 0
    assert 3.5 < float(energy[0] / energy[1]) < 4.5 and abs(float(energy[1])) < 1e-6
    assert 1.8 < float(force[0] / force[1]) < 2.2


@pytest.mark.parametrize("bad", [{"features": 0}, {"interactions": 0}, {"width": -1}])
def test_bad_settings(bad):
    with pytest.raises(DataError):
        SchNet(**bad)


def test_unknown_elements(network):
    with pytest.raises(DataError, match="species"):
        network.environments(Structures.from_ase([molecule("NH3")]))
