"""Without quantum chemistry: determinants of random functions that training makes orbitals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.errors import DataError
from bayesmol.wavefunctions.fermi_net import FermiNet
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double


def test_electrons_are_in_different_functions():
    trial = FermiNet(determinants=2, width=4, functions=2).build(Molecule.named("Li"), seed=0)
    r = np.random.default_rng(0).normal(size=(3, 3, 3))
    with double():
        found = jax.jit(jax.vmap(trial.log_psi, (None, 0)))(trial.parameters, jnp.asarray(r))
    assert np.isfinite(found.log).all()
    assert trial.reference is None


def test_bad_settings():
    with pytest.raises(DataError, match="functions"):
        FermiNet(functions=0)
