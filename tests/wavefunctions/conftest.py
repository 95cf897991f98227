"""Small wavefunctions with exact cusps, without quantum chemistry."""

import jax
import numpy as np
import pytest

from bayesmol.wavefunctions.fermi_net import FermiNet
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pauli_net import PauliNet
from bayesmol.wavefunctions.training import Training


@pytest.fixture(scope="session")
def lithium_hydride():
    """Two electrons of each spin about two nuclei."""
    return Molecule.named("LiH")


@pytest.fixture(scope="session")
def stirred(lithium_hydride):
    """A random wavefunction, no weight of which is zero: ``(log_psi, parameters)``."""
    trial = FermiNet(determinants=3, width=6, functions=3).build(lithium_hydride, seed=1)
    leaves, tree = jax.tree.flatten(trial.parameters)
    source = np.random.default_rng(3)
    moved = [leaf + 0.3 * source.normal(size=leaf.shape) for leaf in leaves]
    return trial.log_psi, jax.tree.unflatten(tree, moved)


@pytest.fixture(scope="session")
def helium():
    """Helium after a brief training."""
    training = Training(walkers=64, steps=12, minutes=None, moves=5, burn_in=100, snapshots=2)
    spec = PauliNet(determinants=1, width=4, layers=1, virtuals=0, basis="cc-pvdz", training=training)
    return spec.fit(Molecule.named("He"), seed=0)


@pytest.fixture(scope="session")
def helium_energy(helium):
    """Its energy from 64 walkers and 100 draws."""
    return helium.energy(100, seed=1)


@pytest.fixture
def places():
    """Configurations of four electrons, in bohr."""
    return np.random.default_rng(0).normal(size=(6, 4, 3)) * 1.5
