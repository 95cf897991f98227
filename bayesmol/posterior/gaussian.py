"""Gaussian: a normal random array, its entries independent or with a covariance."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.base import IntervalRule, Posterior

__all__ = ["Gaussian"]

Covariance = Tensor | tuple[Tensor, ...] | None


class Gaussian(Posterior):
    r"""Normal distribution :math:`\mathcal N(\mu, \Sigma)` of an array.

    Parameters
    ----------
    mean, variance
        Arrays of one shape, in ``unit`` and ``unit`` squared.
    covariance
        Full matrix over ``mean.flatten()``, or a tuple of diagonal blocks that tile it in order (one a structure);
        its diagonal must be ``variance``. Without it the entries are independent.
    epistemic_variance
        Part of ``variance`` that belongs to the mean of a label; the rest is noise, independent between entries.
    rule
        Makes the intervals instead of the quantiles.

    Raises
    ------
    ShapeError
        If the shapes differ.
    DataError
        If an entry is not finite, a variance is negative, or the parts contradict each other.
    """

    def __init__(
        self,
        mean: Float[Tensor, "*shape"],
        variance: Float[Tensor, "*shape"],
        *,
        unit: str,
        covariance: Covariance = None,
        epistemic_variance: Float[Tensor, "*shape"] | None = None,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=unit, rule=rule)
        _check_moments(mean, variance, epistemic_variance)
        blocks = () if covariance is None else covariance if isinstance(covariance, tuple) else (covariance,)
        if covariance is not None:
            _check_blocks(blocks, variance)
        self._mean, self._variance, self._epistemic_variance = mean, variance, epistemic_variance
        self._covariance = covariance

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation, in ``unit``."""
        return self._mean

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of each entry, in ``unit`` squared."""
        return self._variance

    @property
    def covariance(self) -> Covariance:
        """Covariance of the flattened entries, full or in blocks, in ``unit`` squared; ``None`` if independent."""
        return self._covariance

    @property
    def epistemic(self) -> Gaussian | None:
        """Distribution of the mean of a label: the noise is taken off the diagonal of the covariance."""
        if self._epistemic_variance is None:
            return None
        noise = (self._variance - self._epistemic_variance).flatten()
        blocks = [block - torch.diag(n) for block, n in zip(self._blocks(), self._tiles(noise), strict=True)]
        covariance = tuple(blocks) if isinstance(self._covariance, tuple) else blocks[0] if blocks else None
        return Gaussian(self._mean, self._epistemic_variance, unit=self.unit, covariance=covariance)

    @property
    def aleatoric(self) -> Gaussian | None:
        """Noise of a label about its mean, independent between entries."""
        if self._epistemic_variance is None:
            return None
        noise = (self._variance - self._epistemic_variance).clamp_min(0.0)
        return Gaussian(torch.zeros_like(self._mean), noise, unit=self.unit)

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` joint draws, in ``unit``; by the Cholesky factor where there is a covariance."""
        source = generator(seed, self._mean.device)
        shape = (size, *self.shape)
        normal = torch.randn(shape, generator=source, dtype=self._mean.dtype, device=self._mean.device)
        if self._covariance is None:
            return self._mean + self.stddev * normal
        parts = zip(self._blocks(), self._tiles(normal.reshape(size, -1)), strict=True)
        noise = torch.cat([part @ _root(block).mT for block, part in parts], dim=1)
        return self._mean + noise.reshape(shape)

    def scaled(self, factor: float | Float[Tensor, "*shape"]) -> Gaussian:
        """The same mean with standard deviations times ``factor``, a number or one factor an entry.

        Correlations stay; the rule is dropped because its guarantee was made for the unscaled posterior.
        """
        scale = torch.as_tensor(factor, dtype=self._mean.dtype, device=self._mean.device)
        if scale.ndim and scale.shape != self.shape:
            raise ShapeError(expected("factor", f"a number or shape {tuple(self.shape)}", tuple(scale.shape)))
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise DataError(expected("factor", "positive finite numbers", "others"))
        scale = scale.expand(self.shape)
        parts = zip(self._blocks(), self._tiles(scale.flatten()), strict=True)
        blocks = [block * torch.outer(s, s) for block, s in parts]
        covariance = tuple(blocks) if isinstance(self._covariance, tuple) else blocks[0] if blocks else None
        epistemic = None if self._epistemic_variance is None else self._epistemic_variance * scale**2
        return Gaussian(
            self._mean, self._variance * scale**2, unit=self.unit, covariance=covariance, epistemic_variance=epistemic
        )

    def widened(self, noise: Float[Tensor, "*shape"]) -> Gaussian:
        """The distribution of the entries plus independent noise of these variances, in ``unit`` squared.

        Correlations and the epistemic part stay; the rule is dropped.
        """
        parts = zip(self._blocks(), self._tiles(noise.flatten()), strict=True)
        blocks = [block + torch.diag(own) for block, own in parts]
        covariance = tuple(blocks) if isinstance(self._covariance, tuple) else blocks[0] if blocks else None
        return Gaussian(
            self._mean,
            self._variance + noise,
            unit=self.unit,
            covariance=covariance,
            epistemic_variance=self._epistemic_variance,
        )

    def joint_log_prob(self, value: Float[Tensor, "*shape"]) -> Float[Tensor, ""]:
        r"""Joint log-density :math:`\ln \mathcal N(x; \mu, \Sigma)`, in nats with ``unit`` as the measure."""
        residual = (self._checked(value) - self._mean).reshape(-1)
        if self._covariance is None:
            return self._log_prob(self._checked(value)).sum()
        total = residual.new_tensor(-0.5 * residual.numel() * math.log(2 * math.pi))
        for block, part in zip(self._blocks(), self._tiles(residual), strict=True):
            factor = torch.linalg.cholesky(block)
            white = torch.linalg.solve_triangular(factor, part.unsqueeze(-1), upper=False)
            total = total - 0.5 * white.square().sum() - factor.diagonal().log().sum()
        return total

    def __getitem__(self, index: int | slice | Tensor) -> Gaussian:
        flat = torch.arange(self._mean.numel(), device=self._mean.device).reshape(self.shape)[index].reshape(-1)
        return Gaussian(
            self._mean[index],
            self._variance[index],
            unit=self.unit,
            covariance=self._selected(flat),
            epistemic_variance=None if self._epistemic_variance is None else self._epistemic_variance[index],
            rule=self.rule,
        )

    def _selected(self, flat: Tensor) -> Covariance:
        """Covariance of the flat entries ``flat``; blocks stay blocks when they are taken in order."""
        if not isinstance(self._covariance, tuple):
            return None if self._covariance is None else self._covariance[flat[:, None], flat]
        ends = torch.tensor([len(block) for block in self._covariance], device=flat.device).cumsum(0)
        owner = torch.searchsorted(ends, flat, right=True)
        if bool((owner.diff() < 0).any()):
            return torch.block_diag(*self._covariance)[flat[:, None], flat]
        local = [(int(k), flat[owner == k] - (ends[k] - len(self._covariance[k]))) for k in owner.unique()]
        return tuple(self._covariance[k][rows[:, None], rows] for k, rows in local)

    def _blocks(self) -> tuple[Tensor, ...]:
        if self._covariance is None:
            return ()
        return self._covariance if isinstance(self._covariance, tuple) else (self._covariance,)

    def _tiles(self, flat: Tensor) -> tuple[Tensor, ...]:
        """Last axis of ``flat`` cut like the blocks of the covariance."""
        return flat.split([len(block) for block in self._blocks()], dim=-1) if self._blocks() else ()

    def _standardised(self, value: Tensor) -> Tensor:
        gap = value - self._mean
        certain = torch.where(gap >= 0, math.inf, -math.inf).to(gap)
        return torch.where(self._variance > 0, gap / self.stddev, certain)

    def _cdf(self, value: Tensor) -> Tensor:
        return torch.special.ndtr(self._standardised(value))

    def _quantile(self, p: float) -> Tensor:
        z = torch.special.ndtri(torch.tensor(p, dtype=torch.float64)).item()
        return self._mean + z * self.stddev

    def _log_prob(self, value: Tensor) -> Tensor:
        if not bool((self._variance > 0).all()):
            raise DataError(expected("variance", "positive variances for a density", "zeros"))
        return -0.5 * ((value - self._mean).square() / self._variance + (2 * math.pi * self._variance).log())


