"""Dynamic mode decomposition with error bars: the posterior of a sum of exponentials in noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Complex, Float, Num
from torch import Tensor

from bayesmol.data.trajectory import Trajectories
from bayesmol.dynamics.exponentials import Exponentials, Projection, Starts, solved
from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.blocks import summed_covariance
from bayesmol.inference.random import generator
from bayesmol.posterior import Draws

__all__ = ["DMD", "FittedDMD"]


@dataclass(frozen=True)
class DMD:
    r"""Exponentials in Gaussian noise, :math:`x(t) = \sum_k b_k e^{\alpha_k t} + \varepsilon`, by maximum likelihood.

    The amplitudes are projected out; the exponents come from Levenberg-Marquardt iterations that start at the
    exponents of total-least-squares and forward-backward DMD. Times may be uneven and entries may be missing.

    The posterior of the exponents is Student's t about the optimum with the covariance
    :math:`\hat\sigma^2 (\mathrm{Re}\, J^* P^\perp J)^{-1}`, the Fisher information after projection, and
    :math:`\hat\sigma^2` by the residual degrees of freedom. It holds for white noise of one variance; with ``block``
    the covariance of the score comes from blocks of so many successive times, whatever the noise within a block is.

    Attributes
    ----------
    rank
        Number of exponentials, both of a conjugate pair counted; by default the one of the largest evidence up to
        :func:`~bayesmol.dynamics.dmd.threshold_rank` of the delayed snapshots.
    delays
        Snapshots that are stacked for the start, in their leading directions; by default such that there are a third
        as many columns as times, or 60.
    block
        Times in a block; ``None`` for white noise.
    draws
        Of the posterior.

    References
    ----------
    Golub, Pereyra, SIAM J. Numer. Anal. 10, 413 (1973); Kaufman, BIT 15, 49 (1975); Askham, Kutz, SIAM J. Appl. Dyn.
    Syst. 17, 380 (2018).
    """

    rank: int | None = None
    delays: int | None = None
    block: int | None = None
    draws: int = 1000

    def __post_init__(self) -> None:
        for name in ("rank", "delays", "block"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise DataError(expected(name, "a positive number, or None", getattr(self, name)))
        if self.draws < 2:
            raise DataError(expected("draws", "at least 2", self.draws))

    def fit(
        self,
        snapshots: Num[Tensor, "time space"] | Trajectories,
        *,
        times: Float[Tensor, " time"] | None = None,
        time_step: float = 1.0,
        unit: str = "frames",
        seed: int | torch.Generator = 0,
    ) -> FittedDMD:
        """Posterior of the exponents of snapshots; NaN is a missing entry.

        Parameters
        ----------
        times
            Increasing, in ``unit``, if they are not ``time_step`` apart.

        Raises
        ------
        ShapeError, DataError
            If the shape does not fit, times do not increase, or there are fewer numbers than parameters.
        ConvergenceError
            If the iterations stop early or the data do not determine the exponents.
        """
        data, when, unit = _data(snapshots, times, time_step, unit)
        mask = ~torch.isnan(data.real if data.is_complex() else data)
        least = int(mask.sum(0).min())
        if least <= (self.rank or 1):
            raise DataError(expected("snapshots", f"more than {self.rank or 1} in each column", least, "leave it out"))
        begin = Starts.of(data, mask, when, self.rank, self.delays)
        ranks = [self.rank] if self.rank is not None else range(1, begin.limit + 1)
        fits = [solved(model, data, mask, when) for rank in ranks for model in begin.models(rank)]
        fits = [fit for fit in fits if fit.converged and fit.free > 0]
        if not fits:
            raise ConvergenceError(expected("DMD", "iterations that converge", "none", "choose a smaller rank"))
        return _fitted(self, max(fits, key=lambda fit: fit.log_evidence), data, mask, when, unit, seed)


@dataclass(frozen=True, eq=False)
class FittedDMD:
    """Posterior of the exponents, and of what follows from them; modes by their energy, the strongest first.

    Of a conjugate pair of real data only the one of positive frequency is listed.

    Attributes
    ----------
    parameters
        Draws of the free parameters of the exponents.
    noise_stddev
        Of each real number that was measured, by the residual degrees of freedom.
    degrees_of_freedom
        Real numbers less real parameters; with ``block`` the number of blocks less one.
    mean_squares
        Of the part of each listed mode, with its conjugate, over all measured times and columns.
    log_evidence
        By Schwarz's approximation, in nats, to compare ranks.
    """

    model: Exponentials
    parameters: Float[Tensor, "draws parameters"]
    noise_stddev: float
    degrees_of_freedom: int
    data: Num[Tensor, "time space"]
    mask: Tensor
    times: Float[Tensor, " time"]
    unit: str
    residual: Num[Tensor, "time space"]
    mean_squares: Float[Tensor, " rank"]
    log_evidence: float
    seed: int

    @property
    def exponents(self) -> Draws:
        """Growth rate in 1/``unit`` and angular frequency in radians/``unit``, (rank, 2)."""
        chosen = self._exponents[:, self.model.listed]
        return self._as_draws(torch.view_as_real(chosen), f"1/{self.unit}")

    @property
    def growth_rates(self) -> Draws:
        """In 1/``unit``, negative for decay."""
        return self._as_draws(self._exponents[:, self.model.listed].real, f"1/{self.unit}")

    @property
    def frequencies(self) -> Draws:
        """Cycles per ``unit``."""
        return self._as_draws(self._exponents[:, self.model.listed].imag / (2 * math.pi), f"1/{self.unit}")

    @cached_property
    def modes(self) -> Draws:
        """Coefficient at the first time of each mode in each column, (rank, space, 2): real and imaginary part.

        Both of a conjugate pair together contribute twice the real part of coefficient times exponential.
        """
        return self._as_draws(torch.view_as_real(self._coefficients[:, self.model.listed]), "")

    @property
    def estimate(self) -> Complex[Tensor, " rank"]:
        """Exponents of maximum likelihood, in 1/``unit``."""
        return self.model.exponents[self.model.listed]

    @property
    def residual_correlation(self) -> float:
        """Correlation of residuals one time apart; far from zero the noise is not white: use ``block``."""
        both = self.mask[1:] & self.mask[:-1]
        product = (self.residual[1:] * self.residual[:-1].conj()).real[both]
        return float(product.mean() / self.residual.abs().square()[self.mask].mean())

    def forecast(self, times: Float[Tensor, " times"], *, noise: bool = True, seed: int | torch.Generator = 0) -> Draws:
        """New numbers at these times, (times, space); without ``noise`` the band of their mean. Complex: a last axis.

        Times are in ``unit`` from the same origin as those of the fit.
        """
        powers = (self._exponents[:, None, :] * (times - self.times[0])[:, None]).exp()
        values = powers @ self._coefficients
        field = torch.view_as_real(values) if self.data.is_complex() else values.real
        if noise:
            source = generator(seed, field.device)
            random = torch.randn(field.shape, generator=source, dtype=field.dtype, device=field.device)
            field = field + self.noise_stddev * random
        return self._as_draws(field.contiguous(), "")

    @cached_property
    def _exponents(self) -> Complex[Tensor, "draws rank"]:
        return self.model.at(self.parameters)

    @cached_property
    def _coefficients(self) -> Complex[Tensor, "draws rank space"]:
        r"""Amplitudes given the exponents of each draw: Gaussian, :math:`(\Phi^+ x, \sigma^2 (\Phi^* \Phi)^{-1})`."""
        source = generator(self.seed, self.data.device)
        return self.model.coefficients(
            self._exponents, self.data, self.mask, self.times - self.times[0], self.noise_stddev, source
        )

    def _as_draws(self, values: Tensor, unit: str) -> Draws:
        return Draws(values.unsqueeze(0), unit=unit)


def _data(snapshots: Any, times: Any, time_step: float, unit: str) -> tuple[Tensor, Tensor, str]:
    if isinstance(snapshots, Trajectories):
        if len(snapshots) != 1 or snapshots.discrete:
            raise DataError(expected("snapshots", "one trajectory of features", f"{len(snapshots)} parts", "fit each"))
        snapshots, time_step, unit = snapshots.parts[0], snapshots.time_step, snapshots.unit
    data = torch.as_tensor(snapshots)
    data = data.to(torch.complex128) if data.is_complex() else data.double()
    if data.ndim != 2 or 0 in data.shape:
        raise ShapeError(expected("snapshots", "(time, space)", tuple(data.shape)))
    if bool(torch.isinf(torch.view_as_real(data) if data.is_complex() else data).any()):
        raise DataError(expected("snapshots", "finite numbers, or NaN where missing", "infinity"))
    steps = torch.arange(len(data), device=data.device, dtype=torch.float64) * time_step
    when = steps if times is None else torch.as_tensor(times, device=data.device).double()
    if when.shape != steps.shape:
        raise ShapeError(expected("times", f"{len(data)} numbers", tuple(when.shape)))
    if not bool((when.diff() > 0).all() & torch.isfinite(when).all()):
        raise DataError(expected("times", "increasing numbers", "others"))
    return data, when, unit


def _fitted(
    spec: DMD, found: Projection, data: Tensor, mask: Tensor, when: Tensor, unit: str, seed: int | torch.Generator
) -> FittedDMD:
    model, count, free = found.model, found.count, found.free
    variance = found.loss / free
    root = _inverse_root(found.information)
    if spec.block is None:
        spread, freedom = math.sqrt(variance) * root, free
    else:
        if spec.block > len(data) // 2:
            raise DataError(expected("block", f"at most {len(data) // 2} times", spec.block))
        meat = summed_covariance(found.scores, spec.block)
        values, vectors = torch.linalg.eigh(root.mT @ meat @ root)
        # Residuals are smaller than the noise: the parameters took their share of the degrees of freedom.
        spread = math.sqrt(count / free) * root @ (vectors * values.clamp_min(0).sqrt())
        freedom = -(-len(data) // spec.block) - 1
    source = generator(seed, data.device)
    normal = torch.randn(spec.draws, len(spread), generator=source, dtype=torch.float64, device=data.device)
    shape = torch.full((spec.draws, 1), freedom / 2, dtype=torch.float64, device=data.device)
    scale = (freedom / (2 * torch._standard_gamma(shape, generator=source))).sqrt()
    draws = model.parameters + scale * (normal @ spread.mT)
    state = int(torch.randint(2**62, (), generator=source, device=data.device))
    return FittedDMD(
        model=model,
        parameters=draws,
        noise_stddev=math.sqrt(variance),
        degrees_of_freedom=freedom,
        data=data,
        mask=mask,
        times=when,
        unit=unit,
        residual=found.residual,
        mean_squares=found.mean_squares,
        log_evidence=found.log_evidence,
        seed=state,
    )


def _inverse_root(information: Tensor) -> Tensor:
    """Root of the inverse, by way of the matrix scaled to a diagonal of ones first."""
    scale = information.diagonal().clamp_min(torch.finfo(information.dtype).tiny).rsqrt()
    lower, failed = torch.linalg.cholesky_ex(scale[:, None] * information * scale)
    if bool(failed) or not bool(torch.isfinite(lower).all()):
        raise ConvergenceError(expected("DMD", "data that determine the exponents", "a flat direction", "lower rank"))
    eye = torch.eye(len(information), dtype=information.dtype, device=information.device)
    return scale[:, None] * torch.linalg.solve_triangular(lower, eye, upper=False).mT
