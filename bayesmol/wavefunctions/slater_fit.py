"""Slater orbitals for orbitals given on a grid: least squares with exact cusps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Bool, Float, Int

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals

__all__ = ["SlaterFit", "fitted"]

HEAVIEST = 18
_POWERS = (
    ((0, 0, 0),),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((2, 0, 0), (0, 2, 0), (0, 0, 2), (1, 1, 0), (1, 0, 1), (0, 1, 1)),
)
_SMALLEST_SINGULAR_VALUE = 1e-10  # of the scaled design; the even-tempered sets here stay above 1e-8


class SlaterFit(NamedTuple):
    r"""Orbitals and how far they are from what was fitted.

    Attributes
    ----------
    orbitals
        Cusp-exact Slater orbitals.
    rms
        :math:`(\int (\tilde\phi_m - \phi_m)^2)^{1/2}` of each orbital, to be compared with its norm 1.
    """

    orbitals: SlaterOrbitals
    rms: Float[np.ndarray, " orbitals"]


def fitted(
    molecule: Molecule,
    points: Float[np.ndarray, "points 3"],
    weights: Float[np.ndarray, " points"],
    values: Float[np.ndarray, "points orbitals"],
) -> SlaterFit:
    r"""Slater orbitals nearest to orbitals on a quadrature grid among those with exact electron–nucleus cusps.

    .. math::
        \min_c \sum_g w_g \Bigl(1 + \sum_a \frac{Z_a}{r_{ga}}\Bigr) \bigl(\tilde\phi(r_g) - \phi(r_g)\bigr)^2
        \quad\text{subject to}\quad
        \frac{d\bar\phi}{dr}\Big|_{R_a} = -Z_a\, \tilde\phi(R_a)

    where the bar is the average over directions about nucleus a, tails from other centres included. The constraint is
    linear and solved by the null space of its matrix. The second factor weighs by the potential energy: without it the
    Hartree–Fock energy of the fit is some mHa higher where there are cores. Gaussian orbitals have no cusp, so the
    fit differs from them near nuclei, to the better.

    Parameters
    ----------
    points, weights
        Of a quadrature adapted to the molecule, in bohr and bohr³.
    values
        Orbitals at the points, in :math:`\mathrm{bohr}^{-3/2}`.

    Raises
    ------
    ShapeError
        If the arrays do not go together.
    DataError
        If a number is not finite, the points are too few, or a nucleus is heavier than argon.

    References
    ----------
    Kato, Commun. Pure Appl. Math. 10, 151 (1957) (the cusp).
    """
    centres, exponents, angular = _functions(molecule)
    _check(points, weights, values, len(exponents))
    kept = weights > 0
    points, weights, values = points[kept], weights[kept], values[kept]
    away = np.linalg.norm(points[:, None] - molecule.positions, axis=-1)
    root = np.sqrt(weights * (1 + np.sum(molecule.charges / np.maximum(away, 1e-6), -1)))[:, None]
    powers = np.array(angular)
    design = _values(centres, exponents, powers, points)
    scale = np.linalg.norm(root * design, axis=0)
    free = scipy.linalg.null_space(_cusp_conditions(molecule, centres, exponents, powers) / scale)
    solution, *_ = np.linalg.lstsq(root * design / scale @ free, root * values, rcond=_SMALLEST_SINGULAR_VALUE)
    coefficients = free @ solution / scale[:, None]
    rms = np.sqrt(weights @ (design @ coefficients - values) ** 2)
    return SlaterFit(SlaterOrbitals(centres, exponents, coefficients, angular), rms)


def _check(points: np.ndarray, weights: np.ndarray, values: np.ndarray, functions: int) -> None:
    count = len(points)
    if points.shape != (count, 3) or weights.shape != (count,) or values.ndim != 2 or len(values) != count:
        got = f"{points.shape}, {weights.shape}, {values.shape}"
        wanted = "(points, 3), (points,), (points, orbitals)"
        raise ShapeError(expected("points, weights, values", wanted, got))
    if not all(np.isfinite(array).all() for array in (points, weights, values)):
        raise DataError(expected("points, weights, values", "finite numbers", "NaN or infinity"))
    if (positive := int(np.sum(weights > 0))) < functions:
        raise DataError(expected("points", f"at least {functions} of positive weight", positive, "use a finer grid"))


def _functions(molecule: Molecule) -> tuple[np.ndarray, np.ndarray, tuple[tuple[int, int, int], ...]]:
    """Centres, exponents and powers of the basis."""
    if (molecule.charges > HEAVIEST).any():
        wanted, got = f"atomic numbers up to {HEAVIEST}", molecule.charges.max()
        raise DataError(expected("charges", wanted, got, "use an ansatz without orbitals of quantum chemistry"))
    rows = [
        (place, exponent, powers)
        for number, place in zip(molecule.charges.tolist(), molecule.positions, strict=True)
        for angular, ladder in enumerate(_ladders(number))
        for exponent in ladder
        for powers in _POWERS[angular]
    ]
    centres, exponents, angular = zip(*rows, strict=True)
    return np.array(centres), np.array(exponents), angular


def _ladders(number: int) -> list[np.ndarray]:
    """Even-tempered exponents in 1/bohr of the s, p and d functions of an element.

    The ranges were chosen by the Hartree–Fock energy of the fitted orbitals of He, Be, Ne, H2, LiH, N2 and H2O.
    """
    if number <= 2:
        return [np.geomspace(0.5 * number, 2 * number, 5), np.geomspace(number, 2 * number, 2)]
    if number <= 10:
        outer = np.sqrt(number - 1)
        return [
            np.geomspace(0.36 * outer, 1.6 * number, 8),
            np.geomspace(0.4 * outer, 1.1 * number, 5),
            np.array([outer]),
        ]
    outer = np.sqrt(number - 10)
    return [np.geomspace(0.5 * outer, 1.6 * number, 11), np.geomspace(0.45 * outer, 1.1 * number, 8), np.array([outer])]


def _values(
    centres: np.ndarray, exponents: np.ndarray, powers: Int[np.ndarray, "functions 3"], points: np.ndarray
) -> Float[np.ndarray, "points functions"]:
    apart = points[:, None] - centres
    decay = np.exp(-exponents * np.linalg.norm(apart, axis=-1))
    return np.prod(apart**powers, axis=-1) * decay


def _cusp_conditions(
    molecule: Molecule, centres: np.ndarray, exponents: np.ndarray, powers: np.ndarray
) -> Float[np.ndarray, "nuclei functions"]:
    r"""Rows that must vanish: slope of the spherical average plus Z times the value, at each nucleus.

    Only s functions about the nucleus have a slope, −ζ; all others are smooth or odd there.
    """
    own: Bool[np.ndarray, "nuclei functions"] = np.all(molecule.positions[:, None] == centres, -1)
    slopes = np.where(own & (powers.sum(-1) == 0), -exponents, 0.0)
    return slopes + molecule.charges[:, None] * _values(centres, exponents, powers, molecule.positions)
