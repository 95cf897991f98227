"""Determinants of orbitals that depend on all electrons, times a symmetric factor: the form of our wavefunctions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.cusps import electron_cusps
from bayesmol.wavefunctions.embedding import Embedding, scaled_normal
from bayesmol.wavefunctions.log_psi import LogPsi, determinant_sum
from bayesmol.wavefunctions.molecule import Molecule

__all__ = ["OrbitalNetwork"]

_CHANNELS = 8  # of the backflow
_SCALE = 0.1  # of the backflow: its many weights would otherwise fit the noise of the local energies of a few walkers

Basis = Callable[[Any, Float[Array, "electrons 3"]], Float[Array, "electrons functions"]]


@partial(jax.tree_util.register_dataclass, data_fields=["embedding", "basis", "mixing"], meta_fields=["backflow"])
@dataclass(frozen=True, eq=False)
class OrbitalNetwork:
    r"""The wavefunction

    .. math:: \psi = e^{\gamma(r) + J(r)} \sum_p c_p \det \Phi^\uparrow_p \det \Phi^\downarrow_p, \qquad
              \Phi_{p i \mu} = \sum_\nu \phi_\nu(r_i) \left[ M_{p \nu \mu} + W_{p \nu \mu} \cdot b_i \right],
              \quad b_i = s \tanh(h_i B),

    with one-electron functions φ that have the cusps at the nuclei, mixed by numbers M and by what the channels h of
    each electron know of the others (backflow, multiplicative for ν = μ and additive for the others), the factor γ
    that has the cusps between electrons, and :math:`J = \sum_i k \cdot \tanh(h_i K)`. The channels are smooth, so all
    cusps stay exact, and where W, k are zero it is the determinant of the reference with γ.

    Attributes
    ----------
    embedding
        h.
    basis
        φ, a function of its own parameters and of all electrons.
    mixing
        M of up and down electrons at the start, axes (determinants, functions, electrons of the spin).
    backflow
        Whether W is there.
    """

    embedding: Embedding
    basis: Basis
    mixing: tuple[np.ndarray, np.ndarray]
    backflow: bool

    @classmethod
    def of(
        cls,
        molecule: Molecule,
        basis: Basis,
        mixing: tuple[np.ndarray, np.ndarray],
        *,
        width: int,
        layers: int,
        backflow: bool,
    ) -> OrbitalNetwork:
        """With an embedding of the electrons of a molecule."""
        return cls(Embedding.of(molecule, width, layers), basis, mixing, backflow)

    @property
    def up(self) -> int:
        """Number of electrons with spin up."""
        return self.embedding.up

    def parameters(self, basis: Any, coefficients: np.ndarray, source: np.random.Generator) -> dict[str, Any]:
        """Weights with which the wavefunction is that of the orbitals alone, but for the factor γ."""
        width = self.embedding.width
        found = {
            "basis": basis,
            "coefficients": np.asarray(coefficients, dtype=float),
            "mixing": [np.asarray(one) for one in self.mixing],
            "embedding": self.embedding.parameters(source),
            "jastrow": {"in": scaled_normal(source, width, width), "out": np.zeros(width)},
            "cusps": np.zeros(2),
        }
        if self.backflow:
            channels = scaled_normal(source, width, _CHANNELS)
            found["backflow"] = {"in": channels, "out": [np.zeros((_CHANNELS, *one.shape)) for one in self.mixing]}
        return found

    def __call__(self, parameters: dict[str, Any], r: Float[Array, "electrons 3"]) -> LogPsi:
        """ψ at one configuration."""
        where = self.embedding.places(r)
        h = self.embedding(parameters["embedding"], where)
        functions = self.basis(parameters["basis"], r)
        sides = (slice(None, self.up), slice(self.up, None))
        up, down = (self._orbitals(parameters, s, functions[side], h[side]) for s, side in enumerate(sides))
        sign, log = determinant_sum(up, down, parameters["coefficients"])
        jastrow = jnp.sum(jnp.tanh(h @ parameters["jastrow"]["in"]) @ parameters["jastrow"]["out"])
        return LogPsi(sign, log + jastrow + electron_cusps(parameters["cusps"], where, self.up))

    def _orbitals(
        self, parameters: dict[str, Any], spin: int, functions: Array, h: Array
    ) -> Float[Array, "determinants electrons orbitals"]:
        found = jnp.einsum("ev,pvm->pem", functions, parameters["mixing"][spin])
        if not self.backflow:
            return found
        channels = _SCALE * jnp.tanh(h @ parameters["backflow"]["in"])
        return found + jnp.einsum("ev,ew,wpvm->pem", functions, channels, parameters["backflow"]["out"][spin])
