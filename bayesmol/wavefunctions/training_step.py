"""The compiled part of a training: moves of the walkers, and one step of the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from bayesmol.wavefunctions.batches import batched
from bayesmol.wavefunctions.compilation import shared
from bayesmol.wavefunctions.local_energy import Nuclei, System, TrialFunction, local_energies
from bayesmol.wavefunctions.optimise import Optimiser, clipped
from bayesmol.wavefunctions.walkers import Sampler, State

__all__ = ["Learning", "compiled", "redrawn"]


class Learning(NamedTuple):
    """All arrays that a step changes.

    Attributes
    ----------
    parameters, average
        Trees of the same form.
    optimiser
        State of the optimiser.
    """

    parameters: Any
    average: Any
    optimiser: Any
    walkers: State


def compiled(
    log_psi: TrialFunction, molecule: System, sampler: Sampler, optimiser: Optimiser, clip: float, oldest: int
) -> tuple[Callable, Callable]:
    """Moves of the walkers, and one step of the parameters.

    The first is ``(parameters, walkers, key, moves, adapt) -> walkers``, the second
    ``(now, key, rate, memory) -> (now, seen)``, where ``seen`` holds mean and variance of the local energies, shares
    of accepted moves and of clipped energies, copied walkers, and whether the step was taken.
    """
    system = Nuclei.of(molecule)
    return shared(_walk, log_psi, system, sampler), shared(_learn, log_psi, system, optimiser, clip, oldest)


def _walk(
    log_psi: TrialFunction,
    molecule: System,
    sampler: Sampler,
    parameters: Any,
    walkers: State,
    key: Array,
    moves: int,
    adapt: bool,
) -> State:
    return sampler.move(log_psi, molecule)(parameters, walkers, key, moves, adapt, stale=True)


def _learn(
    log_psi: TrialFunction,
    molecule: System,
    optimiser: Optimiser,
    clip: float,
    oldest: int,
    now: Learning,
    key: Array,
    rate: float,
    memory: float,
) -> tuple[Learning, Array]:
    vector, tree = ravel_pytree(now.parameters)
    score = batched(jax.grad(lambda flat, r: log_psi(tree(flat), r).log))
    energy = local_energies(log_psi, molecule)(now.parameters, now.walkers.r).total
    scores = score(vector, now.walkers.r)
    cut = clipped(energy, clip)
    moved, state = optimiser.update(scores, cut.energies, vector, now.optimiser, rate)
    taken = jnp.isfinite(moved).all() & jnp.isfinite(energy).all()
    parameters, state = jax.tree.map(
        lambda new, old: jnp.where(taken, new, old), (tree(moved), state), (now.parameters, now.optimiser)
    )
    average = jax.tree.map(lambda a, p: jnp.where(taken, a + (p - a) / (1 + memory), a), now.average, parameters)
    walkers, copies = redrawn(now.walkers, energy, oldest, key)
    seen = (jnp.mean(energy), jnp.var(energy), now.walkers.acceptance, cut.share, copies, taken)
    return Learning(parameters, average, state, walkers), jnp.stack([jnp.asarray(x, energy.dtype) for x in seen])


def redrawn(
    walkers: State, energy: Float[Array, " walkers"], oldest: int, key: Array
) -> tuple[State, Float[Array, ""]]:
    """Walkers that are stuck or have no finite energy become copies of others; also their number."""
    fine = jnp.isfinite(energy) & (walkers.age <= oldest)
    choice = jax.random.categorical(key, jnp.where(fine, 0.0, -jnp.inf), shape=fine.shape)
    moved = ~fine & fine.any()
    r = walkers.r[jnp.where(moved, choice, jnp.arange(len(fine)))]
    return walkers._replace(r=r, age=jnp.where(moved, 0, walkers.age)), jnp.sum(moved)