def _root(block: Tensor) -> Tensor:
    """Square root of a covariance; of a singular one by its eigenvectors, rounding errors below zero taken as zero."""
    factor, failed = torch.linalg.cholesky_ex(block)
    if not bool(failed):
        return factor
    values, vectors = torch.linalg.eigh(block)
    tolerance = len(block) * torch.finfo(block.dtype).eps ** 0.5 * values.abs().max()
    if bool((values < -tolerance).any()):
        raise DataError(expected("covariance", "a positive semi-definite matrix", f"eigenvalue {values.min():.3g}"))
    return vectors * values.clamp_min(0.0).sqrt()


def _check_moments(mean: Tensor, variance: Tensor, epistemic: Tensor | None) -> None:
    for name, array in {"variance": variance, "epistemic_variance": epistemic}.items():
        if array is None:
            continue
        if array.shape != mean.shape:
            raise ShapeError(expected(name, f"shape {tuple(mean.shape)} of the mean", tuple(array.shape)))
        if not bool((torch.isfinite(array) & (array >= 0)).all()):
            raise DataError(expected(name, "finite numbers ≥ 0", "a negative or non-finite entry"))
    if not bool(torch.isfinite(mean).all()):
        raise DataError(expected("mean", "finite numbers", "NaN or infinity"))
    if epistemic is not None and bool((epistemic > variance * (1 + 1e-6)).any()):
        raise DataError(expected("epistemic_variance", "at most the variance", "more", "the variance is the total"))


def _check_blocks(blocks: tuple[Tensor, ...], variance: Tensor) -> None:
    if any(block.ndim != 2 or block.shape[0] != block.shape[1] for block in blocks):
        raise ShapeError(expected("covariance", "square matrices", [tuple(block.shape) for block in blocks]))
    total = sum(len(block) for block in blocks)
    if total != variance.numel():
        raise ShapeError(expected("covariance", f"{variance.numel()} rows in all", total))
    diagonal = torch.cat([block.diagonal() for block in blocks]) if blocks else variance.flatten()
    scale = float(variance.max()) if variance.numel() else 0.0
    if not torch.allclose(diagonal, variance.flatten(), rtol=1e-5, atol=1e-9 * scale):
        raise DataError(expected("covariance", "the variance on its diagonal", "another diagonal"))
