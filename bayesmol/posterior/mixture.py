"""Mixture: an ensemble of normal predictions of one array."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.base import IntervalRule, Posterior
from bayesmol.posterior.draws import Draws
from bayesmol.posterior.gaussian import Gaussian

__all__ = ["Mixture"]


class Mixture(Posterior):
    r"""Mixture :math:`\sum_k w_k\, \mathcal N(\mu_k, \sigma_k^2)`; a member's entries are independent given the member.

    The law of total variance splits it: ``epistemic`` is the spread of the members' means, ``aleatoric`` the mean of
    their variances, and the two variances add up to ``variance``.

    Parameters
    ----------
    means, variances
        One row a member, in ``unit`` and ``unit`` squared.
    weights
        Probabilities of the members, summing to one; equal if ``None``.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a moment is not finite, a variance is negative, or the weights are no distribution.
    """

    def __init__(
        self,
        means: Float[Tensor, " members *shape"],
        variances: Float[Tensor, " members *shape"],
        weights: Float[Tensor, " members"] | None = None,
        *,
        unit: str,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=unit, rule=rule)
        if means.ndim == 0 or len(means) == 0:
            raise ShapeError(expected("means", "(members, *shape), at least one member", tuple(means.shape)))
        self._members = Gaussian(means, variances, unit=unit)
        self._weights = means.new_full((len(means),), 1 / len(means)) if weights is None else weights
        if self._weights.shape != means.shape[:1]:
            raise ShapeError(expected("weights", f"shape ({len(means)},)", tuple(self._weights.shape)))
        if not bool((self._weights >= 0).all()) or abs(float(self._weights.sum()) - 1) > 1e-6:
            raise DataError(expected("weights", "probabilities that sum to one", self._weights.tolist()))

    @property
    def means(self) -> Float[Tensor, " members *shape"]:
        """Mean of each member, in ``unit``."""
        return self._members.mean

    @property
    def variances(self) -> Float[Tensor, " members *shape"]:
        """Variance of each member, in ``unit`` squared."""
        return self._members.variance

    @property
    def weights(self) -> Float[Tensor, " members"]:
        """Probability of each member."""
        return self._weights

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation, in ``unit``."""
        return torch.einsum("m,m...->...", self._weights, self.means)

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Mean of the variances plus variance of the means, in ``unit`` squared."""
        return torch.einsum("m,m...->...", self._weights, self.variances + (self.means - self.mean).square())

    @property
    def epistemic(self) -> Draws:
        """Distribution of the mean of a label: the members' means as weighted draws."""
        return Draws(self.means.unsqueeze(0), self._weights.log().unsqueeze(0), unit=self.unit)

    @property
    def aleatoric(self) -> Gaussian:
        """Noise of a label about its mean: centred, with the mean of the members' variances."""
        noise = torch.einsum("m,m...->...", self._weights, self.variances)
        return Gaussian(torch.zeros_like(noise), noise, unit=self.unit)

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` joint draws: a member by its weight, then its normal distribution; in ``unit``."""
        source = generator(seed, self.means.device)
        member = torch.multinomial(self._weights, size, replacement=True, generator=source)
        shape = (size, *self.shape)
        normal = torch.randn(shape, generator=source, dtype=self.means.dtype, device=self.means.device)
        return self.means[member] + self.variances[member].sqrt() * normal

    def __getitem__(self, index: int | slice | Tensor) -> Mixture:
        if not self.shape:
            raise ShapeError(expected("posterior", "at least one axis to index", "a scalar"))
        return Mixture(self.means[:, index], self.variances[:, index], self._weights, unit=self.unit, rule=self.rule)

    def _cdf(self, value: Tensor) -> Tensor:
        # As of Gaussians, but for as many members at once as fit into 32 MB.
        lead, together = value.ndim - len(self.shape), max(1, 2**22 // max(1, value.numel()))
        total, parts = torch.zeros_like(value), (self._weights, self.means, self.variances)
        for weights, means, variances in zip(*(part.split(together) for part in parts), strict=True):
            means, variances = (part.reshape(-1, *[1] * lead, *self.shape) for part in (means, variances))
            gap = value - means
            certain = torch.where(gap >= 0, math.inf, -math.inf).to(gap)
            reached = torch.special.ndtr(torch.where(variances > 0, gap / variances.sqrt(), certain))
            total += torch.einsum("m,m...->...", weights, reached)
        return total

    def _log_prob(self, value: Tensor) -> Tensor:
        parts = [w.log() + self._members[k].log_prob(value) for k, w in enumerate(self._weights)]
        return torch.stack(parts).logsumexp(0)

    def _quantile(self, p: float) -> Tensor:
        """Root of the distribution function by bisection between the extreme quantiles of the members."""
        inside = self._members[self._weights > 0].quantile(p)
        lower, upper = inside.amin(0), inside.amax(0)
        for _ in range(100):
            middle = (lower + upper) / 2
            below = self._cdf(middle) < p
            lower, upper = torch.where(below, middle, lower), torch.where(below, upper, middle)
        return (lower + upper) / 2
