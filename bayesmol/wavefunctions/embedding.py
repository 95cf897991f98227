"""A graph network over electrons and nuclei: what each electron knows of all others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.pair_features import (
    BETWEEN_ELECTRONS,
    NEAR_NUCLEI,
    PAIR_FEATURES,
    Pairs,
    pair_features,
    pairs,
)

__all__ = ["Embedding", "scaled_normal"]


def scaled_normal(source: np.random.Generator, *shape: int) -> Float[np.ndarray, ...]:
    """Weights of a layer whose output has about the variance of its input; NumPy draws them without compilation."""
    return source.normal(size=shape) / np.sqrt(max(shape[-2], 1))


@partial(
    jax.tree_util.register_dataclass, data_fields=["positions"], meta_fields=["electrons", "up", "width", "layers"]
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
    electrons, up
        How many, and how many of them with spin up.
    width, layers
        Number of channels, and of rounds of messages.
    """

    positions: Float[np.ndarray | Array, "nuclei 3"]
    electrons: int
    up: int
    width: int
    layers: int

    @classmethod
    def of(cls, molecule: Molecule, width: int, layers: int) -> Embedding:
        """Of the electrons of a molecule."""
        return cls(np.asarray(molecule.positions), molecule.electrons, molecule.up, width, layers)

    @property
    def pairs(self) -> Pairs:
        """Who hears whom."""
        return pairs(self.electrons, self.up)

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

    def __call__(self, parameters: dict[str, Any], r: Float[Array, "electrons 3"]) -> Float[Array, "electrons width"]:
        """Channels of each electron."""
        start, spins = parameters["start"], np.repeat([0, 1], [self.up, self.electrons - self.up])
        near = pair_features(r[:, None] - self.positions, NEAR_NUCLEI)
        h = jnp.einsum("eif,ifw->ew", near, start["nuclei"]) + start["spin"][spins]
        if self.electrons == 1:
            return h + sum(jnp.tanh(h @ layer["own"] + layer["shift"]) for layer in parameters["layers"])
        between = [pair_features(r[first] - r[second], BETWEEN_ELECTRONS) for first, second in self.pairs.kinds]
        for layer in parameters["layers"]:
            h = h + jnp.tanh(h @ layer["own"] + self._messages(layer, h, between) @ layer["message"] + layer["shift"])
        return h

    def _messages(self, layer: dict[str, Array], h: Array, between: list[Array]) -> Float[Array, "electrons width"]:
        kinds, order = self.pairs
        heard = [
            (features @ layer["filter"][kind]) * (h @ layer["sender"][kind])[second] + features @ layer["pair"][kind]
            for kind, (features, (_, second)) in enumerate(zip(between, kinds, strict=True))
        ]
        return jnp.concatenate(heard)[order].sum(1) / np.sqrt(self.electrons - 1)
