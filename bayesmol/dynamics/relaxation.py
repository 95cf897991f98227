"""What an experiment sees of a Markov chain: means, correlations at equilibrium, and the return to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.dynamics.elimination import checked_matrix, stationary_distribution
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["correlation_function", "mean_observable", "relaxation_function"]


def mean_observable(
    P: Float[Tensor, "*draws states states"], observable: Float[Tensor, " states"]
) -> Float[Tensor, "*draws"]:
    r"""Mean :math:`\sum_i \pi_i a_i` at equilibrium, in the unit of the observable.

    Raises
    ------
    ShapeError, DataError
        If the observable is not one finite number a state, or P is reducible.
    """
    return stationary_distribution(P) @ _checked(P, observable, "observable")


def correlation_function(
    P: Float[Tensor, "*draws states states"],
    first: Float[Tensor, " states"],
    second: Float[Tensor, " states"] | None = None,
    *,
    steps: Sequence[int],
) -> Float[Tensor, "*draws steps"]:
    r"""Correlation of two observables at equilibrium (of ``first`` with itself if there is no ``second``).

    .. math:: C_n = \sum_i \pi_i a_i (P^n b)_i

    The means are not taken off; take them off the observables if a covariance is wanted.

    Parameters
    ----------
    steps
        Numbers n of steps, rising, from 0 on.

    Raises
    ------
    ShapeError, DataError
        If an observable is not one finite number a state, the steps do not rise, or P is reducible.

    References
    ----------
    Noé, Doose, Daidone, Löllmann, Sauer, Chodera, Smith, PNAS 108, 4822 (2011).
    """
    later = _checked(P, first if second is None else second, "second")
    weights = stationary_distribution(P) * _checked(P, first, "first")
    return _followed(checked_matrix(P), later, steps, lambda value: (weights * value).sum(-1))


def relaxation_function(
    P: Float[Tensor, "*draws states states"],
    start: Float[Tensor, " states"],
    observable: Float[Tensor, " states"],
    *,
    steps: Sequence[int],
) -> Float[Tensor, "*draws steps"]:
    r"""Mean of the observable after a jump away from equilibrium, :math:`\sum_i p_i (P^n a)_i`.

    Parameters
    ----------
    start
        Distribution p at the jump.
    steps
        Numbers n of steps, rising, from 0 on.

    Raises
    ------
    ShapeError, DataError
        If ``start`` is no distribution, the observable is not one finite number a state, or the steps do not rise.
    """
    weights = _checked(P, start, "start")
    if not bool((weights >= 0).all()) or abs(float(weights.sum()) - 1) > 1e-6:
        raise DataError(expected("start", "a distribution over the states", f"a sum of {float(weights.sum()):g}"))
    return _followed(checked_matrix(P), _checked(P, observable, "observable"), steps, lambda value: value @ weights)


def _followed(P: Tensor, value: Tensor, steps: Sequence[int], seen: Callable[[Tensor], Tensor]) -> Tensor:
    """``seen`` of Pⁿ a at each n, from one to the next."""
    rising = [int(n) for n in steps]
    if not rising or rising[0] < 0 or any(b <= a for a, b in pairwise(rising)):
        raise DataError(expected("steps", "rising whole numbers from 0 on", rising[:10]))
    value, now, found = value.expand(P.shape[:-1])[..., None], 0, []
    for n in rising:
        value, now = _advanced(P, value, n - now), n
        found.append(seen(value[..., 0]))
    return torch.stack(found, -1)


def _advanced(P: Tensor, value: Tensor, steps: int) -> Tensor:
    # A power by squaring costs about 2 log₂(n) products of matrices, one after the other n products with a vector.
    if steps > 2 * P.shape[-1] * (1 + math.log2(steps + 1)):
        return torch.linalg.matrix_power(P, steps) @ value
    for _ in range(steps):
        value = P @ value
    return value


def _checked(P: Tensor, values: Tensor, name: str) -> Tensor:
    if values.shape != P.shape[-1:]:
        raise ShapeError(expected(name, f"one number for each of {P.shape[-1]} states", tuple(values.shape)))
    if not bool(torch.isfinite(values).all()):
        raise DataError(expected(name, "finite numbers", "NaN or infinity"))
    return values.to(P.device).double()
