"""Wavefunctions without quantum chemistry: all of every orbital is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from bayesmol.errors import DataError, expected
from bayesmol.wavefunctions.ansatz import Ansatz, Trial
from bayesmol.wavefunctions.envelopes import Envelopes
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.orbital_network import OrbitalNetwork
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training import Training

if TYPE_CHECKING:
    from bayesmol.wavefunctions.reference import Reference

__all__ = ["FermiNet"]


@dataclass(frozen=True)
class FermiNet(Ansatz):
    """Determinants of learned orbitals from random numbers; where PySCF is missing or its orbitals mislead.

    Its cusps are exact, but it starts far from any energy: give it more time than :class:`PauliNet`.

    Attributes
    ----------
    determinants, width, layers
        As in :class:`~bayesmol.wavefunctions.pauli_net.PauliNet`.
    functions
        Envelopes for each nucleus, in which orbitals are expanded with coefficients that depend on all electrons.
    training
        How the energy is minimised.

    References
    ----------
    Pfau, Spencer, Matthews, Foulkes, Phys. Rev. Research 2, 033429 (2020) (the idea).
    """

    determinants: int = 4
    width: int = 32
    layers: int = 2
    functions: int = 4
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if min(self.determinants, self.width, self.layers, self.functions) < 1:
            raise DataError(expected("determinants, width, layers, functions", "positive counts", self))

    def reference(self, molecule: Molecule) -> None:
        """None: nothing but the molecule."""

    def assembled(self, molecule: Molecule, reference: Reference | None, *, seed: int) -> Trial:
        """Random orbitals."""
        count = self.functions * len(molecule.charges)
        with double():
            first, second, *keys = jax.random.split(jax.random.key(seed), 6)
            envelopes = Envelopes(molecule)
            shapes = [(self.determinants, count, size) for size in (molecule.up, molecule.down)]
            mixing = tuple(_normal(key, shape, count) for key, shape in zip(keys, shapes, strict=False))
            network = OrbitalNetwork(molecule, envelopes, mixing, width=self.width, layers=self.layers, backflow=True)
            start = np.ones(self.determinants) / self.determinants
            parameters = network.parameters(envelopes.parameters(count, key=first), start, key=second)
            # Functions alone are as many as envelopes; without backflow electrons of one nucleus would share them.
            out = parameters["backflow"]["out"]
            grown = [jnp.asarray(_normal(key, one.shape, 1)) for key, one in zip(keys[2:], out, strict=True)]
            parameters["backflow"]["out"] = grown
        return Trial(molecule, network, parameters)


def _normal(key: jax.Array, shape: tuple[int, ...], size: int) -> np.ndarray:
    return np.asarray(jax.random.normal(key, shape)) / np.sqrt(size)
