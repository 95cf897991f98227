"""A graph network over electrons and nuclei: what each electron knows of all others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.locality import each_electron, messages
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pair_features import PAIR_FEATURES, nuclear_lengths, pair_features, places

__all__ = ["Embedding", "scaled_normal"]


def scaled_normal(source: np.random.Generator, *shape: int) -> Float[np.ndarray, ...]:
    """Weights of a layer whose output has about the variance of its input; NumPy draws them without compilation."""
    return source.normal(size=shape) / np.sqrt(max(shape[-2], 1))


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["positions"],
    meta_fields=["charges", "electrons", "up", "width", "layers"],
)
@dataclass(frozen=True, eq=False)
class Embedding:
    r"""Message passing over electrons, with the nuclei as fixed nodes.

    .. math:: h_i^0 = s_{\sigma_i} + \sum_I F(r_i - R_I)\, P_I, \qquad
              m_i = \sum_{j \ne i} (F_{ij} W_\sigma) \odot (h_j U_\sigma) + F_{ij} V_\sigma, \qquad
              h_i \leftarrow h_i + \tanh(h_i A + m_i B + c)

    F are smooth features of distances (:mod:`~bayesmol.wavefunctions.pair_features`); σ tells pairs of equal spins
    from others. Electrons of one spin are exchanged with their rows.

    Attributes
    ----------
    positions
        Of the nuclei, in bohr.
    charges
        Of the nuclei, in elementary charges.
    electrons, up
        How many, and how many of them with spin up.
    width, layers
        Number of channels, and of rounds of messages.
    """

    positions: Float[np.ndarray | Array, "nuclei 3"]
    charges: tuple[float, ...]
    electrons: int
    up: int
    width: int
    layers: int

    @classmethod
    def of(cls, molecule: Molecule, width: int, layers: int) -> Embedding:
        """Of the electrons of a molecule."""
        charges = tuple(np.asarray(molecule.charges, float).tolist())
        return cls(np.asarray(molecule.positions), charges, molecule.electrons, molecule.up, width, layers)

    def parameters(self, source: np.random.Generator) -> dict[str, Any]:
        """Weights, drawn at random."""
        nuclei, width = len(self.positions), self.width
        start = {
            "nuclei": scaled_normal(source, nuclei, PAIR_FEATURES, width) / np.sqrt(nuclei),
            "spin": 0.1 * source.normal(size=(2, width)),
        }
        return {"start": start, "layers": [self._layer(source) for _ in range(self.layers)]}

    def _layer(self, source: np.random.Generator) -> dict[str, np.ndarray]:
        width = self.width
        return {
            "filter": scaled_normal(source, 2, PAIR_FEATURES, width),
            "sender": scaled_normal(source, 2, width, width),
            "pair": scaled_normal(source, 2, PAIR_FEATURES, width),
            "own": scaled_normal(source, width, width),
            "message": scaled_normal(source, width, width),
            "shift": np.zeros(width),
        }

    def places(self, r: Float[Array, "electrons 3"]) -> Float[Array, "electrons 4"]:
        """Places of electrons with the scale there, see :func:`~bayesmol.wavefunctions.pair_features.places`."""
        return places(r, self.positions, self.charges)

    def __call__(
        self, parameters: dict[str, Any], where: Float[Array, "electrons 4"]
    ) -> Float[Array, "electrons width"]:
        """Channels of each electron, from :meth:`places`."""
        start, spins = parameters["start"], np.repeat([0, 1], [self.up, self.electrons - self.up])
        near = _NearNuclei(self.positions, start["nuclei"], self.charges)
        h = each_electron(near, where[:, :3]) + start["spin"][spins]
        for layer in parameters["layers"]:
            h = h + jnp.tanh(h @ layer["own"] + self._heard(layer, h, where) @ layer["message"] + layer["shift"])
        return h

    def _heard(self, layer: dict[str, Array], h: Array, where: Array) -> Float[Array, "electrons width"]:
        up, down = slice(None, self.up), slice(self.up, None)
        heard = [
            _sent(layer, 0, h[own], where[own], where[own]) + _sent(layer, 1, h[other], where[own], where[other])
            for own, other in ((up, down), (down, up))
        ]
        return jnp.concatenate(heard) / np.sqrt(max(self.electrons - 1, 1))


@partial(jax.tree_util.register_dataclass, data_fields=["positions", "weights"], meta_fields=["charges"])
@dataclass(frozen=True, eq=False)
class _NearNuclei:
    """First channels of an electron at a point, but for its spin."""

    positions: Float[np.ndarray | Array, "nuclei 3"]
    weights: Float[Array, "nuclei features width"]
    charges: tuple[float, ...]

    def __call__(self, r: Float[Array, " 3"]) -> Float[Array, " width"]:
        return jnp.einsum("if,ifw->w", pair_features(r - self.positions, nuclear_lengths(self.charges)), self.weights)


def _sent(layer: dict[str, Array], kind: int, h: Array, receivers: Array, senders: Array) -> Array:
    """Messages of senders of the same spin (kind 0) or of the other one; zero where nobody else is there."""
    if len(senders) <= int(kind == 0):
        return jnp.zeros((len(receivers), h.shape[1]), h.dtype)
    return messages(layer["filter"][kind], layer["pair"][kind], h @ layer["sender"][kind], receivers, senders)
