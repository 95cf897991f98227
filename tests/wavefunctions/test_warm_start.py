from dataclasses import replace

import jax
import numpy as np
import pytest

from bayesmol.wavefunctions.ansatz import Trial
from bayesmol.wavefunctions.fermi_net import FermiNet
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.orbital_network import OrbitalNetwork
from bayesmol.wavefunctions.pauli_net import _Fixed
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals
from bayesmol.wavefunctions.warm_start import warm_start

FERMI = FermiNet(determinants=1, width=4, layers=1, functions=2)


def hydrogen(distance):
    return Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, distance]]))


def fixed(distance, coefficients, mixing):
    """Two electrons in given combinations of a Slater function on each nucleus."""
    molecule = hydrogen(distance)
    orbitals = SlaterOrbitals(molecule.positions, np.ones(2), np.asarray(coefficients), ((0, 0, 0),) * 2)
    network = OrbitalNetwork.of(molecule, _Fixed(orbitals), (mixing, mixing), width=4, layers=1, backflow=True)
    parameters = network.parameters({}, np.ones(1), np.random.default_rng(0))
    return Trial(molecule, network, parameters)


def stirred(parameters):
    source = np.random.default_rng(0)
    return jax.tree.map(lambda x: np.asarray(x) + 0.1 * source.normal(size=np.shape(x)), parameters)


@pytest.fixture
def walkers():
    return np.random.default_rng(1).normal(size=(200, 2, 3)) + np.array([0, 0, 0.7])


def occupied(trial, parameters, r):
    """Occupied orbitals of both spins at given channels, with their backflow."""
    h = np.random.default_rng(2).normal(size=(len(r), 4))
    with double():
        functions = trial.log_psi.basis(parameters["basis"], r)
        return np.stack([np.asarray(trial.log_psi._orbitals(parameters, spin, functions, h)) for spin in (0, 1)])


BONDING = [[0.5, 0.7], [0.5, -0.7]]
FIRST = np.array([[[1.0], [0.0]]])


def test_orbitals_in_another_order_and_with_another_sign_give_the_same_wavefunction(walkers):
    old = fixed(1.4, BONDING, FIRST)
    new = fixed(1.4, np.array(BONDING)[:, ::-1] * [-1, 1], FIRST[:, ::-1])
    learned = stirred(old.parameters)
    carried = warm_start(new, old, learned, walkers)
    points = walkers[:20, 0]
    wanted = occupied(old, learned, points)
    np.testing.assert_allclose(occupied(new, carried.parameters, points), wanted, atol=1e-10)
    assert not np.allclose(occupied(new, learned, points), wanted, atol=0.1)
    for name in ("embedding", "jastrow", "cusps", "coefficients"):
        jax.tree.map(np.testing.assert_array_equal, carried.parameters[name], learned[name])


def test_of_the_coefficients_the_change_is_carried(walkers):
    old, new = fixed(1.4, BONDING, FIRST), fixed(1.5, np.array(BONDING)[:, ::-1] * [-1, 1], FIRST[:, ::-1])
    learned = {**old.parameters, "coefficients": np.asarray(old.parameters["coefficients"]) + 0.25}
    new = replace(new, parameters={**new.parameters, "coefficients": np.array([0.5])})
    carried = warm_start(new, old, learned, walkers).parameters["coefficients"]
    np.testing.assert_allclose(carried, [0.75])


def test_a_near_geometry_keeps_the_occupied_orbital(walkers):
    old, new = fixed(1.4, BONDING, FIRST), fixed(1.5, np.array(BONDING)[:, ::-1], FIRST)
    carried = warm_start(new, old, old.parameters, walkers).parameters["mixing"][0]
    assert abs(float(carried[0, 1, 0])) == pytest.approx(1, abs=0.1)
    assert abs(float(carried[0, 0, 0])) < 0.1


def test_orbitals_that_cannot_be_expressed_start_anew_but_the_network_is_carried(walkers):
    old = fixed(1.4, BONDING, FIRST)
    poor = np.array([[0.5, 0.5], [-0.5, -0.5]])  # antibonding only
    new, learned = fixed(1.4, poor, FIRST), stirred(old.parameters)
    carried = warm_start(new, old, learned, walkers).parameters
    np.testing.assert_array_equal(carried["mixing"][0], FIRST)
    np.testing.assert_array_equal(carried["jastrow"]["out"], learned["jastrow"]["out"])


def test_learned_orbitals_are_carried_as_they_are(walkers):
    old, new = (FERMI.build(hydrogen(distance), seed=seed) for seed, distance in enumerate((1.4, 1.6)))
    assert warm_start(new, old, old.parameters, walkers).parameters is old.parameters


def test_another_form_starts_anew(walkers):
    old, new = FERMI.build(hydrogen(1.4), seed=0), replace(FERMI, width=5).build(hydrogen(1.4), seed=0)
    assert warm_start(new, old, old.parameters, walkers) is new
    other = fixed(1.4, BONDING, FIRST)
    assert warm_start(other, old, old.parameters, walkers) is other
    ion = Molecule(np.array([1, 1]), np.array([[0, 0, 0], [0, 0, 1.4]]), spin=2)
    triplet = FERMI.build(ion, seed=0)
    assert warm_start(triplet, old, old.parameters, walkers) is triplet
