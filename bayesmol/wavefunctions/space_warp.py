"""Electrons that follow the nuclei: configurations of one geometry carried to another, with the change of volume."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from bayesmol.errors import ShapeError, expected
from bayesmol.wavefunctions.precision import double

__all__ = ["SpaceWarp"]

_NEWTON = 30  # steps; near the solution each doubles the digits
_CLOSED = 1e-8  # bohr


@dataclass(frozen=True, eq=False)
class SpaceWarp:
    r"""The map :math:`r \mapsto r + \sum_a (R'_a - R_a)\, \omega_a(r)` of each electron, with
    :math:`\omega_a = r_a^{-4} / \sum_b r_b^{-4}`.

    An electron near a nucleus moves with it, so cusps are carried to cusps.

    Attributes
    ----------
    source, target
        Places of the nuclei R and R' in bohr.

    Raises
    ------
    ShapeError
        If the two have not the same number of nuclei.

    References
    ----------
    Umrigar, Int. J. Quantum Chem. 36, 217 (1989); Filippi, Umrigar, Phys. Rev. B 61, R16291 (2000).
    """

    source: Float[np.ndarray, "nuclei 3"]
    target: Float[np.ndarray, "nuclei 3"]

    def __post_init__(self) -> None:
        if np.shape(self.source) != np.shape(self.target):
            raise ShapeError(expected("target", f"places of {len(self.source)} nuclei", np.shape(self.target)))

    @property
    def moves(self) -> bool:
        """Whether any nucleus moves."""
        return not np.array_equal(self.source, self.target)

    def forward(
        self, r: Float[Array | np.ndarray, "*walkers electrons 3"]
    ) -> tuple[Float[np.ndarray, "*walkers electrons 3"], Float[np.ndarray, "*walkers"]]:
        """Configurations about the target, and the logarithm of the change of volume."""
        if not self.moves:
            return np.asarray(r), np.zeros(np.shape(r)[:-2])
        with double():
            warped, log = _forward(self.source, self.target, jnp.asarray(r, jnp.float64).reshape(-1, 3))
        return np.asarray(warped).reshape(np.shape(r)), _summed(log, np.shape(r))

    def inverse(
        self, r: Float[Array | np.ndarray, "*walkers electrons 3"]
    ) -> tuple[Float[np.ndarray, "*walkers electrons 3"], Float[np.ndarray, "*walkers"], bool]:
        """Configurations that :meth:`forward` carries to ``r``, the logarithm of *its* change of volume there, and
        whether all were found: large displacements fold space.
        """
        if not self.moves:
            return np.asarray(r), np.zeros(np.shape(r)[:-2]), True
        with double():
            found, log, off, sign = _inverse(self.source, self.target, jnp.asarray(r, jnp.float64).reshape(-1, 3))
        fine = bool(np.all((np.asarray(off) < _CLOSED) & (np.asarray(sign) > 0)))
        return np.asarray(found).reshape(np.shape(r)), _summed(log, np.shape(r)), fine


def _summed(log: Array, shape: tuple[int, ...]) -> Float[np.ndarray, "*walkers"]:
    return np.asarray(log).reshape(shape[:-1]).sum(-1)


def _warped(source: Array, target: Array, point: Float[Array, " 3"]) -> Float[Array, " 3"]:
    square = jnp.sum((point - source) ** 2, -1)
    return point + jax.nn.softmax(-2 * jnp.log(square)) @ (target - source)


@jax.jit
def _forward(source: Array, target: Array, points: Float[Array, "points 3"]) -> tuple[Array, Array]:
    single = partial(_warped, source, target)
    slopes = jax.vmap(jax.jacfwd(single))(points)
    return jax.vmap(single)(points), jnp.linalg.slogdet(slopes)[1]


@jax.jit
def _inverse(source: Array, target: Array, points: Float[Array, "points 3"]) -> tuple[Array, Array, Array, Array]:
    single = partial(_warped, source, target)

    def solved(goal: Array) -> tuple[Array, Array, Array, Array]:
        def step(_: int, guess: Array) -> Array:
            return guess - jnp.linalg.solve(jax.jacfwd(single)(guess), single(guess) - goal)

        # The warp of the other direction is the inverse up to second order.
        found = jax.lax.fori_loop(0, _NEWTON, step, _warped(target, source, goal))
        sign, log = jnp.linalg.slogdet(jax.jacfwd(single)(found))
        return found, log, jnp.max(jnp.abs(single(found) - goal)), sign

    return jax.vmap(solved)(points)
