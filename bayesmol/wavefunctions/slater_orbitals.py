"""Orbitals as sums of Slater functions: few exponentials, and the right slope at every nucleus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["SlaterOrbitals"]


@dataclass(frozen=True, eq=False)
class SlaterOrbitals:
    r"""Orbitals :math:`\phi_m(r) = \sum_k c_{km}\, x_k^{a} y_k^{b} z_k^{c}\, e^{-\zeta_k r_k}` about centres.

    :math:`(x_k, y_k, z_k) = r - R_k`; powers that sum to 0, 1 and 2 make s, p and d functions (the six of degree 2 are
    five d functions and one 3s function). Only the s functions have a kink, and only at their centre: derivatives of
    all orders are finite elsewhere, and at the nucleus itself the gradient is the average over directions.

    Attributes
    ----------
    centres
        In bohr.
    exponents
        ζ in 1/bohr.
    coefficients
        c; arrays of NumPy or JAX. With those of a fit the cusps are exact; a training that changes them or the
        exponents changes the cusps too.
    angular
        Powers (a, b, c) of each function, at most 2 in all.
    """

    centres: Float[Array | np.ndarray, "functions 3"]
    exponents: Float[Array | np.ndarray, " functions"]
    coefficients: Float[Array | np.ndarray, "functions orbitals"]
    angular: tuple[tuple[int, int, int], ...]

    @property
    def parameters(self) -> dict[str, Array | np.ndarray]:
        """What may be trained: ``"exponents"`` and ``"coefficients"``."""
        return {"exponents": self.exponents, "coefficients": self.coefficients}

    def with_parameters(self, parameters: dict[str, Array | np.ndarray]) -> SlaterOrbitals:
        """The same functions with other exponents and coefficients."""
        arrays: dict[str, Any] = dict(parameters)
        return replace(self, **arrays)

    def functions(self, r: Float[Array | np.ndarray, " 3"]) -> Float[Array, " functions"]:
        """Value of each Slater function at a point in bohr."""
        apart = r - jnp.asarray(self.centres)
        square = jnp.sum(apart**2, -1)
        at_nucleus = square == 0
        # √ has no derivative at 0; a NaN there would spread through a whole batch of walkers.
        distance = jnp.where(at_nucleus, 0.0, jnp.sqrt(jnp.where(at_nucleus, 1.0, square)))
        return self._monomials(jnp.asarray(apart)) * jnp.exp(-self.exponents * distance)

    def __call__(self, r: Float[Array | np.ndarray, " 3"]) -> Float[Array, " orbitals"]:
        """Value of each orbital at a point, in :math:`\\mathrm{bohr}^{-3/2}`; use ``jax.vmap`` for several."""
        return self.functions(r) @ self.coefficients

    def _monomials(self, apart: Array) -> Array:
        # The powers are known when the function is compiled: products with constants 0 and 1 instead of a power.
        powers = np.asarray(self.angular)
        linear = np.where(powers[..., None] == np.arange(3), 1.0, 0.0)
        factors = linear[..., 0] + linear[..., 1] * apart + linear[..., 2] * apart**2
        return factors[:, 0] * factors[:, 1] * factors[:, 2]


jax.tree_util.register_dataclass(
    SlaterOrbitals, data_fields=["centres", "exponents", "coefficients"], meta_fields=["angular"]
)
