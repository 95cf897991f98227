"""StudentT and Laplace: distributions with heavier tails than a Gaussian, their entries independent."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy import special
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.posterior.base import IntervalRule, Posterior
from bayesmol.posterior.gaussian import Gaussian

__all__ = ["Laplace", "LocationScale", "StudentT"]


class LocationScale(Posterior):
    """Independent entries ``location + scale · t``, t of one standard distribution.

    A family says the distribution of t (``_standard_…``); the rest is here.

    Parameters
    ----------
    location, scale
        Arrays of one shape, in ``unit``.

    Raises
    ------
    ShapeError, DataError
        If the shapes differ, an entry is not finite, or a scale is not positive.
    """

    def __init__(
        self,
        location: Float[Tensor, "*shape"],
        scale: Float[Tensor, "*shape"],
        *,
        unit: str,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(unit=unit, rule=rule)
        if scale.shape != location.shape:
            raise ShapeError(expected("scale", f"shape {tuple(location.shape)}", tuple(scale.shape)))
        if not bool(torch.isfinite(location).all()):
            raise DataError(expected("location", "finite numbers", "NaN or infinity"))
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise DataError(expected("scale", "positive finite numbers", "others"))
        self._location, self._scale = location, scale

    @property
    def location(self) -> Float[Tensor, "*shape"]:
        """Centre, which is the median, in ``unit``."""
        return self._location

    @property
    def scale(self) -> Float[Tensor, "*shape"]:
        """Width, in ``unit``; not the standard deviation."""
        return self._scale

    @property
    def shape(self) -> torch.Size:
        """Shape of one draw."""
        return self._location.shape

    def scaled(self, factor: float | Float[Tensor, "*shape"]) -> LocationScale:
        """The same location with scales times ``factor``, a number or one factor an entry; the rule is dropped."""
        scale = torch.as_tensor(factor, dtype=self._scale.dtype, device=self._scale.device)
        if scale.ndim and scale.shape != self.shape:
            raise ShapeError(expected("factor", f"a number or shape {tuple(self.shape)}", tuple(scale.shape)))
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise DataError(expected("factor", "positive finite numbers", "others"))
        return type(self)(self._location, self._scale * scale, **self._form(slice(None)), unit=self.unit)

    def sample(self, size: int, *, seed: int | torch.Generator) -> Float[Tensor, " size *shape"]:
        """``size`` draws, in ``unit``."""
        standard = self._standard_sample(numpy_generator(seed), (size, *self._location.shape))
        return self._location + self._scale * torch.as_tensor(standard).to(self._location)

    def __getitem__(self, index: int | slice | Tensor) -> LocationScale:
        parts = self._location[index], self._scale[index]
        return type(self)(*parts, **self._form(index), unit=self.unit, rule=self.rule)

    def __len__(self) -> int:
        return len(self._location)

    def _checked(self, value: float | Tensor) -> Tensor:
        # As in every posterior, but by the location: there need not be a mean.
        return Gaussian(self._location, self._scale, unit=self.unit)._checked(value)

    def _standardised(self, value: Tensor) -> Tensor:
        return (value - self._location) / self._scale

    def _cdf(self, value: Tensor) -> Tensor:
        return self._standard_cdf(self._standardised(value))

    def _log_prob(self, value: Tensor) -> Tensor:
        return self._standard_log_prob(self._standardised(value)) - self._scale.log()

    def _quantile(self, p: float) -> Tensor:
        return self._quantiles(torch.tensor(p, dtype=torch.float64, device=self._location.device))

    def _quantiles(self, p: Tensor) -> Tensor:
        """Quantiles of probabilities, one for all entries or one an entry."""
        return self._location + self._scale * self._standard_quantile(p).to(self._location)

    def _form(self, index: Any) -> dict[str, Any]:
        """Further arguments of the constructor for the entries ``index``."""
        return {}

    @abstractmethod
    def _standard_cdf(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _standard_log_prob(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def _standard_quantile(self, p: Tensor) -> Tensor: ...

    @abstractmethod
    def _standard_moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Integrals of ``x`` and of ``x²`` times the standard density up to ``t``."""

    @abstractmethod
    def _standard_sample(self, source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray: ...


class StudentT(LocationScale):
    r"""Student's t distribution, :math:`p(y) \propto (1 + t^2/\nu)^{-(\nu+1)/2}/s` with :math:`t = (y - m)/s`.

    Quantiles, draws and the distribution function are SciPy's and NumPy's, computed on the CPU in float64.

    Parameters
    ----------
    location, scale
        m and s, arrays of one shape, in ``unit``.
    degrees
        Degrees of freedom :math:`\nu > 0`, one number or one an entry. There is no mean for :math:`\nu \le 1`; the
        variance :math:`s^2 \nu/(\nu - 2)` is infinite for :math:`1 < \nu \le 2`.

    Raises
    ------
    ShapeError, DataError
        If the shapes differ, an entry is not finite, or a scale or the degrees are not positive.
    """

    def __init__(
        self,
        location: Float[Tensor, "*shape"],
        scale: Float[Tensor, "*shape"],
        degrees: float | int | Float[Tensor, "*shape"] | Float[Tensor, ""],
        *,
        unit: str,
        rule: IntervalRule | None = None,
    ) -> None:
        super().__init__(location, scale, unit=unit, rule=rule)
        self._degrees = torch.as_tensor(degrees, dtype=location.dtype, device=location.device)
        if self._degrees.ndim and self._degrees.shape != location.shape:
            remedy = f"a number or shape {tuple(location.shape)}"
            raise ShapeError(expected("degrees", remedy, tuple(self._degrees.shape)))
        if not bool((torch.isfinite(self._degrees) & (self._degrees > 0)).all()):
            raise DataError(expected("degrees", "positive finite numbers", "others", "use Gaussian for infinity"))

    @classmethod
    def from_stddev(
        cls,
        mean: Float[Tensor, "*shape"],
        stddev: Float[Tensor, "*shape"],
        degrees: float | int | Float[Tensor, "*shape"] | Float[Tensor, ""],
        *,
        unit: str,
    ) -> StudentT:
        r"""The distribution with this mean and standard deviation, :math:`s = \sigma \sqrt{(\nu - 2)/\nu}`.

        Raises
        ------
        DataError
            If the degrees are 2 or less, where no standard deviation exists.
        """
        nu = torch.as_tensor(degrees, dtype=stddev.dtype, device=stddev.device)
        if not bool((nu > 2).all()):
            raise DataError(expected("degrees", "more than 2 for a standard deviation", degrees, "give the scale"))
        return cls(mean, stddev * ((nu - 2) / nu).sqrt(), degrees, unit=unit)

    @property
    def degrees(self) -> Float[Tensor, "*shape"] | Float[Tensor, ""]:
        """Degrees of freedom, one number or one an entry."""
        return self._degrees

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation, in ``unit``; raises :class:`DataError` for degrees of 1 or less, which have none."""
        self._need_mean()
        return self._location

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance, in ``unit`` squared: infinite for degrees of 2 or less; raises where there is no mean."""
        self._need_mean()
        nu = self._degrees
        return self._scale.square() * torch.where(nu > 2, nu / (nu - 2), torch.inf)

    def _need_mean(self) -> None:
        if bool((self._degrees <= 1).any()):
            remedy = "use quantile or cdf"
            raise DataError(expected("degrees", "more than 1 for a mean or variance", "1 or less", remedy))

    def _form(self, index: Any) -> dict[str, Any]:
        return {"degrees": self._degrees[index] if self._degrees.ndim else self._degrees}

    def _standard_cdf(self, t: Tensor) -> Tensor:
        return _on_cpu(special.stdtr, self._degrees, t)

    def _standard_quantile(self, p: Tensor) -> Tensor:
        return _on_cpu(special.stdtrit, self._degrees, p)

    def _standard_log_prob(self, t: Tensor) -> Tensor:
        nu = self._degrees
        # ln Γ((ν+1)/2) − ln Γ(ν/2), of large ν by its expansion because the difference cancels.
        small = torch.lgamma((nu + 1) / 2) - torch.lgamma(nu / 2)
        ratio = torch.where(nu < 1e3, small, (nu / 2).log() / 2 - 1 / (4 * nu) + 1 / (24 * nu**3))
        return ratio - (nu * math.pi).log() / 2 - (nu + 1) / 2 * torch.log1p(t.square() / nu)

    def _standard_moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        nu = self._degrees
        edge = (nu + t.square()) * self._standard_log_prob(t).exp()
        return -edge / (nu - 1), (nu * self._standard_cdf(t) - t * edge) / (nu - 2)

    def _standard_sample(self, source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return source.standard_t(self._degrees.detach().cpu().double().numpy(), shape)


class Laplace(LocationScale):
    r"""Laplace distribution, :math:`p(y) = \exp(-|y - m|/s)/2s`, whose variance is :math:`2 s^2`."""

    @classmethod
    def from_stddev(cls, mean: Float[Tensor, "*shape"], stddev: Float[Tensor, "*shape"], *, unit: str) -> Laplace:
        r"""The distribution with this mean and standard deviation, :math:`s = \sigma/\sqrt 2`."""
        return cls(mean, stddev / math.sqrt(2), unit=unit)

    @property
    def mean(self) -> Float[Tensor, "*shape"]:
        """Expectation, in ``unit``."""
        return self._location

    @property
    def variance(self) -> Float[Tensor, "*shape"]:
        """Variance of each entry, in ``unit`` squared."""
        return 2 * self._scale.square()

    def _standard_cdf(self, t: Tensor) -> Tensor:
        tail = (-t.abs()).exp() / 2
        return torch.where(t < 0, tail, 1 - tail)

    def _standard_quantile(self, p: Tensor) -> Tensor:
        return torch.where(p < 0.5, (2 * p).log(), -torch.log(2 * (1 - p)))

    def _standard_log_prob(self, t: Tensor) -> Tensor:
        return -t.abs() - math.log(2)

    def _standard_moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        size, tail = t.abs(), (-t.abs()).exp() / 2
        return -(1 + size) * tail, 2 * self._standard_cdf(t) - t * (size + 2) * tail

    def _standard_sample(self, source: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return source.laplace(size=shape)


def _on_cpu(function: Callable[..., np.ndarray], *arrays: Tensor) -> Tensor:
    """A SciPy function of arrays, in float64 on the CPU; the result is like the last one."""
    result = function(*(array.detach().cpu().double().numpy() for array in arrays))
    return torch.as_tensor(result).to(arrays[-1])
