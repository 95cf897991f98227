"""Free energies of many densities from draws of all of them: the multistate Bennett acceptance ratio (MBAR)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.posterior import Estimate

__all__ = ["Multistate", "multistate"]

_OVERLAP = 5.0  # draws that the overlap of the states must be worth


@dataclass(frozen=True, eq=False)
class Multistate:
    r"""Free energies of several states, and means at any state, from draws of all of them (MBAR).

    .. math:: f_k = -\ln \sum_n m_n \frac{e^{-u_k(x_n)}}{\sum_l N_l\, e^{f_l - u_l(x_n)}}

    Attributes
    ----------
    reduced
        :math:`u_k(x_n)` of every state at every draw.
    counts
        :math:`N_k`, how many independent draws those of each state are worth.
    share
        :math:`m_n`, how many independent draws each one is worth.
    values
        :math:`f_k`, that of the first state zero.
    """

    reduced: Float[Tensor, "states samples"]
    counts: Float[Tensor, " states"]
    share: Float[Tensor, " samples"]
    values: Float[Tensor, " states"]

    @cached_property
    def covariance(self) -> Float[Tensor, "states states"]:
        """Asymptotic covariance of the free energies; that of the first state is zero by definition."""
        columns = self._columns
        return self._variance(columns - columns[:, :1])

    @property
    def free_energies(self) -> Estimate:
        """Free energy of each state minus that of the first, in units of kT."""
        error = self.covariance.diagonal().clamp_min(0).sqrt()
        return Estimate(self.values, error, self.counts, "")

    def free_energy_difference(self, first: int, second: int) -> Estimate:
        """Free energy of the second state minus that of the first, in units of kT."""
        pair = self.covariance[[first, second]][:, [first, second]]
        variance = pair[0, 0] + pair[1, 1] - 2 * pair[0, 1]
        count = torch.minimum(self.counts[first], self.counts[second])
        return Estimate(self.values[second] - self.values[first], variance.clamp_min(0).sqrt(), count, "")

    @cached_property
    def overlap(self) -> Float[Tensor, "states states"]:
        """Probability that a draw of the row's state could come from the column's; rows sum to one."""
        columns = self._columns
        return columns.mT @ columns * self.counts

    def log_weights(self, reduced: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
        """Log-weights of all draws for the density with this reduced energy at them, one of the states or not.

        The mean over all draws estimates the ratio of its partition function to that of the first state, divided by
        the number of draws.
        """
        return self.share.log() - reduced.double() - self._denominator

    def expectation(
        self, observable: Float[Tensor, " samples"], reduced: Float[Tensor, " samples"], unit: str = ""
    ) -> Estimate:
        """Mean of an observable at the density with this reduced energy, in ``unit``.

        Raises
        ------
        ShapeError, DataError
            If there is not one number for each draw, or no draw has weight.
        """
        if observable.shape != self.share.shape or reduced.shape != self.share.shape:
            shapes = (tuple(observable.shape), tuple(reduced.shape))
            raise ShapeError(expected("observable, reduced", f"({len(self.share)},)", shapes))
        log_weights = self.log_weights(reduced)
        if not bool((log_weights > -math.inf).any()) or bool(torch.isnan(log_weights).any()):
            raise DataError(expected("reduced", "finite energies at some draws", "none, or NaN"))
        weights = log_weights.softmax(0)
        values = observable.double()
        mean = weights @ values
        column = (weights * (values - mean) / self.share.sqrt()).unsqueeze(1)
        variance = self._variance(column).squeeze().clamp_min(0)
        return Estimate(mean, variance.sqrt(), weights.square().div(self.share).sum().reciprocal(), unit)

    @cached_property
    def _denominator(self) -> Tensor:
        return _denominator(self.reduced, self.counts, self.values)

    @cached_property
    def _columns(self) -> Float[Tensor, "samples states"]:
        """Weights of all draws for each state, so that they sum to one with the shares of the draws."""
        return (self.values.unsqueeze(1) - self.reduced - self._denominator).exp().mT * self.share.sqrt().unsqueeze(1)

    def _variance(self, columns: Float[Tensor, "samples columns"]) -> Float[Tensor, "columns columns"]:
        r"""Covariance :math:`X^\top (1 - W N W^\top)^+ X` of numbers whose influence columns X sum to zero."""
        own = self._columns * self.counts.sqrt()
        values, vectors = torch.linalg.eigh(own.mT @ own)
        gap = 1 - values
        # The largest eigenvalue is one: all free energies can be moved by one constant.
        inverse = torch.where(torch.arange(len(gap), device=gap.device) < len(gap) - 1, 1 / gap, 0.0)
        cross = vectors.mT @ (own.mT @ columns)
        return columns.mT @ columns + cross.mT @ (inverse.unsqueeze(1) * cross)


def multistate(
    reduced: Float[Tensor, "states samples"],
    counts: Float[Tensor, " states"],
    *,
    effective: Float[Tensor, " states"] | None = None,
) -> Multistate:
    """Solve the equations of the multistate Bennett acceptance ratio by Newton's method, in double precision.

    Parameters
    ----------
    reduced
        Reduced energy of each state at all draws, in the order of the states they were drawn from; may be +∞.
    counts
        Number of draws of each state; zero is allowed.
    effective
        How many independent draws those of each state are worth, if they are correlated.

    Raises
    ------
    ShapeError, DataError
        If counts do not add up to the draws, or an energy is NaN, −∞, or +∞ at a draw of its own state.
    ConvergenceError
        If the states do not overlap, or the iteration does not converge.

    References
    ----------
    Shirts, Chodera, J. Chem. Phys. 129, 124105 (2008), equations 11 and D6 to D8; Kong et al., J. R. Stat. Soc. B 65,
    585 (2003).
    """
    energies, numbers = _energies(reduced, counts)
    worth = numbers if effective is None else effective.to(numbers)
    if worth.shape != numbers.shape or bool(((worth > numbers) | (worth.eq(0) != numbers.eq(0)) | (worth < 0)).any()):
        raise DataError(expected("effective", "positive, at most the counts", worth.tolist()))
    share = torch.repeat_interleave(torch.where(numbers > 0, worth / numbers.clamp_min(1), 0.0), numbers.long())
    drawn = worth > 0
    values = _solved(energies[drawn], worth[drawn], share)
    denominator = _denominator(energies[drawn], worth[drawn], values)
    values = -(share.log() - energies - denominator).logsumexp(1)
    found = Multistate(energies, worth, share, values - values[0])
    own = found._columns * worth.sqrt()
    gap = 1 - float(torch.linalg.eigvalsh(own.mT @ own)[-2]) if int(drawn.sum()) > 1 else 1.0
    if gap * float(worth.sum()) < 2 * _OVERLAP:
        got = f"overlap worth {gap * float(worth.sum()) / 2:.2g}"
        raise ConvergenceError(
            expected("states", f"at least {_OVERLAP:.0f} draws in common", got, "add states between")
        )
    return found


def _energies(reduced: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    if reduced.ndim != 2 or 0 in reduced.shape or counts.shape != reduced.shape[:1]:
        shapes = (tuple(reduced.shape), tuple(counts.shape))
        raise ShapeError(expected("reduced, counts", "(states, samples) and (states,)", shapes))
    energies, numbers = reduced.detach().double(), counts.detach().double()
    whole = bool((numbers.eq(numbers.round()) & (numbers >= 0)).all())
    if not whole or int(numbers.sum()) != energies.shape[1]:
        raise ShapeError(expected("counts", f"whole numbers that add up to {energies.shape[1]}", counts.tolist()))
    origin = torch.repeat_interleave(torch.arange(len(numbers), device=numbers.device), numbers.long())
    own = energies.gather(0, origin.unsqueeze(0))
    if bool((torch.isnan(energies) | (energies == -math.inf)).any()) or not bool(torch.isfinite(own).all()):
        raise DataError(expected("reduced", "numbers or +∞, finite at draws of the own state", "others"))
    return energies, numbers


def _denominator(energies: Tensor, counts: Tensor, values: Tensor) -> Float[Tensor, " samples"]:
    return ((counts.log() + values).unsqueeze(1) - energies).logsumexp(0)


def _solved(energies: Tensor, counts: Tensor, share: Tensor) -> Float[Tensor, " states"]:
    r"""Minimum of :math:`\sum_n m_n \ln \sum_k N_k e^{f_k - u_k(x_n)} - \sum_k N_k f_k`, with the first f zero."""

    def objective(values: Tensor) -> Tensor:
        return share @ _denominator(energies, counts, values) - counts @ values

    values = torch.zeros_like(counts)
    for _ in range(500):
        denominator = _denominator(energies, counts, values)
        weights = (values.unsqueeze(1) - energies - denominator).exp()
        gradient = counts * (weights @ share - 1)
        if float(gradient.abs().max()) < 1e-10 * float(counts.sum()):
            return values
        # Self-consistent steps always descend; Newton's are taken where they descend further.
        plain = -(share.log() - energies - denominator).logsumexp(1)
        best = plain - plain[0]
        scaled = weights * counts.unsqueeze(1)
        hessian = torch.diag(scaled @ share) - (scaled * share) @ scaled.mT
        step, failed = torch.linalg.solve_ex(hessian[1:, 1:], gradient[1:])
        newton = values - torch.nn.functional.pad(step, (1, 0))
        good = not int(failed) and bool(torch.isfinite(newton).all())
        values = newton if good and bool(objective(newton) <= objective(best)) else best
    raise ConvergenceError(expected("states", "free energies that converge", "none", "add states between"))
