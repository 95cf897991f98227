"""Free-energy difference of two densities from draws of both: Bennett's acceptance ratio."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.posterior import Estimate

__all__ = ["free_energy_difference"]

_OVERLAP = 5.0  # draws that the overlap of two densities must be worth


def free_energy_difference(
    forward: Float[Tensor, " forward"],
    reverse: Float[Tensor, " reverse"],
    *,
    effective: tuple[float, float] | None = None,
) -> Estimate:
    r"""Free-energy difference between two states from work in both directions.

    Solves Bennett's self-consistent equation

    .. math:: \sum_i f(w_i - \Delta F + M) = \sum_j f(w'_j + \Delta F - M), \quad
              f(x) = (1 + e^x)^{-1}, \; M = \ln(n/m),

    with n forward and m reverse works. The variance is
    :math:`\frac{1}{n}\left(\frac{\langle f^2\rangle}{\langle f\rangle^2} - 1\right)` of both directions together.

    Parameters
    ----------
    forward, reverse
        Reduced work, in units of :math:`k_B T`: :math:`u_B - u_A` at draws of A, :math:`u_A - u_B` at draws of B.
        From a flow q to a target it is minus the log-weight at draws of q, and the log-weight at draws of the target,
        and :math:`\Delta F = -\ln Z`. It may be +∞.
    effective
        How many independent works the two are worth, if they are correlated; as many as they are if ``None``.

    Raises
    ------
    ShapeError, DataError
        If a direction has no works, one is NaN or −∞, or an effective number is above the number of works.
    ConvergenceError
        If the two distributions of work do not overlap, so that either side of the equation is worth less than five
        works; add intermediate states.

    References
    ----------
    Bennett, J. Comput. Phys. 22, 245 (1976), equations 12a-b; Shirts, Bair, Hooker, Pande, Phys. Rev. Lett. 91, 140601
    (2003).
    """
    works = [_works(forward, "forward"), _works(reverse, "reverse")]
    counts = [float(len(work)) for work in works] if effective is None else [float(n) for n in effective]
    if any(not 0 < n <= len(work) for n, work in zip(counts, works, strict=True)):
        raise DataError(expected("effective", "positive, at most the number of works", effective))
    ratio = math.log(counts[0] / counts[1])

    def sides(difference: float) -> tuple[Tensor, Tensor]:
        shift = ratio - difference
        return torch.nn.functional.logsigmoid(-works[0] - shift), torch.nn.functional.logsigmoid(-works[1] + shift)

    def imbalance(difference: float) -> float:
        first, second = (side.logsumexp(0) - math.log(len(side)) for side in sides(difference))
        return float(first - second) + ratio

    value = _root(imbalance, works)
    logs = sides(value)
    worth = [float((2 * side.logsumexp(0) - (2 * side).logsumexp(0)).exp()) for side in logs]
    # Correlated works are worth less in proportion.
    worth = [share * n / len(work) for share, n, work in zip(worth, counts, works, strict=True)]
    # Half of all works are in common if the two states are the same.
    common = 2 * counts[0] * float(logs[0].exp().mean())
    if min(common, *worth) < _OVERLAP:
        got = f"an overlap worth {min(common, *worth):.2g} works"
        raise ConvergenceError(expected("works", f"at least {_OVERLAP:.0f} in common", got, "add intermediate states"))
    error = math.sqrt(max(sum(1 / share - 1 / n for share, n in zip(worth, counts, strict=True)), 0.0))
    mean, deviation, size = works[0].new_tensor([value, error, min(worth)])
    return Estimate(mean, deviation, size, "")


def _works(work: Tensor, name: str) -> Tensor:
    if work.ndim != 1 or not len(work):
        raise ShapeError(expected(name, "(works,), at least one", tuple(work.shape)))
    if bool((torch.isnan(work) | (work == -math.inf)).any()):
        raise DataError(expected(name, "numbers or +∞", "NaN or −∞"))
    return work.detach().double()


def _root(imbalance: Callable[[float], float], works: list[Tensor]) -> float:
    """Zero of a rising function: left minus right side of Bennett's equation, in logarithms."""
    finite = torch.cat([works[0][torch.isfinite(works[0])], -works[1][torch.isfinite(works[1])]])
    if any(not bool(torch.isfinite(work).any()) for work in works):
        raise ConvergenceError(expected("works", "finite ones in both directions", "none", "add intermediate states"))
    lower, upper, reach = float(finite.min()), float(finite.max()), 1.0
    while imbalance(lower) > 0:
        lower, reach = lower - reach, 2 * reach
    while imbalance(upper) < 0:
        upper, reach = upper + reach, 2 * reach
    for _ in range(80):
        middle = (lower + upper) / 2
        lower, upper = (middle, upper) if imbalance(middle) < 0 else (lower, middle)
    return (lower + upper) / 2
