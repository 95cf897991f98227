"""Row multipliers of reversible transition matrices at the maximum of the likelihood, for many count matrices at once.

All arrays hold one column a count matrix, and counts are kept for the pairs of states that have any: operations on
rows of such arrays are long and in the cache.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, expected

__all__ = ["FixedPopulations", "FreePopulations", "PairSums", "newton"]

_NEWTON, _CONJUGATE = 200, 300  # iterations
_TOLERANCE = 1e-11  # of θ, or of u in its own size
_TINY = 1e-300
_CHUNK = 2**17  # numbers that are worked on at once: they stay in the cache of a core


class PairSums(NamedTuple):
    r"""Symmetric counts :math:`c_{ij} + c_{ji}` of pairs of different states.

    Attributes
    ----------
    first, second
        The two states of each pair.
    values
        One column a count matrix.
    """

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    values: Float[Tensor, "pairs draws"]

    @classmethod
    def of(cls, counts: Float[Tensor, "draws states states"]) -> PairSums:
        """Of the pairs that occur in any matrix."""
        occurs = (counts > 0).any(0)
        first, second = (occurs | occurs.mT).triu(1).nonzero().unbind(1)
        return cls(first, second, (counts[:, first, second] + counts[:, second, first]).mT.contiguous())

    def columns(self, draws: slice | Tensor) -> PairSums:
        """Of some count matrices."""
        return PairSums(self.first, self.second, self.values[:, draws].contiguous())

    def chunks(self, *columns: Float[Tensor, "pairs draws"]) -> zip:
        """Rows of the pairs, the sums, and more columns, a few at a time."""
        size = max(1, _CHUNK // self.values.shape[1])
        return zip(*(each.split(size) for each in (self.first, self.second, self.values, *columns)), strict=True)


class Problem(Protocol):
    """A smooth convex function of the multipliers (states, draws)."""

    @property
    def sign(self) -> float: ...

    def only(self, draws: Tensor) -> Problem:
        """The same for some columns."""

    def slope(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the gradient (states, draws), and the coupling of each pair (pairs, draws)."""

    def curve(self, coupling: Tensor, step: Tensor) -> Tensor:
        """The Hessian times ``step``."""

    def diagonal(self, coupling: Tensor) -> Tensor:
        """Of the Hessian (states, draws)."""

    def matrix(self, coupling: Tensor) -> Tensor:
        """The mean Hessian (states, states)."""

    def size(self, value: Tensor, step: Tensor) -> Tensor:
        """Of a step (draws,), as :meth:`damping` takes it."""

    def damping(self, size: Tensor) -> Tensor:
        """Share of a step that never raises the function."""


class FreePopulations:
    r"""Minus the likelihood in :math:`\theta = \ln u`; ``out`` are the counts that leave each state (states, draws)."""

    sign = -1.0

    def __init__(self, sums: PairSums, out: Float[Tensor, "states draws"]) -> None:
        self.sums, self.out = sums, out

    def only(self, draws: Tensor) -> FreePopulations:
        return FreePopulations(self.sums.columns(draws), self.out[:, draws])

    def slope(self, value: Tensor) -> tuple[Tensor, Tensor]:
        u = (value - value.amax(0)).exp()
        rates, coupling = torch.zeros_like(u), torch.empty_like(self.sums.values)
        for first, second, sums, kept in self.sums.chunks(coupling):
            one, other = u.index_select(0, first), u.index_select(0, second)
            total = one + other
            flows = sums / total
            rates.index_add_(0, first, flows).index_add_(0, second, flows)
            torch.mul(flows.div_(total), one.mul_(other), out=kept)
        return self.out - u * rates, coupling

    def curve(self, coupling: Tensor, step: Tensor) -> Tensor:
        """No transition matrix depends on a constant in θ: a weak spring holds it in place."""
        spring = 2 * coupling.sum(0) / len(step) * step.mean(0)
        return _laplacian(self.sums, coupling, step, self.sign) + spring

    def diagonal(self, coupling: Tensor) -> Tensor:
        return _degrees(self.sums, coupling, len(self.out))

    def matrix(self, coupling: Tensor) -> Tensor:
        found = _mean_hessian(self.sums, coupling, len(self.out), self.sign)
        return found + 2 * coupling.mean(1).sum() / len(found) ** 2

    def size(self, value: Tensor, step: Tensor) -> Tensor:
        return step.amax(0) - step.amin(0)

    def damping(self, size: Tensor) -> Tensor:
        return torch.log1p(size) / size.clamp_min(_TINY)


