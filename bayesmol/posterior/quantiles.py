"""Quantiles: a distribution of which no more is known than some quantiles of each entry."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.base import IntervalRule, Posterior
from bayesmol.posterior.gaussian import Gaussian

__all__ = ["Quantiles"]


class Quantiles(Posterior):
    r"""Distribution known by quantiles: :math:`F(v_j) = p_j`, linear between neighbours.

    Nothing is known below the lowest and above the highest level. There the quantiles are :math:`\mp\infty`, so an
    interval that needs them is infinite, and ``cdf`` is the bound that is known, :math:`p_1` below and :math:`p_k`
    above. The mean, the variance and draws exist only if the levels 0 and 1, the ends of the support, are among the
    levels; without them they raise. There is no density.

    Parameters
    ----------
    levels
        Probabilities :math:`p_1 < \dots < p_k`, from 0 to 1.
    values
        Quantile of each level, one row a level, in ``unit``; must not fall from one level to the next.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, there are fewer than two levels, they do not ascend in [0, 1], a value is not finite, or
        quantiles cross.
    """

    def __init__(
        self,
        levels: Float[Tensor, " levels"],
        values: Float[Tensor, " levels *shape"],
        *,
        unit: str,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=unit, rule=rule)
        # A level such as 0.05 shall be met by one that rounding has moved, in the precision in which it was given.
        self._tolerance = 4 * torch.finfo(levels.dtype).eps
        levels = levels.double().to(values.device)
        if values.ndim == 0 or levels.shape != values.shape[:1] or len(levels) < 2:
            got = f"levels {tuple(levels.shape)}, values {tuple(values.shape)}"
            raise ShapeError(expected("values", "one row a level, at least two levels", got))
        if not bool(((levels >= 0) & (levels <= 1)).all() & (levels.diff() > 0).all()):
            raise DataError(expected("levels", "ascending probabilities from 0 to 1", levels.tolist()))
        if not bool(torch.isfinite(values).all()):
            raise DataError(
                expected("values", "finite numbers", "NaN or infinity", "leave out a level that is unknown")
            )
        crossed = int((values.diff(dim=0) < 0).sum())
        if crossed:
            remedy = "sort the values along the first axis if that is what you mean"
            raise DataError(expected("values", "quantiles that do not fall", f"{crossed} crossings", remedy))
        self._levels, self._values = levels, values

    @property
    def levels(self) -> Float[Tensor, " levels"]:
        """Probabilities whose quantiles are known, in float64."""
        return self._levels

    @property
    def values(self) -> Float[Tensor, " levels *shape"]:
        """Quantile of each level, in ``unit``."""
        return self._values

    @property
    def complete(self) -> bool:
        """Whether the ends of the support, levels 0 and 1, are known, so that moments and draws exist."""
        return bool(self._levels[0] == 0) and bool(self._levels[-1] == 1)

    @property
    def shape(self) -> torch.Size:
        """Shape of one draw."""
        return self._values.shape[1:]

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation of the piecewise uniform distribution, in ``unit``; raises if it is not :attr:`complete`."""
        return torch.einsum("s,s...->...", self._steps("mean"), self._middles())

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of the piecewise uniform distribution, in ``unit`` squared; raises if it is not :attr:`complete`."""
        steps = self._steps("variance")
        squares = (self._middles() - self.mean).square() + self._values.diff(dim=0).square() / 12
        return torch.einsum("s,s...->...", steps, squares)

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` draws with independent entries, in ``unit``; raises if the posterior is not :attr:`complete`."""
        self._need_ends("draws")
        count = (size, self._values[0].numel())
        source = generator(seed, self._values.device)
        uniform = torch.rand(count, generator=source, dtype=torch.float64, device=self._values.device)
        step = torch.searchsorted(self._levels[1:-1], uniform, right=True)
        share = ((uniform - self._levels[step]) / self._levels.diff()[step]).to(self._values)
        flat = self._values.reshape(len(self._levels), -1)
        return torch.lerp(flat.gather(0, step), flat.gather(0, step + 1), share).reshape(size, *self.shape)

    def __getitem__(self, index: int | slice | Tensor) -> Quantiles:
        if not self.shape:
            raise ShapeError(expected("posterior", "at least one axis to index", "a scalar"))
        return Quantiles(self._levels, self._values[:, index], unit=self.unit, rule=self.rule)

    def __len__(self) -> int:
        return len(self._values[0])

    def _checked(self, value: float | Tensor) -> Tensor:
        # As in every posterior, but by the values: there need not be a mean.
        first = self._values[0]
        return Gaussian(first, torch.zeros_like(first), unit=self.unit)._checked(value)

    def _middles(self) -> Tensor:
        return (self._values[1:] + self._values[:-1]) / 2

    def _steps(self, name: str) -> Tensor:
        """Probability between neighbouring levels."""
        self._need_ends(name)
        return self._levels.diff().to(self._values)

    def _need_ends(self, name: str) -> None:
        if not self.complete:
            got = f"levels {self._levels[0]:g} to {self._levels[-1]:g}"
            remedy = f"without the ends of the support there is no {name}; use quantile, cdf or interval"
            raise DataError(expected("posterior", "quantiles of the levels 0 and 1 too", got, remedy))

    def _cdf(self, value: Tensor) -> Tensor:
        levels = self._levels.to(value)
        reached = levels[0].expand(value.shape)
        for j in range(len(levels) - 1):
            lower, width = self._values[j], self._values[j + 1] - self._values[j]
            share = torch.where(width > 0, (value - lower) / width, 1.0).clamp(0.0, 1.0)
            reached = torch.where(value >= lower, torch.lerp(levels[j], levels[j + 1], share), reached)
        return torch.where(value == torch.inf, 1.0, reached)

    def _quantile(self, p: float) -> Tensor:
        first, last = float(self._levels[0]), float(self._levels[-1])
        if p < first - self._tolerance or p > last + self._tolerance:
            return torch.full_like(self._values[0], -torch.inf if p < first else torch.inf)
        upper = int(torch.searchsorted(self._levels, p)) if first < p < last else 1 if p <= first else -1
        lower = self._levels[upper - 1]
        share = float((p - lower) / (self._levels[upper] - lower))
        return torch.lerp(self._values[upper - 1], self._values[upper], min(max(share, 0.0), 1.0))
