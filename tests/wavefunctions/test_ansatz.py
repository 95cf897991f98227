"""What every ansatz shares: it builds, it trains, and keeps what it was made from."""

import jax
import numpy as np

from bayesmol.wavefunctions.ansatz import Ansatz, Trial
from bayesmol.wavefunctions.fermi_net import FermiNet
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.training import Training


def test_fit_trains_what_build_made():
    training = Training(walkers=16, steps=2, minutes=None, moves=2, burn_in=10, snapshots=1)
    spec = FermiNet(determinants=1, width=3, layers=1, functions=1, training=training)
    assert isinstance(spec, Ansatz)
    molecule = Molecule.named("H")
    trial, fitted = spec.build(molecule, seed=4), spec.fit(molecule, seed=4)
    assert isinstance(trial, Trial)
    assert fitted.ansatz is spec and fitted.molecule == molecule and fitted.seed == 4
    first, second = (jax.tree.leaves(one.parameters) for one in (trial, fitted.trial))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert len(fitted.history.energy) == 2
