r"""Laws of noise beyond "normal with one variance": which of them made these labels?

A law gives the density of a residual :math:`e = y - f`. It has at most three free parameters, which are real numbers
with a prior, and it is a scale mixture of normal laws, so that a linear model with any of them is sampled by conjugate
updates (:mod:`bayesmol.inference.noise`). Residuals come in units of their typical size, so that one prior serves all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from bayesmol.errors import DataError, expected

__all__ = ["ContaminatedNoise", "GaussianNoise", "KnownNoise", "LaplaceNoise", "NoiseLaw", "StudentNoise"]

_WIDTH = 3.0  # of the normal prior of the logarithm of a scale


class NoiseLaw(ABC):
    """Law of residuals, with free parameters in a tensor ``(*draws, parameters)``."""

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the parameters; those that are called scale or jitter have the unit of the residuals."""

    @abstractmethod
    def parameters(self, free: Float[Tensor, "*draws parameters"]) -> tuple[Float[Tensor, "*draws"], ...]:
        """The parameters themselves, in the order of their names."""

    @abstractmethod
    def log_prior(self, free: Float[Tensor, "*draws parameters"]) -> Float[Tensor, "*draws"]:
        """Log-density of the prior of the free parameters, up to a constant."""

    @abstractmethod
    def log_prob(
        self,
        residuals: Float[Tensor, " rows"],
        errors: Float[Tensor, " rows"] | None,
        free: Float[Tensor, "*draws parameters"],
    ) -> Float[Tensor, "*draws rows"]:
        """Log-density of each residual, in nats; ``errors`` are standard errors of the labels."""

    @abstractmethod
    def variances(
        self,
        residuals: Float[Tensor, " rows"],
        errors: Float[Tensor, " rows"] | None,
        free: Float[Tensor, " parameters"],
        source: torch.Generator,
    ) -> Float[Tensor, " rows"]:
        """Draw of the variance of the normal law behind each residual, given the residual and the parameters."""

    def check(self, errors: Float[Tensor, " rows"] | None) -> None:
        """Raise :class:`~bayesmol.errors.DataError` if the law needs standard errors that are not there."""
        return


@dataclass(frozen=True)
class GaussianNoise(NoiseLaw):
    r"""Normal law of one unknown scale, :math:`e_i \sim \mathcal N(0, s^2)`: what a squared loss assumes."""

    names = ("scale",)

    def parameters(self, free: Tensor) -> tuple[Tensor, ...]:
        return (free[..., 0].exp(),)

    def log_prior(self, free: Tensor) -> Tensor:
        return _normal(free[..., 0], _WIDTH)

    def log_prob(self, residuals: Tensor, errors: Tensor | None, free: Tensor) -> Tensor:
        return _normal(residuals, free[..., :1].exp())

    def variances(self, residuals: Tensor, errors: Tensor | None, free: Tensor, source: torch.Generator) -> Tensor:
        return (2 * free).exp().expand(len(residuals))


@dataclass(frozen=True)
class KnownNoise(NoiseLaw):
    r"""Normal law with a known standard error of each label, :math:`e_i \sim \mathcal N(0, \sigma_i^2 + s^2)`.

    Attributes
    ----------
    jitter
        Whether there is noise s that the standard errors leave out; half-normal prior of the size of the residuals.
        Comparing both settings tells whether the standard errors are all of the noise.
    """

    jitter: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return ("jitter",) if self.jitter else ()

    def parameters(self, free: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.exp() for part in free.unbind(-1))

    def log_prior(self, free: Tensor) -> Tensor:
        return (free - 0.5 * (2 * free).exp()).sum(-1)

    def log_prob(self, residuals: Tensor, errors: Tensor | None, free: Tensor) -> Tensor:
        variance = _needed(errors).square() + (2 * free).exp().sum(-1, keepdim=True)
        return _normal(residuals, variance.sqrt())

    def variances(self, residuals: Tensor, errors: Tensor | None, free: Tensor, source: torch.Generator) -> Tensor:
        return _needed(errors).square() + (2 * free).exp().sum()

    def check(self, errors: Tensor | None) -> None:
        if not bool((_needed(errors) > 0).all()):
            raise DataError(expected("errors", "a positive standard error for each label", "zeros"))


