"""Expectations other than the energy against closed forms; forces of finite variance; features of walkers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from scipy import stats

from bayesmol.applicability import Domain
from bayesmol.errors import DataError, ShapeError
from bayesmol.posterior import Draws
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.observables import dipole, features, nuclear_forces, pair_distances, radial_density
from bayesmol.wavefunctions.precision import double

EXPONENT = 1.3
CENTRE = np.array([0.3, -0.2, 0.5])
HELIUM = Molecule(np.array([2]), CENTRE[None])


def cloud(walkers, draws, electrons, seed=0, centre=CENTRE):
    """Independent draws of ∏ exp(−2ζ|r − c|)."""
    source = np.random.default_rng(seed)
    direction = source.normal(size=(walkers, draws, electrons, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    return centre + source.gamma(3, 0.5 / EXPONENT, size=direction.shape[:-1])[..., None] * direction


def configurations(*shape, **options):
    return Draws(torch.from_numpy(cloud(*shape, **options)), unit="bohr")


def log_psi(parameters, r):
    return LogPsi(jnp.ones(()), -EXPONENT * jnp.sum(jnp.linalg.norm(r - CENTRE, axis=-1)))


def within(estimate, wanted, errors=4):
    return bool(((estimate.value - torch.as_tensor(wanted)).abs() <= errors * estimate.standard_error).all())


def test_dipole_is_that_of_the_centres_of_charge():
    molecule = Molecule(np.array([1, 1]), np.array([[0, 0, -0.7], [0, 0, 0.7]]))
    estimate = dipole(configurations(4, 2000, 2), molecule)
    assert estimate.unit == "e·bohr" and within(estimate, -2 * CENTRE)
    assert float(estimate.standard_error.max()) < 0.05
    with pytest.raises(ShapeError, match="configurations"):
        dipole(configurations(2, 10, 3), molecule)


def test_radial_density_is_the_law_of_the_radius():
    edges = torch.tensor([0.0, 0.2, 0.5, 1.0, 2.0, 4.0])
    estimate = radial_density(configurations(4, 4000, 2), edges, torch.from_numpy(CENTRE))
    volumes = 4 / 3 * np.pi * np.diff(edges.numpy() ** 3)
    assert within(estimate, 2 * np.diff(stats.gamma(3, scale=0.5 / EXPONENT).cdf(edges.numpy())) / volumes)
    assert estimate.unit == "bohr⁻³"


def test_pair_distances_are_those_of_independent_electrons():
    """∫ p = N(N − 1)/2, ⟨u²⟩ = 2 ⟨r²⟩; a bin that nobody visits has no finite error."""
    edges = torch.cat([torch.linspace(0, 8, 161), torch.tensor([50.0, 60.0])])
    estimate = pair_distances(configurations(4, 2000, 3), edges)
    middle, width = (edges[1:] + edges[:-1]) / 2, edges.diff()
    assert float((estimate.value * width).sum()) == pytest.approx(3, abs=1e-2)
    square = float((estimate.value * width * middle**2).sum()) / 3
    assert square == pytest.approx(2 * 3 / EXPONENT**2, rel=0.05)
    assert float(estimate.value[-1]) == 0 and float(estimate.standard_error[-1]) == np.inf


def test_force_of_a_displaced_cloud_is_the_slope_of_its_energy():
    """A nucleus at distance d in an s cloud: E(d) = −Z N [1/d − e^{−2ζd}(ζ + 1/d)], for a ψ that is no eigenstate."""
    shift = np.array([0.5, -0.4, 0.3])
    molecule = Molecule(np.array([2]), (CENTRE + shift)[None])

    def energy(d):
        return -4 * (1 / d - np.exp(-2 * EXPONENT * d) * (EXPONENT + 1 / d))

    d = np.linalg.norm(shift)
    slope = (energy(d + 1e-4) - energy(d - 1e-4)) / 2e-4
    r = cloud(4, 4000, 2)
    with double():
        found = jax.jit(nuclear_forces(log_psi, molecule, chunk=1000))((), jnp.asarray(r.reshape(-1, 2, 3)))
        values = torch.from_numpy(np.array(found)).reshape(4, 4000, 1, 3)
    estimate = Draws(values, unit="Ha/bohr").expectation()
    assert within(estimate, -slope * shift[None] / d) and float(estimate.standard_error.max()) < 0.04
    apart = r - molecule.positions[0]
    bare = 2 * np.sum(apart / np.linalg.norm(apart, axis=-1, keepdims=True) ** 3, 2)
    assert float(values.var()) < 0.3 * bare.var()


def test_force_on_an_atom_is_zero_in_every_draw_and_nuclei_repel():
    with double():
        r = jnp.asarray(cloud(1, 100, 2)[0])
        assert float(jnp.abs(jax.jit(nuclear_forces(log_psi, HELIUM))((), r)).max()) < 1e-12
        pair = Molecule(np.array([2, 3]), np.array([[0, 0, 0], [0, 0, 2.0]]), charge=4, spin=1)
        flat = jax.jit(nuclear_forces(lambda p, r: LogPsi(jnp.ones(()), 0 * jnp.sum(r)), pair))((), r[:, :1])
    np.testing.assert_allclose(flat[0], [[0, 0, -1.5], [0, 0, 1.5]], atol=1e-12)


def test_features_ignore_the_order_of_equal_electrons_and_find_strange_walkers():
    molecule = Molecule.named("LiH")
    r, source = cloud(1, 600, 4, centre=np.zeros(3))[0], np.random.default_rng(1)
    energy, drift = source.normal(size=600), source.normal(size=(600, 4, 3))
    rows = features(molecule, r, energy, drift, energy=0.0, spread=1.0)
    assert rows.shape == (600, 2 + 8) and rows.dtype == torch.float64
    order = [1, 0, 3, 2]
    other = features(molecule, r[:, order], energy, drift[:, order], energy=0.0, spread=1.0)
    torch.testing.assert_close(rows, other, rtol=1e-12, atol=0)
    mixed = features(molecule, r[:, [2, 1, 0, 3]], energy, drift, energy=0.0, spread=1.0)
    assert not torch.allclose(rows, mixed)
    domain = Domain("mahalanobis", level=0.05).fit(rows[:300]).calibrate(rows[300:])
    strange = features(molecule, r[:5], energy[:5] + 60, drift[:5] * 1e4, energy=0.0, spread=1.0)
    assert not bool(domain.assess(strange).inside.any())
    with pytest.raises(DataError, match="spread"):
        features(molecule, r, energy, drift, energy=0.0, spread=0.0)


@pytest.mark.parametrize("edges", [[1.0], [0.0, 0.0, 1.0], [-1.0, 1.0]])
def test_edges_must_increase_from_zero_or_above(edges):
    with pytest.raises(DataError, match="edges"):
        pair_distances(configurations(2, 10, 2), torch.tensor(edges))
