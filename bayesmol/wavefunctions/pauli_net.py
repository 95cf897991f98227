"""Wavefunctions on orbitals of quantum chemistry: PauliNet's class, and Slater–Jastrow as its cheap relative."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bayesmol.errors import DataError, expected
from bayesmol.wavefunctions.ansatz import Ansatz, Trial
from bayesmol.wavefunctions.locality import each_electron
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.orbital_network import OrbitalNetwork
from bayesmol.wavefunctions.slater_orbitals import SlaterOrbitals
from bayesmol.wavefunctions.training import Training

if TYPE_CHECKING:
    from bayesmol.wavefunctions.reference import Reference

__all__ = ["PauliNet", "SlaterJastrow"]

_WIDE = Training(clip=30.0)


@dataclass(frozen=True)
class PauliNet(Ansatz):
    """Orbitals of a Hartree–Fock or CASSCF calculation with exact cusps, corrected by a graph network.

    Attributes
    ----------
    determinants
        Those of the largest weight of a small active space; 1 for Hartree–Fock.
    width, layers
        Channels and rounds of the graph network.
    virtuals
        How many orbitals beyond those that are occupied in some determinant the network may mix in.
    basis
        Gaussian basis of the calculation.
    backflow
        Whether orbitals depend on all electrons.
    training
        How the energy is minimised.

    References
    ----------
    Hermann, Schätzle, Noé, Nat. Chem. 12, 891 (2020); Schätzle, Hermann, Noé, J. Chem. Phys. 154, 124108 (2021).
    """

    determinants: int = 4
    width: int = 24
    layers: int = 2
    virtuals: int = 0
    basis: str = "cc-pvtz"
    backflow: bool = True
    training: Training = field(default_factory=Training)

    def __post_init__(self) -> None:
        if min(self.determinants, self.width, self.layers) < 1 or self.virtuals < 0:
            raise DataError(expected("determinants, width, layers, virtuals", "positive counts", self))

    def reference(self, molecule: Molecule) -> Reference:
        """Determinants of the largest weight, from PySCF."""
        from bayesmol.wavefunctions.reference import multireference

        return multireference(molecule, self.determinants, basis=self.basis)

    def assembled(self, molecule: Molecule, reference: Reference | None, *, seed: int) -> Trial:
        """The orbitals with a network whose outputs are zero."""
        if reference is None:
            raise DataError(expected("reference", "orbitals", None, "call PauliNet.reference"))
        kept = _kept(reference, self.virtuals)
        mixing = _chosen(reference.up, kept), _chosen(reference.down, kept)
        orbitals = replace(reference.orbitals, coefficients=np.asarray(reference.orbitals.coefficients)[:, kept])
        network = OrbitalNetwork.of(
            molecule, _Fixed(orbitals), mixing, width=self.width, layers=self.layers, backflow=self.backflow
        )
        parameters = network.parameters({}, reference.coefficients, np.random.default_rng(seed))
        return Trial(molecule, network, parameters, reference)


def SlaterJastrow(determinants: int = 1, *, training: Training = _WIDE, **options: Any) -> PauliNet:
    """Fixed orbitals times a symmetric factor: :class:`PauliNet` without backflow, so orbitals set the nodes.

    Beside wrong nodes local energies go as one over the distance. Clipped narrowly they teach nothing, the factor grows
    there as it likes, and the energy of Be is refused for its tail (k = 1.0); so they are clipped widely (k = 0.6).
    """
    return PauliNet(determinants=determinants, virtuals=0, backflow=False, training=training, **options)


def _kept(reference: Reference, virtuals: int) -> np.ndarray:
    """Orbitals that are occupied somewhere, and some of the others."""
    used = np.unique(np.concatenate([reference.up.ravel(), reference.down.ravel()])).astype(int)
    others = np.setdiff1d(np.arange(np.asarray(reference.orbitals.coefficients).shape[1]), used)
    return np.concatenate([used, others[:virtuals]])


def _chosen(orbitals: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Mixing matrices that choose orbitals, axes (determinants, functions, electrons)."""
    return np.moveaxis(np.asarray(orbitals, dtype=int)[..., None] == kept, 1, 2).astype(float)


@partial(jax.tree_util.register_dataclass, data_fields=["orbitals"], meta_fields=[])
@dataclass(frozen=True, eq=False)
class _Fixed:
    """Orbitals without parameters of their own."""

    orbitals: SlaterOrbitals

    def __call__(self, parameters: Any, r: Any) -> Any:
        return each_electron(self.orbitals, r)