@dataclass(frozen=True)
class StudentNoise(NoiseLaw):
    r"""Student's t law of unknown scale and degrees of freedom :math:`\nu`: outliers of all sizes.

    The prior of :math:`\nu` is the gamma law of shape 2 and rate 0.1.

    References
    ----------
    Juárez and Steel, J. Bus. Econ. Stat. 28, 52 (2010) (the prior); Lange, Little, Taylor, J. Am. Stat. Assoc. 84, 881
    (1989) (the mixture).
    """

    names = ("scale", "degrees")

    def parameters(self, free: Tensor) -> tuple[Tensor, ...]:
        return free[..., 0].exp(), free[..., 1].exp()

    def log_prior(self, free: Tensor) -> Tensor:
        return _normal(free[..., 0], _WIDTH) + 2 * free[..., 1] - 0.1 * free[..., 1].exp()

    def log_prob(self, residuals: Tensor, errors: Tensor | None, free: Tensor) -> Tensor:
        scale, degrees = (part.unsqueeze(-1) for part in self.parameters(free))
        constant = torch.lgamma((degrees + 1) / 2) - torch.lgamma(degrees / 2) - 0.5 * (math.pi * degrees).log()
        return constant - scale.log() - (degrees + 1) / 2 * torch.log1p((residuals / scale).square() / degrees)

    def variances(self, residuals: Tensor, errors: Tensor | None, free: Tensor, source: torch.Generator) -> Tensor:
        scale, degrees = self.parameters(free)
        shape = ((degrees + 1) / 2).expand(residuals.shape).contiguous()
        gamma = torch._standard_gamma(shape, generator=source)
        return (degrees * scale.square() + residuals.square()) / (2 * gamma)


@dataclass(frozen=True)
class LaplaceNoise(NoiseLaw):
    r"""Laplace law of unknown scale b, density :math:`e^{-|e|/b} / 2b`: what an absolute loss assumes.

    References
    ----------
    Park and Casella, J. Am. Stat. Assoc. 103, 681 (2008), section 2 (the mixture).
    """

    names = ("scale",)

    def parameters(self, free: Tensor) -> tuple[Tensor, ...]:
        return (free[..., 0].exp(),)

    def log_prior(self, free: Tensor) -> Tensor:
        return _normal(free[..., 0], _WIDTH)

    def log_prob(self, residuals: Tensor, errors: Tensor | None, free: Tensor) -> Tensor:
        return -residuals.abs() * (-free[..., :1]).exp() - free[..., :1] - math.log(2)

    def variances(self, residuals: Tensor, errors: Tensor | None, free: Tensor, source: torch.Generator) -> Tensor:
        scale = free.exp()
        return 1 / _inverse_gaussian(1 / (scale * residuals.abs().clamp_min(1e-9)), 1 / scale.square(), source)


@dataclass(frozen=True)
class ContaminatedNoise(NoiseLaw):
    r"""Normal law, and a fraction :math:`\pi` of outliers that are :math:`\kappa` times as wide.

    .. math:: p(e) = (1 - \pi)\, \mathcal N(e; 0, s^2) + \pi\, \mathcal N(e; 0, \kappa^2 s^2)

    The prior of :math:`\pi` is the beta law (1, 9), that of :math:`\ln(\kappa - 1)` normal about ln 4 with width 1.
    """

    names = ("scale", "fraction", "ratio")

    def parameters(self, free: Tensor) -> tuple[Tensor, ...]:
        return free[..., 0].exp(), free[..., 1].sigmoid(), 1 + 4 * free[..., 2].exp()

    def log_prior(self, free: Tensor) -> Tensor:
        fraction = logsigmoid(free[..., 1]) + 9 * logsigmoid(-free[..., 1])
        return _normal(free[..., 0], _WIDTH) + fraction + _normal(free[..., 2], 1.0)

    def log_prob(self, residuals: Tensor, errors: Tensor | None, free: Tensor) -> Tensor:
        return torch.logaddexp(*self._parts(residuals, free))

    def variances(self, residuals: Tensor, errors: Tensor | None, free: Tensor, source: torch.Generator) -> Tensor:
        inlier, outlier = self._parts(residuals, free)
        uniform = torch.rand(len(residuals), generator=source, dtype=free.dtype, device=free.device)
        scale, _, ratio = self.parameters(free)
        return scale.square() * torch.where(uniform < (outlier - inlier).sigmoid(), ratio.square(), 1.0)

    def _parts(self, residuals: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        scale, _, ratio = (part.unsqueeze(-1) for part in self.parameters(free))
        inlier = logsigmoid(-free[..., 1:2]) + _normal(residuals, scale)
        return inlier, logsigmoid(free[..., 1:2]) + _normal(residuals, ratio * scale)


def _needed(errors: Tensor | None) -> Tensor:
    if errors is None:
        raise DataError(expected("errors", "a positive standard error for each label", "none"))
    return errors


def _normal(values: Tensor, scale: Tensor | float) -> Tensor:
    scale = torch.as_tensor(scale, dtype=values.dtype, device=values.device)
    return -0.5 * (values / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


def _inverse_gaussian(mean: Tensor, shape: Tensor, source: torch.Generator) -> Tensor:
    """Draws by the method of Michael, Schucany, Haas, Am. Stat. 30, 88 (1976), in a form without cancellation."""
    square = torch.randn(mean.shape, generator=source, dtype=mean.dtype, device=mean.device).square()
    c = mean * square / (2 * shape)
    root = mean / (1 + c + (2 * c + c.square()).sqrt())
    uniform = torch.rand(mean.shape, generator=source, dtype=mean.dtype, device=mean.device)
    return torch.where(uniform * (mean + root) <= mean, root, mean.square() / root)
