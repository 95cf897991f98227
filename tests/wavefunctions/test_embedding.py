"""Electrons of one spin are exchanged with their channels, and each hears all others."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesmol.wavefunctions.embedding import Embedding
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pair_features import BETWEEN_ELECTRONS, nuclear_lengths, pair_features
from bayesmol.wavefunctions.precision import double


def test_equivariance_and_dependence(lithium_hydride, places):
    with double():
        network = Embedding.of(lithium_hydride, 5, 2)
        weights = network.parameters(np.random.default_rng(0))
        channels = jax.jit(lambda r: network(weights, network.places(r)))
        r = places[0]
        h = np.asarray(channels(r))
        np.testing.assert_allclose(channels(r[[1, 0, 2, 3]])[np.array([1, 0, 2, 3])], h, atol=1e-12)
        assert np.abs(channels(r[[2, 1, 0, 3]])[2] - h[0]).max() > 1e-3, "spins differ"
        for electron in range(4):
            moved = r.copy()
            moved[electron] += 0.3
            assert (np.abs(channels(moved) - h).max(1) > 1e-5).all(), "all hear of it"


def by_hand(network, weights, r, up):
    """Channels by the formula, one pair after the other."""
    count = len(r)
    near = pair_features(r[:, None] - network.positions, nuclear_lengths(network.charges))
    where = np.asarray(network.places(r))
    h = np.einsum("eif,ifw->ew", near, weights["start"]["nuclei"])
    h += weights["start"]["spin"][(np.arange(count) >= up).astype(int)]
    for layer in weights["layers"]:
        message = np.zeros_like(h)
        for i, j in permutations(range(count), 2):
            kind = int((i < up) != (j < up))
            features = np.asarray(pair_features(r[i] - r[j], BETWEEN_ELECTRONS, where[i, 3:] * where[j, 3:]))
            heard = (features @ layer["filter"][kind]) * (h[j] @ layer["sender"][kind]) + features @ layer["pair"][kind]
            message[i] += heard / np.sqrt(count - 1)
        h = h + np.tanh(h @ layer["own"] + message @ layer["message"] + layer["shift"])
    return h


@pytest.mark.parametrize("spin", [0, 2, 4])
def test_messages_by_hand(spin, places):
    molecule = Molecule(np.array([3, 1]), np.array([[0, 0, 0], [0, 0, 3.0]]), spin=spin)
    with double():
        network = Embedding.of(molecule, 5, 2)
        weights = network.parameters(np.random.default_rng(0))
        found = jax.jit(lambda r: network(weights, network.places(r)))(places[0])
        np.testing.assert_allclose(found, by_hand(network, weights, np.asarray(places[0]), molecule.up), atol=1e-12)


def test_a_single_electron():
    with double():
        network = Embedding.of(Molecule.named("H"), 4, 2)
        h = jax.jit(network.__call__)(network.parameters(np.random.default_rng(0)), network.places(jnp.ones((1, 3))))
    assert h.shape == (1, 4)
    assert np.isfinite(h).all()
