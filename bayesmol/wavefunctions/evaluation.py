"""Walkers on a fixed wavefunction: local energies and configurations, in blocks that are compiled once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.progress import progress
from bayesmol.wavefunctions.compilation import shared
from bayesmol.wavefunctions.energy import Energy
from bayesmol.wavefunctions.local_energy import (
    LocalEnergy,
    Nuclei,
    System,
    TrialFunction,
    checked,
    local_energies,
)
from bayesmol.wavefunctions.precision import double
from bayesmol.wavefunctions.walkers import MALA, Sampler, State

__all__ = ["Evaluation", "Measured"]

_BURN_IN = 300  # moves, in which the step is adapted as well
_BLOCK = 10  # draws of one compiled call


class Measured(NamedTuple):
    """What is kept of each draw, axes (draws, walkers, …)."""

    energy: LocalEnergy
    log: Float[Array, "draws walkers"]
    r: Float[Array, "draws walkers electrons 3"]
    acceptance: Float[Array, " draws"]


class Evaluation:
    """Sampling of one trial function; the compiled functions are kept for all its parameters.

    Parameters
    ----------
    moves
        Moves of the sampler between draws.
    """

    def __init__(
        self, log_psi: TrialFunction, molecule: System, *, sampler: Sampler | None = None, moves: int = 10
    ) -> None:
        self.sampler, self.moves = MALA() if sampler is None else sampler, moves
        self._log_psi = log_psi
        self._block = shared(_measured, log_psi, Nuclei.of(molecule), self.sampler)

    def energy(
        self, parameters: Any, r: Float[Array | np.ndarray, "walkers electrons 3"], draws: int, *, seed: int
    ) -> Energy:
        """Energy of the wavefunction from walkers that start at ``r``, after a burn-in."""
        parts = list(self.blocks(parameters, r, draws, seed=seed))
        whole = jax.tree.map(lambda *arrays: np.concatenate(arrays)[:draws].T, *[(p.energy, p.log) for p in parts])
        acceptance = float(np.mean([part.acceptance.mean() for part in parts]))
        return Energy.of(*whole[0], log_density=2 * whole[1], acceptance=acceptance, steps=self.moves)

    def blocks(
        self, parameters: Any, r: Float[Array | np.ndarray, "walkers electrons 3"], draws: int, *, seed: int
    ) -> Iterator[Measured]:
        """Draws in parts, as they are made; the last part may be longer than asked for.

        Raises
        ------
        ConvergenceError
            If derivatives of the wavefunction are not those of finite differences.
        """
        with double():
            parameters, start = jax.tree.map(jnp.asarray, (parameters, r))
            first, key = jax.random.split(jax.random.key(seed))
            state = self.sampler.initial(start)
            state, found = self._block(parameters, state, first, _BURN_IN // _BLOCK, True, True)
            last = jax.tree.map(lambda part: part[-1], found)
            checked(lambda *_: last.energy, self._log_psi, parameters, last.r)
        with progress("sampling the wavefunction", draws) as advance:
            for k in range(-(-draws // _BLOCK)):
                with double():
                    state, found = self._block(parameters, state, jax.random.fold_in(key, k), self.moves, False, False)
                    found = jax.tree.map(np.asarray, found)
                yield found
                advance(min(_BLOCK, draws - k * _BLOCK))


def _measured(
    log_psi: TrialFunction,
    molecule: System,
    sampler: Sampler,
    parameters: Any,
    state: State,
    key: Array,
    moves: int,
    adapt: bool,
    stale: bool,
) -> tuple[State, Measured]:
    """A block of draws; burn-in is one of more moves in which the step adapts, to compile nothing else."""
    move, energies = sampler.move(log_psi, molecule), local_energies(log_psi, molecule)

    def draw(state: State, key: Array) -> tuple[State, Measured]:
        state = move(parameters, state, key, moves, adapt, stale)
        return state, Measured(energies(parameters, state.r), state.log, state.r, state.acceptance)

    return jax.lax.scan(draw, state, jax.random.split(key, _BLOCK))
