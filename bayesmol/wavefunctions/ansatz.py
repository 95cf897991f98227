"""What an ansatz is: it makes a wavefunction with parameters for a molecule, and trains it."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bayesmol.wavefunctions.local_energy import TrialFunction
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.training import Training, train

if TYPE_CHECKING:
    from bayesmol.wavefunctions.fitted import FittedWavefunction
    from bayesmol.wavefunctions.reference import Reference

__all__ = ["Ansatz", "Trial"]


@dataclass(frozen=True, eq=False)
class Trial:
    """A trial wavefunction of one molecule.

    Attributes
    ----------
    log_psi
        The function of parameters and one configuration, pure and differentiable.
    parameters
        Where training starts: a tree of arrays.
    reference
        The orbitals it is built on; ``None`` without.
    """

    molecule: Molecule
    log_psi: TrialFunction
    parameters: Any
    reference: Reference | None = None


class Ansatz(ABC):
    """A specification of trial wavefunctions."""

    training: Training

    @abstractmethod
    def reference(self, molecule: Molecule) -> Reference | None:
        """Orbitals that the wavefunction is built on."""

    @abstractmethod
    def assembled(self, molecule: Molecule, reference: Reference | None, *, seed: int) -> Trial:
        """The wavefunction on these orbitals, with initial parameters."""

    def build(self, molecule: Molecule, *, seed: int) -> Trial:
        """The wavefunction of a molecule, with initial parameters."""
        return self.assembled(molecule, self.reference(molecule), seed=seed)

    def fit(
        self,
        molecule: Molecule,
        *,
        seed: int,
        minutes: float | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> FittedWavefunction:
        """Minimise the energy.

        Parameters
        ----------
        minutes
            Wall time of the training with its compilation; by default that of ``training``.
        checkpoint
            File in which the state of training is kept; where it exists, training goes on from it.

        Raises
        ------
        ConvergenceError
            If the quantum chemistry or the training fails.
        """
        from bayesmol.wavefunctions.fitted import FittedWavefunction

        trial = self.build(molecule, seed=seed)
        trained = train(trial, molecule, self.training, seed=seed, minutes=minutes, checkpoint=checkpoint)
        return FittedWavefunction(self, trial, trained, seed)
