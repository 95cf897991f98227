"""Hops: their law, and the ratio of its density at the two places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from bayesmol.wavefunctions.exact import hookes_atom, hydrogen
from bayesmol.wavefunctions.hops import NUMBERS, hop
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double


def hopped(molecule, r, seed=0):
    with double():
        normals = jax.random.normal(jax.random.key(seed), (len(r), NUMBERS), jnp.float64)
        return jax.tree.map(np.asarray, hop(molecule)(jnp.asarray(r), normals))


def test_near_one_proton_the_radius_has_a_gamma_law():
    old = np.full((4000, 1, 3), 0.5)
    found = hopped(hydrogen().system, old)
    radius = np.linalg.norm(found.r[:, 0], axis=-1)
    assert stats.kstest(radius, stats.gamma(3, scale=0.5).cdf).pvalue > 1e-3
    np.testing.assert_allclose(found.log_ratio, 2 * (radius - 0.75**0.5), rtol=1e-9, atol=1e-9)


def test_one_electron_moves_and_the_others_stay():
    old = np.random.default_rng(0).normal(size=(3000, 4, 3))
    moved = (hopped(Molecule.named("LiH"), old).r != old).all(-1)
    assert (moved.sum(1) == 1).all()
    assert stats.chisquare(moved.sum(0)).pvalue > 1e-3


def test_the_ratio_is_that_of_a_density_which_integrates_to_one():
    """E_g[h / g] = 1 for a normal density h around the other nucleus, with g(old) / g(new) from the hop."""
    molecule, origin = Molecule.named("LiH"), np.zeros((200_000, 4, 3))
    found = hopped(molecule, origin)
    new = found.r[np.arange(len(origin)), (found.r != 0).any(-1).argmax(1)]
    normal = stats.multivariate_normal(molecule.positions[1], 0.5).pdf(new)
    charge, away = molecule.charges, np.linalg.norm(molecule.positions, axis=-1)
    shells = sum(z**3 * np.exp(-2 * z * away) for z in (charge, np.ones(2))) / np.pi
    at_origin = float((charge / (2 * charge.sum()) * shells).sum())
    values = normal / at_origin * np.exp(found.log_ratio)
    assert values.mean() == pytest.approx(1.0, abs=4 * values.std() / len(values) ** 0.5)
    assert values.std() / len(values) ** 0.5 < 0.01


def test_without_nuclei_there_is_nowhere_to_go():
    assert hop(hookes_atom().system) is None
