"""The fit: cusps, norms, closed forms it must find again, and grids that will not do."""

import jax
import numpy as np
import pytest

from bayesmol.errors import DataError, ShapeError
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.slater_fit import fitted

SOURCE = np.random.default_rng(5)
HYDROGEN = Molecule.named("H")


def sphere(radius=25.0, shells=50, angles=8):
    """Points and weights of a product quadrature about the origin."""
    node, weight = np.polynomial.legendre.leggauss(shells)
    r = radius * ((node + 1) / 2) ** 3
    dr = weight * radius * 1.5 * ((node + 1) / 2) ** 2
    cosine, dcosine = np.polynomial.legendre.leggauss(angles)
    phi = 2 * np.pi * np.arange(2 * angles) / (2 * angles)
    sine = np.sqrt(1 - cosine**2)[:, None]
    unit = np.stack(np.broadcast_arrays(sine * np.cos(phi), sine * np.sin(phi), cosine[:, None]), -1).reshape(-1, 3)
    solid = np.repeat(dcosine * np.pi / angles, len(phi))
    return (r[:, None, None] * unit).reshape(-1, 3), np.outer(r**2 * dr, solid).ravel()


def slopes(orbitals, places, directions):
    """Values at nuclei, and slopes averaged over a direction and its opposite: (places, directions, orbitals)."""

    def averaged(place, direction):
        average = lambda t: (orbitals(place + t * direction) + orbitals(place - t * direction)) / 2  # noqa: E731
        return jax.jvp(average, (1e-10,), (1.0,))

    with double():
        both = jax.jit(jax.vmap(jax.vmap(averaged, (None, 0)), (0, None)))(places, directions)
        return [np.asarray(part) for part in both]


def test_hydrogen_is_found_again():
    points, weights = sphere()
    r = np.linalg.norm(points, axis=-1)
    fit = fitted(HYDROGEN, points, weights, (np.exp(-r) / np.sqrt(np.pi))[:, None])
    assert fit.rms[0] < 1e-9
    value, derivative = slopes(fit.orbitals, np.zeros((1, 3)), np.array([[0.6, 0.0, 0.8]]))
    np.testing.assert_allclose(derivative, -value, atol=1e-9)
    assert abs(value.item() - 1 / np.sqrt(np.pi)) < 1e-8


@pytest.mark.parametrize("number", [1, 3, 8, 14])
def test_gaussians_get_cusps(number):
    """Functions without any cusp, off the centre, with tails at another nucleus."""
    molecule = Molecule([number, 1], [[0.0, 0.0, 0.0], [0.4, 0.9, 1.2]], charge=number % 2 - 1)
    points, weights = sphere()
    widths = np.array([0.3, 1.1, 4.0])
    values = np.exp(-widths * np.sum((points - [0.1, 0.2, 0.3])[:, None] ** 2, -1)[:, :3])
    fit = fitted(molecule, points, weights, np.concatenate([values, values * points], 1))
    directions = SOURCE.normal(size=(4, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    value, derivative = slopes(fit.orbitals, molecule.positions, directions)
    np.testing.assert_allclose(derivative, -molecule.charges[:, None, None] * value, atol=1e-6, rtol=1e-6)
    assert np.abs(value).max() > 0.1


def test_the_deviation_is_that_of_the_grid():
    points, weights = sphere(shells=40)
    values = np.exp(-np.sum(points**2, -1))[:, None]
    fit = fitted(HYDROGEN, points, weights, values)
    with double():
        found = np.asarray(jax.jit(jax.vmap(fit.orbitals))(points))
    np.testing.assert_allclose(fit.rms[0], np.sqrt(np.sum(weights[:, None] * (found - values) ** 2)), rtol=1e-9)
    assert 1e-3 < fit.rms[0] < 0.3  # a cusp that the Gaussian does not have


def test_what_cannot_be_fitted():
    points, weights = sphere(shells=4, angles=2)
    values = np.ones((len(points), 2))
    with pytest.raises(ShapeError, match="points, weights, values: expected"):
        fitted(HYDROGEN, points, weights, values[:-1])
    with pytest.raises(DataError, match="points, weights, values: expected finite"):
        fitted(HYDROGEN, points, weights, values * np.nan)
    with pytest.raises(DataError, match=r"points: expected at least 11 of positive weight, got 3"):
        fitted(HYDROGEN, points, np.where(np.arange(len(points)) < 3, weights, 0), values)
    with pytest.raises(DataError, match="charges: expected atomic numbers up to 18, got 26"):
        fitted(Molecule([26], [[0, 0, 0]], spin=4), points, weights, values)
