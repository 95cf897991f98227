"""Wavefunctions without quantum chemistry: all of every orbital is learned."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from bayesmol.errors import DataError, expected
from bayesmol.wavefunctions.ansatz import Ansatz, Trial
from bayesmol.wavefunctions.embedding import scaled_normal
from bayesmol.wavefunctions.envelopes import Envelopes
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.orbital_network import OrbitalNetwork
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
        source, envelopes = np.random.default_rng(seed), Envelopes.of(molecule)
        sizes = (molecule.up, molecule.down)
        up, down = (scaled_normal(source, self.determinants, count, size) for size in sizes)
        network = OrbitalNetwork.of(
            molecule, envelopes, (up, down), width=self.width, layers=self.layers, backflow=True
        )
        start = np.ones(self.determinants) / self.determinants
        parameters = network.parameters(envelopes.parameters(count, source), start, source)
        # Functions alone are as many as envelopes; without backflow electrons of one nucleus would share them.
        parameters["backflow"]["out"] = [source.normal(size=one.shape) for one in parameters["backflow"]["out"]]
        return Trial(molecule, network, parameters)
