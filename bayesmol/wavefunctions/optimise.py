r"""Steps of an optimiser from scores :math:`O_{ip} = \partial \ln|\psi(r_i)| / \partial \theta_p` and local energies.

All of them work on flat vectors, and each has the same two functions, so one training loop serves all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayesmol.errors import DataError, expected

__all__ = ["Adam", "AdamState", "Clipped", "MinSR", "Optimiser", "Spring", "clipped"]


class Clipped(NamedTuple):
    """Local energies without their tails, and the share of them that was moved."""

    energies: Float[Array, " walkers"]
    share: Float[Array, ""]


def clipped(energies: Float[Array, " walkers"], width: float = 5.0) -> Clipped:
    r"""Local energies limited to :math:`m \pm w \, \overline{|E_i - m|}`, where m is the median and w the ``width``.

    Near a node local energies have tails as heavy as :math:`|E|^{-4}`, so one walker could turn the whole gradient.
    For the gradient only: a mean of clipped energies is biased, and no energy is reported from it.

    References
    ----------
    Pfau, Spencer, Matthews, Foulkes, Phys. Rev. Research 2, 033429 (2020), whose width is 5.
    """
    centre = jnp.median(energies)
    limit = width * jnp.mean(jnp.abs(energies - centre))
    moved = jnp.abs(energies - centre) > limit
    return Clipped(jnp.clip(energies, centre - limit, centre + limit), jnp.mean(moved))


@dataclass(frozen=True)
class Spring:
    r"""Natural gradient in the space of samples, with a momentum that costs no second solve (SPRING).

    With centred scores :math:`\bar O = (O - \langle O \rangle)/\sqrt n` and energies
    :math:`\bar\epsilon = (E - \langle E \rangle)/\sqrt n` the direction is

    .. math:: d_k = \bar O^\top (\bar O \bar O^\top + \lambda I + \tfrac1n 1 1^\top)^{-1}
        (\bar\epsilon - \mu \bar O d_{k-1}) + \mu d_{k-1},

    and the parameters move by :math:`-\eta d_k`, shortened to the length :math:`\sqrt C`. Without momentum it is
    stochastic reconfiguration, :math:`(\bar O^\top \bar O + \lambda I)^{-1} \bar O^\top \bar\epsilon`. The solve is of
    the size of the walkers, not of the parameters.

    The step fits local energies to one number, and :math:`\lambda = \min(\lambda_0, c\,\langle \bar\epsilon^2
    \rangle)` follows the square of what is left to fit: near the answer the energies have little noise, and directions
    of small scores may move.

    Attributes
    ----------
    momentum
        μ, in [0, 1). What walkers of this step cannot see of the last direction is kept but for this factor.
    damping
        λ₀, in units of squared scores.
    constraint
        C, largest squared length of a step; infinite switches it off.
    following
        c in 1/Ha², how far λ follows the variance of the residuals; a large number for λ₀ always.

    References
    ----------
    Goldshlager, Abrahamsen, Lin, J. Comput. Phys. 516, 113351 (2024), arXiv:2401.10190; Yamashita, Fukushima, in
    Topics in Numerical Analysis, Computing Suppl. 15, 239 (2001) (damping by the square of the residuals).
    """

    momentum: float = 0.9
    damping: float = 1e-3
    constraint: float = 1e-2
    following: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise DataError(expected("momentum", "a number in [0, 1)", self.momentum))
        if not 0 < self.following < math.inf:
            raise DataError(expected("following", "a positive number", self.following))
        _check_damping(self.damping, self.constraint)

    def initial(self, parameters: Float[Array, " parameters"]) -> Float[Array, " parameters"]:
        """The last direction, which is zero."""
        return jnp.zeros_like(parameters)

    def update(
        self,
        scores: Float[Array, "walkers parameters"],
        residuals: Float[Array, " walkers"],
        parameters: Float[Array, " parameters"],
        state: Float[Array, " parameters"],
        rate: Float[Array, ""] | float,
    ) -> tuple[Float[Array, " parameters"], Float[Array, " parameters"]]:
        """Parameters after one step, and its direction; scores and residuals (energies) are centred here."""
        # Equal residuals leave nothing to fit, and a matrix that must still be inverted.
        damping = jnp.clip(self.following * jnp.var(residuals), 1e-6 * self.damping, self.damping)
        direction = _natural(scores, residuals, self.momentum * state, damping)
        return parameters - _shortened(rate * direction, self.constraint), direction


@dataclass(frozen=True)
class MinSR:
    """Stochastic reconfiguration in the space of samples: :class:`Spring` without momentum and its memory.

    Attributes
    ----------
    damping, constraint
        As in :class:`Spring`.

    References
    ----------
    Chen, Heyl, Nature Physics 20, 1476 (2024).
    """

    damping: float = 1e-3
    constraint: float = 1e-3

    def __post_init__(self) -> None:
        _check_damping(self.damping, self.constraint)

    def initial(self, parameters: Float[Array, " parameters"]) -> tuple[()]:
        """Nothing is remembered."""
        return ()

    def update(
        self,
        scores: Float[Array, "walkers parameters"],
        residuals: Float[Array, " walkers"],
        parameters: Float[Array, " parameters"],
        state: tuple[()],
        rate: Float[Array, ""] | float,
    ) -> tuple[Float[Array, " parameters"], tuple[()]]:
        """Parameters after one step."""
        direction = _natural(scores, residuals, jnp.zeros_like(parameters), self.damping)
        return parameters - _shortened(rate * direction, self.constraint), ()


class AdamState(NamedTuple):
    """Decaying means of gradients and of their squares, and the number of steps."""

    first: Float[Array, " parameters"]
    second: Float[Array, " parameters"]
    steps: Float[Array, ""]


@dataclass(frozen=True)
class Adam:
    r"""Adam on the gradient :math:`2 \langle (E - \langle E \rangle) \, O \rangle`.

    A baseline; it wants rates near 1e-3.

    Attributes
    ----------
    first, second
        Memories β₁ and β₂ of gradients and of their squares.
    floor
        ε, added to the root of the squares.

    References
    ----------
    Kingma, Ba, arXiv:1412.6980, algorithm 1.
    """

    first: float = 0.9
    second: float = 0.999
    floor: float = 1e-8

    def __post_init__(self) -> None:
        if not (0 <= self.first < 1 and 0 <= self.second < 1):
            raise DataError(expected("first, second", "numbers in [0, 1)", (self.first, self.second)))
        if not 0 < self.floor < math.inf:
            raise DataError(expected("floor", "a positive number", self.floor))

    def initial(self, parameters: Float[Array, " parameters"]) -> AdamState:
        """Means of no gradients."""
        zero = jnp.zeros_like(parameters)
        return AdamState(zero, zero, jnp.zeros((), parameters.dtype))

    def update(
        self,
        scores: Float[Array, "walkers parameters"],
        residuals: Float[Array, " walkers"],
        parameters: Float[Array, " parameters"],
        state: AdamState,
        rate: Float[Array, ""] | float,
    ) -> tuple[Float[Array, " parameters"], AdamState]:
        """Parameters after one step, and the means with its gradient."""
        centred = scores - jnp.mean(scores, 0)
        gradient = 2 / len(residuals) * (residuals - jnp.mean(residuals)) @ centred
        steps = state.steps + 1
        first = self.first * state.first + (1 - self.first) * gradient
        second = self.second * state.second + (1 - self.second) * gradient**2
        mean, square = first / (1 - self.first**steps), second / (1 - self.second**steps)
        return parameters - rate * mean / (jnp.sqrt(square) + self.floor), AdamState(first, second, steps)


Optimiser = Spring | MinSR | Adam


def _natural(scores: Array, residuals: Array, last: Array, damping: float | Array) -> Array:
    """The direction of :class:`Spring`, whose momentum is already in ``last``."""
    walkers = len(residuals)

    def centred(values: Array) -> Array:
        return (values - jnp.mean(values, 0)) / math.sqrt(walkers)

    # The Gram matrix is centred in place of the many scores. That gives it one zero eigenvalue; the constant lifts it
    # and changes nothing else.
    gram = centred(centred(scores @ scores.T).T) + damping * jnp.eye(walkers, dtype=scores.dtype) + 1 / walkers
    target = centred(residuals - scores @ last)
    solution = jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(gram, lower=True), target)
    return centred(solution) @ scores + last


def _shortened(step: Array, constraint: float) -> Array:
    return step * jnp.minimum(1.0, jnp.sqrt(constraint / jnp.maximum(jnp.sum(step**2), 1e-300)))


def _check_damping(damping: float, constraint: float) -> None:
    if not 0 < damping < math.inf:
        raise DataError(expected("damping", "a positive number", damping))
    if not constraint > 0:
        raise DataError(expected("constraint", "a positive number, or infinity", constraint))
