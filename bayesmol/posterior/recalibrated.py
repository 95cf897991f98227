"""Recalibrated: a posterior whose probabilities have been corrected by a monotone curve."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior.base import IntervalRule, Posterior
from bayesmol.posterior.gaussian import Gaussian
from bayesmol.posterior.location_scale import LocationScale
from bayesmol.posterior.mixture import Mixture

__all__ = ["Recalibrated"]


class Recalibrated(Posterior):
    r"""Distribution :math:`F'(y) = R(F(y))` of each entry, with an ascending, piecewise linear :math:`R`.

    Between two knots of R the density is the old one times the slope; at a knot it jumps. A joint draw is an old one
    moved along :math:`F'^{-1} \circ F`, which keeps the dependence between the entries (the copula).

    Parameters
    ----------
    base
        A Gaussian, StudentT, Laplace or Mixture without entries that are certain.
    curves
        Knots of one or more R: the old probabilities from 0 to 1, and below them the new ones, from 0 to 1.
    category
        Which curve belongs to each row (first axis); not needed with a single curve.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a curve does not ascend from (0, 0) to (1, 1), or ``base`` is of another kind.

    References
    ----------
    Kuleshov, Fenner, Ermon, ICML 2018.
    """

    def __init__(
        self,
        base: Posterior,
        curves: tuple[Float[Tensor, "2 _"], ...],
        category: Int[Tensor, " rows"] | None = None,
        *,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=base.unit, rule=rule)
        if not isinstance(base, Gaussian | LocationScale | Mixture):
            raise DataError(expected("base", "Gaussian, StudentT, Laplace or Mixture", type(base).__name__))
        variances = {Gaussian: "variance", Mixture: "variances"}.get(type(base))
        if variances and not bool((getattr(base, variances) > 0).all()):
            raise DataError(expected("base", "positive variances", "zeros", "include the noise of the labels"))
        _check_category(base, len(curves), category)
        # Probabilities are kept in float64 on the device of the base, whatever its own precision.
        device = base._checked(0.0).device
        self._base, self._category = base, None if category is None else category.to(device)
        self._curves = tuple(_checked_curve(curve).to(device) for curve in curves)

    @property
    def base(self) -> Posterior:
        """Posterior before the correction."""
        return self._base

    @property
    def curves(self) -> tuple[Float[Tensor, "2 _"], ...]:
        """Knots of each curve: old and new probabilities."""
        return self._curves

    @property
    def shape(self) -> torch.Size:
        """Shape of one draw."""
        return self._base.shape

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation, in ``unit``, exact."""
        return self._moments[0]

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of each entry, in ``unit`` squared, exact."""
        return self._moments[1]

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` joint draws, in ``unit``."""
        draws = self._base.sample(size, seed=seed)
        reached = self._base.cdf(draws)
        # A probability that rounding has made 1 would give an infinite draw.
        reached = reached.clamp(torch.finfo(reached.dtype).tiny, 1 - torch.finfo(reached.dtype).eps / 2)
        wanted = self._by_category(reached.double(), lambda p, curve: _interpolated(p, curve[1], curve[0]))
        return _quantiles(self._base, wanted).to(draws)

    def __getitem__(self, index: int | slice | Tensor) -> Recalibrated:
        if self._category is None:
            return Recalibrated(self._base[index], self._curves, rule=self.rule)
        if isinstance(index, int):
            return Recalibrated(self._base[index], (self._curves[int(self._category[index])],), rule=self.rule)
        return Recalibrated(self._base[index], self._curves, self._category[index], rule=self.rule)

    def __len__(self) -> int:
        return len(self._base)

    def _checked(self, value: float | Tensor) -> Tensor:
        return self._base._checked(value)  # as in every posterior, without the cost of the mean

    def _cdf(self, value: Tensor) -> Tensor:
        reached = self._base._cdf(value)
        return self._by_category(reached.double(), lambda p, curve: _interpolated(p, *curve)).to(reached)

    def _log_prob(self, value: Tensor) -> Tensor:
        reached = self._base._cdf(value).double()
        slope = self._by_category(reached, lambda p, curve: _slopes(curve)[_segment(p, curve[0])])
        return self._base._log_prob(value) + slope.log().to(value)

    def _quantile(self, p: float) -> Tensor:
        wanted = [_interpolated(torch.tensor(p).to(curve[1]), curve[1], curve[0]).item() for curve in self._curves]
        return self._by_row(lambda base, k: base._quantile(wanted[k]))

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        mean = self._base.mean
        shift = self._by_row(lambda base, k: _moments(base, self._curves[k])[0])
        square = self._by_row(lambda base, k: _moments(base, self._curves[k])[1])
        variance = torch.where(self._base.variance.isinf(), torch.inf, square - shift.square())
        return mean + shift, variance

    def _by_category(self, array: Tensor, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """``function(part, curve)`` of the rows of each category; leading axes of ``array`` are kept."""
        if self._category is None:
            return function(array, self._curves[0])
        axis, result = array.ndim - len(self.shape), torch.empty_like(array)
        for k in self._category.unique().tolist():
            rows = (self._category == k).nonzero()[:, 0]
            result.index_copy_(axis, rows, function(array.index_select(axis, rows), self._curves[k]))
        return result

    def _by_row(self, function: Callable[[Posterior, int], Tensor]) -> Tensor:
        """``function(part of the base, number of its curve)`` of the rows of each category."""
        if self._category is None:
            return function(self._base, 0)
        order, parts = [], []
        for k in self._category.unique().tolist():
            order.append((self._category == k).nonzero()[:, 0])
            parts.append(function(self._base[order[-1]], k))
        return torch.cat(parts)[torch.cat(order).argsort()]


def _check_category(base: Posterior, curves: int, category: Tensor | None) -> None:
    if category is None:
        if curves != 1:
            raise ShapeError(expected("category", f"which of the {curves} curves for each row", "none"))
        return
    if not base.shape or category.shape != base.shape[:1]:
        raise ShapeError(expected("category", f"one number a row of {tuple(base.shape)}", tuple(category.shape)))
    if len(category) and not 0 <= int(category.min()) <= int(category.max()) < curves:
        raise DataError(expected("category", f"numbers from 0 to {curves - 1}", category.unique().tolist()))


def _checked_curve(curve: Tensor) -> Tensor:
    curve = curve.double()
    ends = torch.tensor([[0.0, 1.0], [0.0, 1.0]], dtype=torch.float64, device=curve.device)
    if curve.ndim != 2 or curve.shape[0] != 2 or curve.shape[1] < 2 or not torch.equal(curve[:, [0, -1]], ends):
        raise DataError(expected("curves", "two rows from 0 to 1 each", f"shape {tuple(curve.shape)}"))
    if not bool((curve.diff(dim=1) > 0).all()):
        raise DataError(expected("curves", "strictly ascending rows", "a step back or a flat one"))
    return curve


def _segment(p: Tensor, knots: Tensor) -> Tensor:
    """Number of the segment between knots in which each probability lies."""
    return torch.searchsorted(knots[1:-1].contiguous(), p.contiguous(), right=True)


def _slopes(curve: Tensor) -> Tensor:
    return curve[1].diff() / curve[0].diff()


def _interpolated(p: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    k = _segment(p, knots)
    return torch.lerp(values[k], values[k + 1], (p - knots[k]) / (knots[k + 1] - knots[k]))


def _quantiles(base: Posterior, p: Tensor) -> Tensor:
    """Quantile of each entry at a probability of its own, axes ``(size, *shape)``."""
    if isinstance(base, Gaussian):
        return base.mean + base.stddev * torch.special.ndtri(p)
    if isinstance(base, LocationScale):
        return base._quantiles(p)
    ends = (base._quantile(float(end)).expand(p.shape) for end in p.aminmax())
    lower, upper = (end.double() for end in ends)
    for _ in range(60):
        middle = (lower + upper) / 2
        below = base._cdf(middle) < p
        lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)
    return (lower + upper) / 2


def _moments(base: Posterior, curve: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and mean square, of the recalibrated distribution about the mean of ``base``.

    With the moments ``C(y)`` of ``base`` up to the knots this is a sum by parts over the changes of slope.
    """
    slopes = _slopes(curve).tolist()
    first, second = torch.zeros_like(base.mean), slopes[-1] * base.variance
    for p, before, after in zip(curve[0, 1:-1], slopes[:-1], slopes[1:], strict=True):
        one, two = _cumulated(base, p)
        first, second = first - (after - before) * one, second - (after - before) * two
    return first, second


def _cumulated(base: Posterior, p: Tensor) -> tuple[Tensor, Tensor]:
    """First and second moments of ``base`` about its mean, up to its quantile at ``p``."""
    if isinstance(base, LocationScale):
        one, two = base._standard_moments(base._standard_quantile(p))
        return base.scale * one.to(base.scale), base.scale.square() * two.to(base.scale)
    if isinstance(base, Gaussian):
        z = torch.special.ndtri(p)
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
        return -base.stddev * density.to(base.mean), base.variance * (p - z * density).to(base.mean)
    assert isinstance(base, Mixture), "the only other kind whose moments are known"
    gap, sigma = base.means - base.mean, base.variances.sqrt()
    z = (base._quantile(float(p)) - base.means) / sigma
    share, density = torch.special.ndtr(z), torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    one = gap * share - sigma * density
    two = gap.square() * share - 2 * gap * sigma * density + base.variances * (share - z * density)
    return torch.einsum("m,m...->...", base.weights, one), torch.einsum("m,m...->...", base.weights, two)
