"""Atomic networks: the invariants against their analytic form, the laws of energies, and reproducible weights."""

from dataclasses import replace

import pytest
import torch
from ase import Atoms
from ase.build import molecule

import bayesmol as bm
from bayesmol.data import Structures
from bayesmol.errors import DataError
from bayesmol.potentials.network import contracted
from bayesmol.potentials.network_atomic import SMALLEST_SPREAD, Atomic
from bayesmol.representation.ace import mixed
from bayesmol.representation.polynomials import products
from bayesmol.representation.radial import RadialBasis

KNOWN = (1, 6, 8)
SMALL = Atomic(basis=RadialBasis(cutoff=3.5, size=5), degree=2, correlation=4, channels=3, hidden=(8,), width=4)


@pytest.fixture(scope="module")
def structures():
    return bm.data.load("rmd17/ethanol").structures[:20]


@pytest.fixture
def network():
    return SMALL.network(KNOWN, seed=0)


def features(network, structures):
    return network(network.environments(structures)).detach()


def test_inputs_are_the_invariants_of_the_mixed_density(network, structures):
    network = network.double()
    environment = network.environments(structures[:2])
    values, _ = products(mixed(environment, network.mixing), network.couplings)
    found = network.invariants(environment).unflatten(1, (len(network.couplings.invariants), 3))
    torch.testing.assert_close(found.permute(2, 0, 1), values, rtol=1e-10, atol=1e-12)


def test_standardised_inputs_have_mean_zero_and_variance_one_for_each_element(network, structures):
    network = network.double()
    environment = network.environments(structures)
    network.standardise(environment)
    raw = network.invariants(environment)
    scaled = (raw - network.mean[environment.species]) / network.spread[environment.species]
    for kind in range(3):
        own, before = scaled[environment.species == kind], raw[environment.species == kind]
        torch.testing.assert_close(own.mean(0), torch.zeros_like(own[0]), rtol=0, atol=1e-8)
        varying = before.std(0) > 0.1 * before.square().mean(0).sqrt()
        assert varying.any() and bool((own.std(0)[varying] - 1).abs().max() < 0.03)
        assert bool((own.std(0) < 1.03).all())


def test_an_invariant_that_does_not_vary_is_not_blown_up(network):
    network = network.double()
    environment = network.environments(Structures.from_ase([molecule("CH3OH")] * 3))
    network.standardise(environment)
    only = network.invariants(environment)[environment.species == 2][0].detach()
    torch.testing.assert_close(network.spread[2], SMALLEST_SPREAD * only.abs(), rtol=1e-5, atol=1e-12)


def test_elements_that_are_not_there_keep_their_scales(network):
    network.standardise(network.environments(Structures.from_ase([molecule("H2"), molecule("CH4")])))
    assert bool((network.mean[2] == 0).all()) and bool((network.spread[2] == 1).all())
    assert bool((network.mean[0] != 0).any())


def test_atoms_that_were_always_alone_keep_their_scales(network):
    network.standardise(network.environments(Structures.from_ase([Atoms("H"), Atoms("O")])))
    assert bool((network.mean == 0).all()) and bool((network.spread == 1).all())


def test_each_element_has_its_own_perceptron(network, structures):
    environment = network.environments(structures[:1])
    before = network(environment).detach()
    with torch.no_grad():
        network.perceptron.layers[0][1] += 1.0
    changed = (network(environment).detach() != before).any(1)
    assert torch.equal(changed, environment.species == 1)


def test_same_seed_same_weights_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    one, same, other = SMALL.network(KNOWN, seed=3), SMALL.network(KNOWN, seed=3), SMALL.network(KNOWN, seed=4)
    assert torch.equal(state, torch.get_rng_state())
    for name, weight in one.named_parameters():
        assert torch.equal(weight, same.get_parameter(name))
    assert not torch.equal(one.mixing, other.mixing)
    assert not torch.equal(one.perceptron.layers[0], other.perceptron.layers[0])


def test_weights_go_through_a_state(network, structures):
    network.standardise(network.environments(structures))
    copy = SMALL.network(KNOWN, seed=9)
    copy.load_state_dict(network.state_dict())
    assert torch.equal(features(copy, structures), features(network, structures))


def test_two_copies_far_apart_have_twice_the_energy(network):
    single = molecule("CH3CH2OH")
    far = single.copy()
    far.translate([30.0, 0, 0])
    one, two = (
        contracted(network, network.environments(Structures.from_ase([a])), None, forces=False).energy
        for a in (single, single + far)
    )
    torch.testing.assert_close(two, 2 * one, rtol=1e-6, atol=1e-6)


def test_single_precision_keeps_symmetries_to_a_millionth(network, structures, normal):
    network.standardise(network.environments(structures))
    turn = -torch.linalg.qr(normal(3, 3))[0]
    moved = replace(structures, positions=structures.positions @ turn.T + 3.0)
    before, after = features(network, structures), features(network, moved)
    assert float((after - before).abs().max() / before.abs().max()) < 2e-6
    double = network.double()
    before, after = features(double, structures), features(double, moved)
    assert float((after - before).abs().max() / before.abs().max()) < 1e-12


def test_equal_atoms_may_change_places(network):
    atoms = molecule("CH3CH2OH")
    order = [0, 1, 2, *reversed(range(3, 9))]
    one, other = (network(network.environments(Structures.from_ase([a]))) for a in (atoms, atoms[order]))
    torch.testing.assert_close(other, one[order])


def test_energies_and_forces_are_smooth_across_the_cutoff(network):
    network = network.double()
    cutoff = SMALL.basis.cutoff
    distances = [cutoff + step for step in (-2e-4, -1e-4, 1e-4)]
    pairs = Structures.from_ase([Atoms("CO", [[0, 0, 0], [0, 0, distance]]) for distance in distances])
    found = contracted(network, network.environments(pairs), torch.ones(4, 1, dtype=torch.float64))
    energy, force = found.energy[:, 0] - found.energy[2, 0], found.forces[5::6, 0].abs()
    assert energy[2] == 0 and force[2] == 0
    assert 3.5 < float(energy[0] / energy[1]) < 4.5 and abs(float(energy[1])) < 1e-6
    assert 1.8 < float(force[0] / force[1]) < 2.2


@pytest.mark.parametrize(
    "bad", [{"degree": 0}, {"degree": 5}, {"correlation": 1}, {"correlation": 5}, {"channels": 0}, {"width": 0}]
)
def test_bad_settings(bad):
    with pytest.raises(DataError):
        Atomic(**bad)


def test_unknown_elements(network):
    with pytest.raises(DataError, match="species"):
        network.environments(Structures.from_ase([molecule("NH3")]))
