"""Posterior of a law of noise, alone or with the weights of a linear model, and the choice among laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.errors import ConvergenceError, DataError, ShapeError, expected
from bayesmol.inference.conjugate import posterior_from_gram, posterior_from_rows
from bayesmol.inference.likelihoods import (
    ContaminatedNoise,
    GaussianNoise,
    KnownNoise,
    LaplaceNoise,
    NoiseLaw,
    StudentNoise,
)
from bayesmol.inference.random import generator
from bayesmol.posterior.arviz import Comparison, LeaveOneOut, comparison, leave_one_out

__all__ = ["NoisePosterior", "noise_comparison", "noise_posterior"]

_WARMUP, _MOVES = 150, 2


@dataclass(frozen=True, eq=False)
class NoisePosterior:
    """Draws of the parameters of a law of noise, and of the weights of a linear model if there is one.

    Attributes
    ----------
    parameters
        Draws of each parameter by its name; scales in the unit of the targets.
    weights
        Draws of the weights; ``None`` for residuals.
    log_likelihood
        Log-density of each target, in nats with the unit of the targets as measure.
    """

    law: NoiseLaw
    parameters: dict[str, Float[Tensor, "chain draw"]]
    weights: Float[Tensor, "chain draw weights"] | None
    log_likelihood: Float[Tensor, "chain draw rows"]

    def leave_one_out(self, groups: Int[Tensor, " rows"] | None = None) -> LeaveOneOut:
        """Leave-one-out densities by Pareto-smoothed importance sampling; by structure if ``groups`` are given."""
        return leave_one_out(self.log_likelihood, groups)


def noise_posterior(
    law: NoiseLaw,
    targets: Float[Tensor, " rows"],
    design: Float[Tensor, "rows weights"] | None = None,
    *,
    errors: Float[Tensor, " rows"] | None = None,
    draws: int = 1000,
    seed: int | torch.Generator,
) -> NoisePosterior:
    r"""Sample :math:`y = \Phi w + e` with :math:`w \sim \mathcal N(0, 1)` and noise e of ``law``.

    Without a design the targets are residuals, and the parameters are sampled by adaptive importance sampling from a
    t law about their mode, resampled without replacement. With one, two chains of a blocked Gibbs sampler alternate
    between parameters (Metropolis moves, the mixture integrated out), variances of the normal laws behind the
    residuals, and weights.

    Parameters
    ----------
    design
        Rows of :math:`\Phi`, prior scales absorbed in its columns.
    errors
        Standard errors of the targets, for :class:`~bayesmol.inference.likelihoods.KnownNoise`.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a number is not finite, all targets are zero, or the law needs errors that are absent.
    ConvergenceError
        If the proposal does not fit the posterior of the parameters.
    """
    _check(targets, design, errors, draws)
    law.check(errors)
    source = generator(seed, targets.device)
    unit = _typical(targets)
    scaled = targets.double() / unit
    errors = None if errors is None else errors.double() / unit
    if design is None:
        free, weights = _importance(_target(law, scaled, errors), len(law.names), draws, source).unsqueeze(0), None
        likelihood = law.log_prob(scaled, errors, free)
    else:
        free, weights, likelihood = _chains(law, scaled, design.double() / unit, errors, draws, source)
    names = zip(law.names, law.parameters(free), strict=True)
    parameters = {name: value * (unit if name in ("scale", "jitter") else 1) for name, value in names}
    return NoisePosterior(law, parameters, weights, likelihood - math.log(unit))


def noise_comparison(
    targets: Float[Tensor, " rows"],
    design: Float[Tensor, "rows weights"] | None = None,
    *,
    laws: Sequence[NoiseLaw] | None = None,
    errors: Float[Tensor, " rows"] | None = None,
    groups: Int[Tensor, " rows"] | None = None,
    draws: int = 1000,
    seed: int | torch.Generator,
) -> Comparison:
    """Which law of noise the targets prefer, by leave-one-out densities.

    Parameters
    ----------
    laws
        By default Gaussian, Student-t, Laplace and contaminated; with ``errors`` also the known variances, with and
        without jitter.
    groups
        Structure of each row, left out together.
    """
    if laws is None:
        known = [] if errors is None else [KnownNoise(), KnownNoise(jitter=True)]
        laws = [GaussianNoise(), StudentNoise(), LaplaceNoise(), ContaminatedNoise(), *known]
    source = generator(seed, targets.device)
    fits = [noise_posterior(law, targets, design, errors=errors, draws=draws, seed=source) for law in laws]
    return comparison({repr(fit.law): fit.leave_one_out(groups) for fit in fits})


Density = Callable[[Tensor], Tensor]


def _target(law: NoiseLaw, residuals: Tensor, errors: Tensor | None) -> Density:
    """Log-density of the posterior of free parameters ``(draws, parameters)``, in chunks of bounded memory."""
    chunk = max(1, 2**22 // len(residuals))

    def density(free: Tensor) -> Tensor:
        parts = free.reshape(-1, free.shape[-1]).split(chunk)
        values = [law.log_prior(part) + law.log_prob(residuals, errors, part).sum(-1) for part in parts]
        return torch.cat(values).reshape(free.shape[:-1])

    return density


def _laplace(density: Density, start: Tensor) -> tuple[Tensor, Tensor]:
    """Mode, and the Cholesky factor of the covariance of the normal approximation about it."""
    free = start.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([free], max_iter=200, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = -density(free)
        value.backward()
        return value

    optimiser.step(loss)
    mode = free.detach()
    curvature = -torch.autograd.functional.hessian(lambda x: density(x), mode)
    values, vectors = torch.linalg.eigh(curvature)
    return mode, torch.linalg.cholesky((vectors / values.clamp_min(0.05)) @ vectors.mT)


def _importance(density: Density, parameters: int, draws: int, source: torch.Generator) -> Tensor:
    """Draws of the posterior: proposals from a t law about the mode, adapted once, then resampled."""
    start = torch.zeros(parameters, dtype=torch.float64, device=source.device)
    if parameters == 0:
        return start.expand(draws, 0)
    centre, root = _laplace(density, start)
    for size in (1000, 4 * draws):
        normal = torch.randn(size, parameters, generator=source, dtype=start.dtype, device=start.device)
        width = torch._standard_gamma(start.new_full((size, 1), 2.5), generator=source) / 2.5  # five degrees of freedom
        free = centre + (normal / width.sqrt()) @ root.mT
        proposal = -0.5 * (parameters + 5) * torch.log1p((normal.square().sum(1) / width[:, 0]) / 5)
        weights = (density(free) - proposal).softmax(0)
        centre = weights @ free
        spread = (free - centre).mT @ (weights.unsqueeze(1) * (free - centre))
        root = torch.linalg.cholesky(spread + 1e-12 * torch.eye(parameters).to(spread))
    if (effective := float(1 / weights.square().sum())) < draws / 2:
        raise ConvergenceError(expected("draws", f"an effective sample of {draws // 2} proposals", round(effective)))
    return free[torch.multinomial(weights, draws, generator=source)]


def _chains(
    law: NoiseLaw, targets: Tensor, design: Tensor, errors: Tensor | None, draws: int, source: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Two Gibbs chains: free parameters, weights and log-densities, each with axes (chain, draw, …)."""
    chains = []
    for _ in range(2):
        variances = targets.new_full(targets.shape, 0.1) if errors is None else errors.square() + 0.1
        residuals = targets - design @ _weights(design, targets, variances, source)
        free, root, kept = None, None, []
        for sweep in range(_WARMUP + draws // 2):
            if law.names and sweep in (0, _WARMUP // 4, _WARMUP // 2):
                mode, root = _laplace(_target(law, residuals, errors), torch.zeros(len(law.names)).to(targets))
                free = mode if free is None else free
            free = targets.new_zeros(0) if free is None else free
            free = _moved(_target(law, residuals, errors), free, root, source)
            weights = _weights(design, targets, law.variances(residuals, errors, free, source), source)
            residuals = targets - design @ weights
            if sweep >= _WARMUP:
                kept.append((free, weights, law.log_prob(residuals, errors, free)))
        chains.append([torch.stack(parts) for parts in zip(*kept, strict=True)])
    free, weights, logs = (torch.stack(parts) for parts in zip(*chains, strict=True))
    return free, weights, logs


def _moved(density: Density, free: Tensor, root: Tensor | None, source: torch.Generator) -> Tensor:
    """Metropolis moves with steps from the normal approximation."""
    if root is None:
        return free
    current = density(free)
    for _ in range(_MOVES):
        step = torch.randn(len(free), generator=source, dtype=free.dtype, device=free.device)
        proposal = free + 2.4 / math.sqrt(len(free)) * (root @ step)
        value = density(proposal)
        chance = torch.rand((), generator=source, dtype=free.dtype, device=free.device)
        if bool(chance.log() < value - current):
            free, current = proposal, value
    return free


def _weights(design: Tensor, targets: Tensor, variances: Tensor, source: torch.Generator) -> Tensor:
    """Draw of the weights of a linear model with normal noise of these variances."""
    variances = variances.clamp_min(1e-12)
    if len(design) < design.shape[1]:
        return posterior_from_rows(design, targets, variances).sample(1, seed=source)[0]
    white = design / variances.unsqueeze(1)
    return posterior_from_gram(white.mT @ design, white.mT @ targets).sample(1, seed=source)[0]


def _typical(targets: Tensor) -> float:
    """Median size of the targets about their median; the mean size if that is zero."""
    size = (targets.double() - targets.double().median()).abs()
    return float(size.median()) or float(size.mean()) or float(targets.double().abs().mean())


def _check(targets: Tensor, design: Tensor | None, errors: Tensor | None, draws: int) -> None:
    shapes = {"targets": targets.shape[:1]} | ({} if design is None else {"design": design.shape[:1]})
    shapes |= {} if errors is None else {"errors": errors.shape}
    if targets.ndim != 1 or len(set(shapes.values())) > 1:
        raise ShapeError(expected("targets", "shape (rows,), and as many rows in design and errors", shapes))
    arrays = [array for array in (targets, design, errors) if array is not None]
    if len(targets) == 0 or not all(bool(torch.isfinite(array).all()) for array in arrays):
        raise DataError(expected("targets, design, errors", "finite numbers", "NaN, infinity or none"))
    if not bool((targets != 0).any()):
        raise DataError(expected("targets", "numbers other than zero", "zeros"))
    if draws < 100:
        raise DataError(expected("draws", "at least 100", draws))
