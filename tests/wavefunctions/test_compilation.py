"""What is compiled for one geometry serves all, and with their own numbers."""

from types import SimpleNamespace

import jax
import numpy as np

from bayesmol.wavefunctions import PauliNet
from bayesmol.wavefunctions.compilation import shared
from bayesmol.wavefunctions.curves import stretched
from bayesmol.wavefunctions.evaluation import Evaluation
from bayesmol.wavefunctions.local_energy import Nuclei, local_energies
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.optimise import Spring
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training_step import compiled
from bayesmol.wavefunctions.walkers import MALA

TRACED = []


def scaled(factors, power, x):
    TRACED.append(power)
    return factors["one"] * x**power


def test_arrays_are_arguments_and_all_else_is_not():
    TRACED.clear()
    found = [float(shared(scaled, {"one": np.array(one)}, power)(3.0)) for one, power in [(2.0, 2), (5.0, 2), (2.0, 3)]]
    assert found == [18, 45, 54]
    assert TRACED == [2, 3], "the second call is compiled already"


def energies(log_psi, molecule, parameters, r):
    TRACED.append(molecule.up)
    return local_energies(log_psi, molecule)(parameters, r).total


def test_training_and_sampling_of_a_neighbour_are_those_of_the_first():
    """Each compiled function of a second geometry is the very one of the first, with other arrays."""
    found = []
    for length in (1.4, 2.0):
        molecule = stretched(Molecule.named("H2"), length)
        with double():
            trial = PauliNet(determinants=2, width=4, layers=1).build(molecule, seed=0)
        steps = compiled(trial.log_psi, molecule, MALA(), Spring(), 5.0, 100)
        found.append([step.func for step in (*steps, Evaluation(trial.log_psi, molecule)._block)])
    assert all(first is second for first, second in zip(*found, strict=True))


def test_charges_of_a_system_of_ones_own_stay_as_they_are():
    nuclei = Nuclei.of(SimpleNamespace(charges=[0.5], positions=np.zeros((1, 3)), nuclear_repulsion=0.0, up=1, down=0))
    assert nuclei.charges.tolist() == [0.5]


def test_a_second_geometry_compiles_nothing():
    TRACED.clear()
    r = np.random.default_rng(0).normal(size=(5, 2, 3))
    for length in (1.4, 2.0):
        molecule = stretched(Molecule.named("H2"), length)
        with double():
            trial = PauliNet(determinants=2, width=4, layers=1).build(molecule, seed=0)
            found = shared(energies, trial.log_psi, Nuclei.of(molecule))(trial.parameters, r)
            wanted = jax.jit(local_energies(trial.log_psi, molecule))(trial.parameters, r).total
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
    assert TRACED == [1]
