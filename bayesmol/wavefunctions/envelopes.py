"""One-electron functions without quantum chemistry: smooth envelopes times a factor with the cusps at the nuclei."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["Envelopes"]


@partial(jax.tree_util.register_dataclass, data_fields=["positions", "charges"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class Envelopes:
    r""":math:`\phi_\nu(r) = e^{-\sum_I Z_I r_I / (1 + r_I)} \sum_I \pi_{\nu I}\, e^{-\zeta_{\nu I} s(r_I)}`.

    :math:`s(r) = \sqrt{1 + r^2} - 1` has no slope at the nucleus, so the factor makes the cusp,
    :math:`\phi' = -Z \phi`, whatever π and ζ are, and :math:`\zeta > 0` makes the decay.
    """

    positions: Float[np.ndarray | Array, "nuclei 3"]
    charges: Float[np.ndarray | Array, " nuclei"]

    @classmethod
    def of(cls, molecule: Molecule) -> Envelopes:
        """About the nuclei of a molecule."""
        return cls(np.asarray(molecule.positions), np.asarray(molecule.charges, dtype=float))

    def parameters(self, functions: int, source: np.random.Generator) -> dict[str, np.ndarray]:
        """Each function about one nucleus more than about the others, of random extent."""
        nuclei = len(self.charges)
        weights = 0.1 * source.normal(size=(functions, nuclei)) + np.eye(nuclei)[np.arange(functions) % nuclei]
        return {"weights": weights, "decay": 0.5 * source.normal(size=(functions, nuclei))}

    def __call__(
        self, parameters: dict[str, Array], r: Float[Array, "electrons 3"]
    ) -> Float[Array, "electrons functions"]:
        """Value of each function at each electron."""
        square = jnp.sum((r[:, None] - self.positions) ** 2, -1)
        distance = jnp.sqrt(square + 1e-24)
        cusp = -jnp.sum(self.charges * distance / (1 + distance), -1)
        smooth = square / (jnp.sqrt(1 + square) + 1)
        decay = jnp.exp(parameters["decay"])
        return jnp.exp(cusp)[:, None] * jnp.einsum(
            "fi,efi->ef", parameters["weights"], jnp.exp(-decay * smooth[:, None])
        )