class FixedPopulations:
    """Minus the likelihood in u, given counts of staying and populations, (states, draws) each."""

    sign = 1.0

    def __init__(self, sums: PairSums, staying: Float[Tensor, "states draws"], populations: Tensor) -> None:
        self.sums, self.staying, self.populations = sums, staying, populations
        self.own = torch.zeros_like(staying)

    def only(self, draws: Tensor) -> FixedPopulations:
        return FixedPopulations(self.sums.columns(draws), self.staying[:, draws], self.populations[:, draws])

    def slope(self, value: Tensor) -> tuple[Tensor, Tensor]:
        flows = self.staying / value
        self.own, rates = flows / value, flows.clone()
        coupling = torch.empty_like(self.sums.values)
        for first, second, sums, kept in self.sums.chunks(coupling):
            total = value.index_select(0, first).add_(value.index_select(0, second))
            flows = sums / total
            rates.index_add_(0, first, flows).index_add_(0, second, flows)
            torch.div(flows, total, out=kept)
        return rates - self.populations, coupling

    def curve(self, coupling: Tensor, step: Tensor) -> Tensor:
        return _laplacian(self.sums, coupling, step, self.sign) + self.own * step

    def diagonal(self, coupling: Tensor) -> Tensor:
        return _degrees(self.sums, coupling, len(self.own)) + self.own

    def matrix(self, coupling: Tensor) -> Tensor:
        return _mean_hessian(self.sums, coupling, len(self.own), self.sign) + self.own.mean(1).diag()

    def size(self, value: Tensor, step: Tensor) -> Tensor:
        largest = (step.abs() / value).amax(0)
        for first, second, sums in self.sums.chunks():
            change = (step.index_select(0, first) + step.index_select(0, second)).abs_()
            change /= value.index_select(0, first) + value.index_select(0, second)
            largest = torch.maximum(largest, torch.where(sums > 0, change, 0.0).amax(0))
        return largest

    def damping(self, size: Tensor) -> Tensor:
        return 1 / (1 + size)


def newton(problem: Problem, start: Float[Tensor, "states draws"]) -> Float[Tensor, "states draws"]:
    """Minimise by damped Newton steps, solved by conjugate gradients about the mean Hessian at the start.

    Once most columns are there the others go on alone, about their own mean.

    Raises
    ------
    ConvergenceError
        If the iteration does not end.

    References
    ----------
    Nocedal, Wright, Numerical optimization, Springer (2006), section 7.1.
    """
    value, last = start, start.new_full(start.shape[1:], torch.inf)
    slope, coupling = problem.slope(value)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(problem.matrix(coupling)))
    for _ in range(_NEWTON):
        accuracy = min(0.1, float(last.max()))
        step = _conjugate_gradients(problem, coupling, inverse, slope, accuracy=accuracy)
        size = problem.size(value, step)
        value = value + problem.damping(size) * step
        # Below 1e-7 rounding of the gradient may end the descent before the tolerance does.
        far = ~((size * accuracy < _TOLERANCE) | ((last < 1e-7) & (size > last / 4)))
        if not bool(far.any()):
            return value
        if 2 * int(far.sum()) <= len(far):
            value[:, far] = newton(problem.only(far), value[:, far])
            return value
        last = size
        slope, coupling = problem.slope(value)
    raise ConvergenceError(expected("counts", "a maximum of the likelihood", f"steps of {float(last.max()):.1e}"))


def _conjugate_gradients(
    problem: Problem, coupling: Tensor, inverse: Tensor, slope: Tensor, *, accuracy: float
) -> Tensor:
    """Newton steps of all columns; each is solved in its own scale, and one without a slope stays where it is."""
    height = slope.abs().amax(0).clamp_min(_TINY)
    residual = slope / height
    diagonal = problem.diagonal(coupling)
    scale = (diagonal.mean(1, keepdim=True) / diagonal).sqrt()
    improved = scale * (inverse @ (scale * residual))
    step, direction, power = torch.zeros_like(residual), improved, (residual * improved).sum(0)
    target = accuracy**2 * power
    for _ in range(_CONJUGATE):
        curved = problem.curve(coupling, direction)
        length = power / (direction * curved).sum(0).clamp_min(_TINY)
        step, residual = step + length * direction, residual - length * curved
        improved = scale * (inverse @ (scale * residual))
        before, power = power, (residual * improved).sum(0)
        if bool((power <= target).all()):
            break
        direction = improved + power / before.clamp_min(_TINY) * direction
    return step * height


def _laplacian(sums: PairSums, coupling: Tensor, step: Tensor, sign: float) -> Tensor:
    r""":math:`\sum_j k_{ij} (s_i \pm s_j)` of each state."""
    result = torch.zeros_like(step)
    for first, second, _, strength in sums.chunks(coupling):
        one, other = step.index_select(0, first), step.index_select(0, second)
        force = torch.add(one, other, alpha=sign).mul_(strength)
        result.index_add_(0, first, force).index_add_(0, second, force, alpha=sign)
    return result


def _degrees(sums: PairSums, coupling: Tensor, states: int) -> Tensor:
    r""":math:`\sum_j k_{ij}` of each state."""
    result = coupling.new_zeros(states, coupling.shape[1])
    for first, second, _, strength in sums.chunks(coupling):
        result.index_add_(0, first, strength).index_add_(0, second, strength)
    return result


def _mean_hessian(sums: PairSums, coupling: Tensor, states: int, sign: float) -> Tensor:
    mean = coupling.mean(1)
    dense = mean.new_zeros(states, states)
    dense[sums.first, sums.second] = mean
    dense = dense + dense.mT
    return dense.sum(1).diag() + sign * dense
