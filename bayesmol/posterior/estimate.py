"""Estimate: a number with its standard error; how many independent draws a correlated sample is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.posterior.interval import Interval, checked_level

__all__ = ["Estimate", "autocorrelation", "blocking", "effective_sample_size", "kish"]


@dataclass(frozen=True)
class Estimate:
    """A value with its standard error; prints as ``-2.90372(4) Ha``, the error in the last digit.

    Attributes
    ----------
    value, standard_error
        In ``unit``; one shape.
    effective_sample_size
        Number of independent draws that would give the same standard error.

    Raises
    ------
    ShapeError, DataError
        If the three differ in shape, or a standard error is negative or NaN.
    """

    value: Float[Tensor, "*shape"]
    standard_error: Float[Tensor, "*shape"]
    effective_sample_size: Float[Tensor, "*shape"]
    unit: str

    def __post_init__(self) -> None:
        for name in ("standard_error", "effective_sample_size"):
            shape = tuple(getattr(self, name).shape)
            if shape != tuple(self.value.shape):
                raise ShapeError(expected(name, f"shape {tuple(self.value.shape)} of the value", shape))
        if not bool((self.standard_error >= 0).all()):
            raise DataError(expected("standard_error", "numbers ≥ 0", "a negative number or NaN"))

    def interval(self, level: float) -> Interval:
        """Normal interval about the value; exact as the effective sample size grows (central limit theorem)."""
        z = float(stats.norm.ppf((1 + checked_level(level)) / 2))
        lower, upper = self.value - z * self.standard_error, self.value + z * self.standard_error
        return Interval(lower, upper, level, self.unit, "asymptotic: central limit theorem")

    def __str__(self) -> str:
        pairs = zip(self.value.flatten().tolist(), self.standard_error.flatten().tolist(), strict=True)
        texts = [_parenthesised(value, error) for value, error in pairs]
        text = texts[0] if self.value.ndim == 0 else f"[{', '.join(texts)}]"
        return f"{text} {self.unit}".rstrip()


def _parenthesised(value: float, error: float) -> str:
    """``value(error)``: the error with one digit, two if the first is 1, standing at the last digits of the value."""
    if not (math.isfinite(value) and math.isfinite(error)):
        return f"{value:g} ± {error:g}"
    if error == 0:
        return f"{value!r}(0)"
    digit, exponent = f"{error:.0e}".split("e")
    decimals = (digit == "1") - int(exponent)
    if decimals <= 0:
        return f"{round(value, decimals):.0f}({round(error, decimals):.0f})"
    return f"{value:.{decimals}f}({round(error * 10**decimals)})"


def autocorrelation(values: Float[Tensor, "chain draw *event"]) -> Float[Tensor, " draw *event"]:
    r"""Autocorrelation :math:`\hat\rho_t` at each lag, from all chains together.

    .. math:: \hat\rho_t = 1 - \frac{W - \frac1m \sum_j s_j^2 \hat\rho_{t,j}}{\widehat{\mathrm{var}}^+}

    with the variance within chains W and the pooled variance :math:`\widehat{\mathrm{var}}^+`, so that chains that
    sit apart count as correlated. A constant entry has correlation 1 at lag 0 and 0 beyond.

    References
    ----------
    Vehtari, Gelman, Simpson, Carpenter, Bürkner, Bayesian Analysis 16, 667 (2021), equation 10.
    """
    chains, draws = values.shape[:2]
    centred = values - values.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * draws, dim=1)
    covariance = torch.fft.irfft(spectrum.abs().square(), n=2 * draws, dim=1)[:, :draws].mean(0) / draws
    within = covariance[0] * draws / (draws - 1)
    between = values.mean(1).var(0) if chains > 1 else torch.zeros_like(within)
    pooled = covariance[0] + between
    varies = pooled > torch.finfo(values.dtype).eps ** 2 * values.square().mean((0, 1))
    rho = 1 - (within - covariance * draws / (draws - 1)) / torch.where(varies, pooled, 1.0)
    rho[1:] = torch.where(varies, rho[1:], 0.0)
    rho[0] = 1.0
    return rho


def effective_sample_size(values: Float[Tensor, "chain draw *event"]) -> Float[Tensor, "*event"]:
    r"""Number of independent draws that give the variance of the mean of these correlated ones.

    :math:`mn / \hat\tau` with :math:`\hat\tau = -1 + 2 \sum_k \hat P_k`, where
    :math:`\hat P_k = \hat\rho_{2k} + \hat\rho_{2k+1}` is summed over its initial positive sequence, made monotone.
    At most :math:`mn \log_{10}(mn)` is returned.

    Raises
    ------
    DataError
        If a chain has fewer than four draws.

    References
    ----------
    Geyer, Statistical Science 7, 473 (1992), section 3.3; Vehtari et al., Bayesian Analysis 16, 667 (2021).
    """
    chains, draws = values.shape[:2]
    if draws < 4:
        raise DataError(expected("values", "at least 4 draws a chain", draws))
    rho = autocorrelation(values.double())
    pairs = rho[: draws // 2 * 2].unflatten(0, (-1, 2)).sum(1)
    positive = (pairs > 0).cumprod(0)
    monotone = pairs.cummin(0).values
    tau = -1 + 2 * (monotone * positive).sum(0)
    total = chains * draws
    return (total / tau.clamp_min(1 / math.log10(total))).to(values.dtype)


def kish(log_weights: Float[Tensor, "*draws"]) -> Float[Tensor, ""]:
    r"""Effective number of weighted draws, :math:`(\sum w)^2 / \sum w^2`.

    References
    ----------
    Kish, Survey Sampling, Wiley (1965), section 11.7.
    """
    flat = log_weights.flatten()
    return (2 * flat.logsumexp(0) - (2 * flat).logsumexp(0)).exp()


def blocking(values: Float[Tensor, " draw"], *, unit: str) -> Estimate:
    r"""Mean of one correlated chain with the standard error from blocks that are long enough to be independent.

    Pairs are averaged again and again; the first blocks of length B with :math:`B^3 > 2 n\,(s_B / s_1)^4`, where
    :math:`s_B` is the standard error from blocks of that length, balance the bias by the correlation that is left
    against the noise of few blocks. Of an odd number of blocks the last is left out.

    Raises
    ------
    DataError
        If there are fewer than four draws.
    ConvergenceError
        If no blocks are long enough: the chain is not much longer than its own correlation.

    References
    ----------
    Flyvbjerg, Petersen, J. Chem. Phys. 91, 461 (1989); Wolff, Comput. Phys. Commun. 156, 143 (2004), equation 47;
    Lee, Mella, Rappe, J. Chem. Phys. 134, 244103 (2011), equation 14.
    """
    draws, blocks, length = len(values), values.double(), 1
    if draws < 4:
        raise DataError(expected("values", "at least 4 draws", draws))
    first = float(blocks.var()) / draws
    if first == 0:
        return Estimate(values.mean(), values.new_zeros(()), values.new_tensor(float(draws)), unit)
    while len(blocks) >= 2:
        square = float(blocks.var()) / len(blocks)
        if square > 0 and length**3 > 2 * draws * (square / first) ** 2:
            count = values.new_tensor(draws * first / square)
            return Estimate(values.mean(), values.new_tensor(math.sqrt(square)), count, unit)
        blocks, length = blocks[: len(blocks) // 2 * 2].reshape(-1, 2).mean(1), 2 * length
    raise ConvergenceError(expected("values", "a chain much longer than its correlation", f"{draws} draws"))
