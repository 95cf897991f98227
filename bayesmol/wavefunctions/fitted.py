"""A trained wavefunction: its energy with a verdict, and samples of its electrons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import integer_seed
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import Estimate
from bayesmol.wavefunctions import saved
from bayesmol.wavefunctions.ansatz import Ansatz, Trial
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.evaluation import Evaluation
from bayesmol.wavefunctions.history import History
from bayesmol.wavefunctions.log_psi import LogPsi
from bayesmol.wavefunctions.molecule import Molecule
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.training import Trained

__all__ = ["FittedWavefunction"]

_WALKERS = 128


@dataclass(frozen=True, eq=False)
class FittedWavefunction:
    """A wavefunction after training; immutable.

    Attributes
    ----------
    ansatz
        What it is.
    trial
        The function, with its parameters before training.
    trained
        Parameters, walkers and history of the training.
    seed
        Of the fit.
    """

    ansatz: Ansatz
    trial: Trial
    trained: Trained
    seed: int

    @property
    def molecule(self) -> Molecule:
        """The molecule."""
        return self.trial.molecule

    @property
    def parameters(self) -> Any:
        """The tree of trained parameters."""
        return self.trained.parameters

    @property
    def history(self) -> History:
        """What each step of the training saw."""
        return self.trained.history

    def energy(self, draws: int = 2000, *, seed: int | torch.Generator, walkers: int | None = None) -> Energy:
        """Energy of this wavefunction, from new walks on it.

        Parameters
        ----------
        draws
            Draws of each walker, several moves apart.
        walkers
            Number of walkers; 128, or as many as were trained with.

        Raises
        ------
        ConvergenceError
            If the derivatives of the wavefunction fail a check by finite differences.
        """
        place = self._places(walkers)
        return self.evaluation.energy(self.parameters, place, draws, seed=integer_seed(seed))

    def sample(self, draws: int, *, seed: int | torch.Generator, walkers: int | None = None) -> Draws:
        """Configurations of the electrons in bohr, axes (walker, draw, electron, 3); up electrons first."""
        parts = self.evaluation.blocks(self.parameters, self._places(walkers), draws, seed=integer_seed(seed))
        r = np.concatenate([part.r for part in parts])[:draws]
        return Draws(torch.from_numpy(np.moveaxis(r, 0, 1).copy()), unit="bohr")

    def expectation(
        self,
        observable: Callable[[Tensor], Tensor],
        draws: int = 1000,
        *,
        seed: int | torch.Generator,
        unit: str = "",
    ) -> Estimate:
        """Mean of a function of configurations (a torch tensor, one row each), its error with autocorrelation."""
        return self.sample(draws, seed=seed).expectation(observable, unit)

    def log_psi(self, r: Float[np.ndarray, "*walkers electrons 3"]) -> LogPsi:
        """Sign and logarithm of ψ at configurations in bohr.

        Raises
        ------
        ShapeError
            If they are not (electrons, 3) each.
        """
        shape = (self.molecule.electrons, 3)
        if np.shape(r)[-2:] != shape:
            raise ShapeError(expected("r", f"(…, {shape[0]}, 3) in bohr", np.shape(r)))
        with double():
            rows = jnp.asarray(r, dtype=jnp.float64).reshape(-1, *shape)
            found = self._log_psi(self.parameters, rows)
            arrays: list[Any] = [np.asarray(part).reshape(np.shape(r)[:-2]) for part in found]
            return LogPsi(*arrays)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and arrays for a file."""
        header = saved.header_of(self.ansatz, self.trial, self.trained, self.seed)
        return header, saved.arrays_of(self.trial, self.trained)

    @classmethod
    def from_state(cls, header: dict[str, Any], arrays: dict[str, Tensor]) -> FittedWavefunction:
        """From what :meth:`state` gave."""
        plain = {name: array.cpu().numpy() for name, array in arrays.items()}
        ansatz = saved.ansatz_of(header)
        trial = saved.trial_of(ansatz, header, plain)
        return cls(ansatz, trial, saved.trained_of(trial, header, plain), header["seed"])

    @cached_property
    def evaluation(self) -> Evaluation:
        """The compiled sampling of this wavefunction."""
        return Evaluation(self.trial.log_psi, self.molecule)

    @cached_property
    def _log_psi(self) -> Callable[..., LogPsi]:
        return jax.jit(jax.vmap(self.trial.log_psi, (None, 0)))

    def _places(self, walkers: int | None) -> np.ndarray:
        known = np.asarray(self.trained.walkers)
        if walkers is not None and not 1 <= walkers <= len(known):
            raise DataError(expected("walkers", f"1 to {len(known)}, as many as were trained with", walkers))
        return known[: min(_WALKERS, len(known)) if walkers is None else walkers]
