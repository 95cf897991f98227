"""Walkers: where they start, and their Markov chains with the stationary density |ψ|²."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from bayesmol.errors import DataError, expected
from bayesmol.wavefunctions.batches import batched
from bayesmol.wavefunctions.compilation import shared
from bayesmol.wavefunctions.hops import sometimes
from bayesmol.wavefunctions.local_energy import System, TrialFunction
from bayesmol.wavefunctions.starting import start

__all__ = ["MALA", "Metropolis", "Sampler", "State", "start"]

_GAIN = 0.1  # of the step's logarithm per move and unit of acceptance


class State(NamedTuple):
    """Walkers and what the next move needs.

    Attributes
    ----------
    r
        Configurations in bohr.
    log, drift
        ln|ψ| and its gradient in 1/bohr (zero where the sampler needs none).
    step
        Time step (MALA) or variance (Metropolis) of a move, in bohr².
    acceptance
        Share of accepted moves in the last call, without hops.
    age
        Moves since each walker was last accepted; a large one is a walker that is stuck.
    """

    r: Float[Array, "walkers electrons 3"]
    log: Float[Array, " walkers"]
    drift: Float[Array, "walkers electrons 3"]
    step: Float[Array, ""]
    acceptance: Float[Array, ""]
    age: Int[Array, " walkers"]


Move = Callable[..., State]


@runtime_checkable
class Sampler(Protocol):
    """A Markov chain on |ψ|², all electrons of a walker at once."""

    def __hash__(self) -> int: ...

    def initial(self, r: Float[Array, "walkers electrons 3"]) -> State:
        """State of walkers at ``r``, where nobody has looked yet: the next move must know that it is stale."""

    def move(self, log_psi: TrialFunction, molecule: System) -> Move:
        """Function ``(parameters, state, key, steps, adapt=False, stale=False)`` that moves the walkers.

        Where the state is stale, initial or of other parameters, it looks at ln|ψ| and the drift before the moves.
        """


@dataclass(frozen=True)
class MALA:
    r"""Metropolis-adjusted Langevin moves :math:`r' = r + \tau \bar v(r) + \sqrt\tau\, \xi`, drift limited.

    .. math:: \bar v = v \frac{-1 + \sqrt{1 + 2 a v^2 \tau}}{a v^2 \tau}, \quad v = \nabla \ln|\psi|

    for each electron; the acceptance holds detailed balance exactly.

    Attributes
    ----------
    step
        First time step in bohr².
    target
        Acceptance that the step is adapted to.
    limit
        a, from 0 to 1.
    hops
        Chance that a walker tries a hop of one electron instead (:func:`~bayesmol.wavefunctions.hops.hop`).

    References
    ----------
    Roberts, Tweedie, Bernoulli 2, 341 (1996); Umrigar, Nightingale, Runge, J. Chem. Phys. 99, 2865 (1993), eq. 35.
    """

    step: float = 0.1
    target: float = 0.57
    limit: float = 0.5
    hops: float = 0.1

    def __post_init__(self) -> None:
        _check(self.step, self.target, self.hops)

    def initial(self, r: Float[Array, "walkers electrons 3"]) -> State:
        """State of walkers at ``r``, where nobody has looked yet: the next move must know that it is stale."""
        return _initial(r, self.step)

    def move(self, log_psi: TrialFunction, molecule: System) -> Move:
        """Function ``(parameters, state, key, steps, adapt=False, stale=False)`` that moves the walkers."""

        def propose(state: State, noise: Array) -> Array:
            return self._centre(state.r, state.drift, state.step) + jnp.sqrt(state.step) * noise

        def log_ratio(state: State, r: Array, drift: Array) -> Array:
            forth = r - self._centre(state.r, state.drift, state.step)
            back = state.r - self._centre(r, drift, state.step)
            return jnp.sum(forth**2 - back**2, (1, 2)) / (2 * state.step)

        return _moves(_once(shared(_log_and_drift, log_psi), propose, log_ratio, molecule, self.hops), self.target)

    def _centre(self, r: Array, drift: Array, step: Array) -> Array:
        return r + self._limited(drift, step) * step

    def _limited(self, drift: Array, step: Array) -> Array:
        # 2 / (1 + √(1 + x)) is (−1 + √(1 + x)) / (x / 2) without the loss of digits at small x.
        square = 2 * self.limit * step * jnp.sum(drift**2, -1, keepdims=True)
        return drift * 2 / (1 + jnp.sqrt(1 + square))


@dataclass(frozen=True)
class Metropolis:
    r"""Metropolis moves :math:`r' = r + \sqrt\tau\, \xi` of all electrons; needs no gradient.

    Attributes
    ----------
    step
        First variance of a coordinate's move in bohr².
    target
        Acceptance that the step is adapted to.
    hops
        As in :class:`MALA`.

    References
    ----------
    Metropolis, Rosenbluth, Rosenbluth, Teller, Teller, J. Chem. Phys. 21, 1087 (1953).
    """

    step: float = 0.05
    target: float = 0.5
    hops: float = 0.1

    def __post_init__(self) -> None:
        _check(self.step, self.target, self.hops)

    def initial(self, r: Float[Array, "walkers electrons 3"]) -> State:
        """State of walkers at ``r``, where nobody has looked yet: the next move must know that it is stale."""
        return _initial(r, self.step)

    def move(self, log_psi: TrialFunction, molecule: System) -> Move:
        """Function ``(parameters, state, key, steps, adapt=False, stale=False)`` that moves the walkers."""

        def propose(state: State, noise: Array) -> Array:
            return state.r + jnp.sqrt(state.step) * noise

        def log_ratio(state: State, r: Array, drift: Array) -> Array:
            return jnp.zeros_like(state.log)

        return _moves(_once(shared(_log_alone, log_psi), propose, log_ratio, molecule, self.hops), self.target)


def _check(step: float, target: float, hops: float) -> None:
    if not step > 0:
        raise DataError(expected("step", "a positive number of bohr²", step))
    if not 0 < target < 1:
        raise DataError(expected("target", "an acceptance between 0 and 1", target))
    if not 0 <= hops < 1:
        raise DataError(expected("hops", "a share from 0 to below 1", hops))


def _log_and_drift(log_psi: TrialFunction, parameters: Any, r: Array) -> tuple[Array, Array]:
    return batched(jax.value_and_grad(lambda parameters, r: log_psi(parameters, r).log, 1))(parameters, r)


def _log_alone(log_psi: TrialFunction, parameters: Any, r: Array) -> tuple[Array, Array]:
    return batched(lambda parameters, r: log_psi(parameters, r).log)(parameters, r), jnp.zeros_like(r)


def _initial(r: Array, step: float) -> State:
    r = jnp.asarray(r)
    unknown = jnp.full(len(r), jnp.nan, r.dtype)  # used all the same, it would let nobody move
    age = jnp.zeros(len(r), jnp.int32)
    return State(r, unknown, jnp.zeros_like(r), jnp.asarray(step, r.dtype), jnp.ones((), r.dtype), age)


def _once(
    evaluate: Callable, propose: Callable, log_ratio: Callable, molecule: System, hops: float
) -> Callable[[Any, State, Array, Array], tuple[State, Array]]:
    """One move of every walker, or by chance a hop: a mixture of reversible moves; and the share of accepted moves.

    To look is to move to the same place. A separate function for it would have to be compiled, too.
    """
    proposed, more = sometimes(molecule, hops)

    def once(parameters: Any, state: State, key: Array, look: Array) -> tuple[State, Array]:
        # One call for all random numbers, half as long to compile: −(z₁² + z₂²)/2 is the logarithm of a uniform number.
        size = state.r[0].size
        normals = jax.random.normal(key, (len(state.r), size + 2 + more), state.r.dtype)
        threshold, noise = -jnp.sum(normals[:, :2] ** 2, 1) / 2, normals[:, 2 : 2 + size].reshape(state.r.shape)
        r, hopping, hop_ratio = proposed(state.r, propose(state, noise), normals[:, 2 + size :])
        r = jnp.where(look, state.r, r)
        log, drift = evaluate(parameters, r)
        ratio = jnp.where(hopping, hop_ratio, log_ratio(state, r, drift))
        # A comparison with NaN is false: a proposal without a value is rejected.
        accept = (threshold < 2 * (log - state.log) + ratio) & jnp.all(jnp.isfinite(drift), (1, 2)) | look
        old = (state.r, state.log, state.drift)
        wide = accept[:, None, None]
        r, log, drift = (
            jnp.where(accept if new.ndim == 1 else wide, new, kept)
            for new, kept in zip((r, log, drift), old, strict=True)
        )
        age = jnp.where(look, state.age, jnp.where(accept, 0, state.age + 1))
        share = jnp.sum(accept & ~hopping) / jnp.maximum(jnp.sum(~hopping), 1)
        return state._replace(r=r, log=log, drift=drift, age=age), share.astype(log.dtype)

    return once


def _moves(once: Callable[[Any, State, Array, Array], tuple[State, Array]], target: float) -> Move:
    """Moves again and again; their number and the adaptation of the step are no constants of the compilation."""

    def move(
        parameters: Any,
        state: State,
        key: Array,
        steps: int | Array,
        adapt: bool | Array = False,
        stale: bool | Array = False,
    ) -> State:
        gain = jnp.where(adapt, _GAIN, 0.0).astype(state.log.dtype)

        def body(i: Array, carried: tuple[State, Array]) -> tuple[State, Array]:
            current, total = carried
            look = i < 0
            moved, share = once(parameters, current, jax.random.fold_in(key, i), look)
            step = jnp.where(look, moved.step, moved.step * jnp.exp(gain * (share - target)))
            return moved._replace(step=step), total + jnp.where(look, 0.0, share)

        first = -jnp.asarray(stale, jnp.int32)
        moved, total = jax.lax.fori_loop(first, steps, body, (state, jnp.zeros((), state.log.dtype)))
        return moved._replace(acceptance=total / jnp.maximum(steps, 1))

    return move
