"""Draws: a sample of a random array, from one or more chains, weighted or not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.base import IntervalRule, Posterior
from bayesmol.posterior.estimate import Estimate, effective_sample_size, kish

__all__ = ["Draws"]


class Draws(Posterior):
    r"""Weighted empirical distribution :math:`\sum_i w_i \delta(x - x_i) / \sum_i w_i` of the draws.

    Parameters
    ----------
    values
        Axes ``(chain, draw, *event)``, in ``unit``.
    log_weights
        Logarithms of the weights up to a constant, axes ``(chain, draw)``; all equal if ``None``.

    Raises
    ------
    ShapeError, DataError
        If the axes do not fit, a value is not finite, or no weight is positive.
    """

    def __init__(
        self,
        values: Float[Tensor, "chain draw *event"],
        log_weights: Float[Tensor, "chain draw"] | None = None,
        *,
        unit: str,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=unit, rule=rule)
        if values.ndim < 2 or 0 in values.shape[:2]:
            raise ShapeError(expected("values", "(chain, draw, *event), none empty", tuple(values.shape)))
        if not bool(torch.isfinite(values).all()):
            raise DataError(expected("values", "finite numbers", "NaN or infinity"))
        if log_weights is not None:
            _check_weights(log_weights, values)
        self._values, self._log_weights = values, log_weights

    @property
    def values(self) -> Float[Tensor, "chain draw *event"]:
        """The draws, in ``unit``."""
        return self._values

    @property
    def log_weights(self) -> Float[Tensor, "chain draw"] | None:
        """Logarithms of the weights; ``None`` if equal."""
        return self._log_weights

    @property
    def weights(self) -> Float[Tensor, "chain draw"]:
        """Weights that sum to one over all chains."""
        if self._log_weights is None:
            count = self._values.shape[0] * self._values.shape[1]
            return self._values.new_full(self._values.shape[:2], 1 / count)
        return self._log_weights.flatten().softmax(0).reshape(self._log_weights.shape).to(self._values)

    @property
    def mean(self) -> Float[Tensor, "*event"]:
        """Weighted mean of the draws, in ``unit``."""
        return torch.einsum("cd,cd...->...", self.weights, self._values)

    @property
    def variance(self) -> Float[Tensor, "*event"]:
        """Variance of the weighted empirical distribution, in ``unit`` squared."""
        return torch.einsum("cd,cd...->...", self.weights, (self._values - self.mean).square())

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *event"]:
        """``size`` of the draws, chosen with replacement by their weights, in ``unit``."""
        source = generator(seed, self._values.device)
        chosen = torch.multinomial(self.weights.flatten(), size, replacement=True, generator=source)
        return self._values.flatten(0, 1)[chosen]

    def expectation(self, observable: Callable[[Tensor], Tensor] | None = None, unit: str = "") -> Estimate:
        r"""Mean with its Monte-Carlo standard error, for correlated and for weighted draws.

        With an ``observable``, the mean of its values, in ``unit``; it takes and returns a batch of draws.

        The error is that of the mean of :math:`z_i = N \bar w_i (x_i - \hat\mu)` with the autocorrelation of z along
        the chains; without correlation this is the delta method of self-normalised importance sampling. The effective
        sample size is Kish's divided by the autocorrelation time.

        References
        ----------
        Owen, Monte Carlo theory, methods and examples (2013), equation 9.8.
        """
        if observable is not None:
            return self.apply(observable, unit).expectation()
        weights, mean = self.weights, self.mean
        total = weights.numel()
        spread = weights.reshape(*weights.shape, *(1 for _ in self.shape)) * total * (self._values - mean)
        independent = effective_sample_size(spread)
        error = (spread.square().sum((0, 1)) / (total - 1) / independent).sqrt()
        share = 1.0 if self._log_weights is None else float(kish(self._log_weights)) / total
        return Estimate(mean, error, independent * share, self.unit)

    def __getitem__(self, index: int | slice | Tensor) -> Draws:
        if not self.shape:
            raise ShapeError(expected("posterior", "at least one axis to index", "a scalar"))
        return Draws(self._values[:, :, index], self._log_weights, unit=self.unit, rule=self.rule)

    def _draws(self, size: int, seed: int | torch.Generator) -> Draws:
        return self

    def _mapped(self, function: Callable[[Tensor], Tensor], unit: str) -> Draws:
        chains, draws = self._values.shape[:2]
        result = function(self._values.flatten(0, 1))
        if len(result) != chains * draws:
            raise ShapeError(expected("function", f"a result of {chains * draws} rows", tuple(result.shape)))
        return Draws(result.unflatten(0, (chains, draws)), self._log_weights, unit=unit)

    def _cdf(self, value: Tensor) -> Tensor:
        values, weights = self._values.flatten(0, 1), self.weights.flatten()
        total = torch.zeros_like(value)
        for draw, weight in zip(values, weights, strict=True):
            total += weight * (draw <= value)
        return total

    def _quantile(self, p: float) -> Tensor:
        ordered, order = self._values.flatten(0, 1).sort(0)
        reached = self.weights.flatten()[order].cumsum(0)
        # A tolerance of rounding errors of the cumulated weights, so that p = 1/2 of two draws is the first.
        first = (reached >= p - 1e-12).to(torch.uint8).argmax(0, keepdim=True)
        return ordered.gather(0, first).squeeze(0)


def _check_weights(log_weights: Tensor, values: Tensor) -> None:
    if log_weights.shape != values.shape[:2]:
        raise ShapeError(expected("log_weights", f"shape {tuple(values.shape[:2])}", tuple(log_weights.shape)))
    usable = torch.isfinite(log_weights)
    if bool(torch.isnan(log_weights).any() | (log_weights == torch.inf).any()) or not bool(usable.any()):
        raise DataError(expected("log_weights", "numbers or −∞, not all −∞", "NaN, +∞ or no weight at all"))
