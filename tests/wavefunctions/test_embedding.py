"""Electrons of one spin are exchanged with their channels, and each hears all others."""

import jax
import jax.numpy as jnp
import numpy as np

from bayesmol.wavefunctions.embedding import Embedding
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double


def test_equivariance_and_dependence(lithium_hydride, places):
    with double():
        network = Embedding(lithium_hydride, 5, 2)
        weights = network.parameters(np.random.default_rng(0))
        channels = jax.jit(lambda r: network(weights, r))
        r = places[0]
        h = np.asarray(channels(r))
        np.testing.assert_allclose(channels(r[[1, 0, 2, 3]])[np.array([1, 0, 2, 3])], h, atol=1e-12)
        assert np.abs(channels(r[[2, 1, 0, 3]])[2] - h[0]).max() > 1e-3, "spins differ"
        for electron in range(4):
            moved = r.copy()
            moved[electron] += 0.3
            assert (np.abs(channels(moved) - h).max(1) > 1e-5).all(), "all hear of it"


def test_a_single_electron():
    with double():
        network = Embedding(Molecule.named("H"), 4, 2)
        h = jax.jit(network.__call__)(network.parameters(np.random.default_rng(0)), jnp.ones((1, 3)))
    assert h.shape == (1, 4)
    assert np.isfinite(h).all()
