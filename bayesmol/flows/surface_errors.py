"""Error bars of expectations on a learned surface: what sampling leaves open, and what the potential does not know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.flows.density import BoltzmannDensity, Surfaces
from bayesmol.posterior.draws import Draws
from bayesmol.posterior.estimate import Estimate, kish

__all__ = ["SurfaceError", "surface_error"]

_JUDGED = 32  # surfaces over which the sampling error is averaged; it hardly differs between them


@dataclass(frozen=True, eq=False)
class SurfaceError:
    r"""An expectation whose error bar has two shares, :math:`\sigma^2 = \sigma_s^2 + \sigma_e^2`.

    Attributes
    ----------
    total
        Mean over the surfaces, with the total standard error: infinite if the draws do not reach a surface.
    sampling
        Standard error :math:`\sigma_s` of a fixed surface, root mean square over the surfaces.
    epistemic
        Standard deviation :math:`\sigma_e` over the surfaces.
    expectations
        Of each surface: draws from the posterior of the expectation, together with their sampling error.
    effective_sample_sizes
        Of the draws, reweighted to each surface.
    verdict
        What the error bar holds, or why there is none.
    """

    total: Estimate
    sampling: Float[Tensor, "*event"]
    epistemic: Float[Tensor, "*event"]
    expectations: Float[Tensor, " surfaces *event"]
    effective_sample_sizes: Float[Tensor, " surfaces"]
    verdict: str


def surface_error(
    density: BoltzmannDensity,
    draws: Draws,
    observable: Callable[[Tensor], Tensor],
    *,
    seed: int | torch.Generator,
    unit: str = "",
    surfaces: int = 200,
    least: float = 100.0,
) -> SurfaceError:
    r"""Expectation under a learned potential with the error of sampling and of the potential.

    Each surface :math:`E_k` from the posterior reweights the same draws,

    .. math:: \langle O \rangle_k = \frac{\sum_i w_i e^{-(E_k(x_i) - E(x_i)) / k_B T}\, O(x_i)}
        {\sum_i w_i e^{-(E_k(x_i) - E(x_i)) / k_B T}}, \qquad
        \mathrm{Var} = \underbrace{\mathbb{E}_k\, \sigma_{s,k}^2}_{\text{sampling}}
        + \underbrace{\mathrm{Var}_k\, \langle O \rangle_k}_{\text{epistemic}}

    For a small posterior variance the second is :math:`c^T S c` with
    :math:`c = -\mathrm{Cov}(O, \phi) / k_B T`, linear response in the features :math:`\phi`. The variance over
    surfaces holds a little of the sampling error too, so the total is rather too wide. It is that of the posterior:
    true as far as that is, for the potential's own form, within its domain; and it cannot say anything of rows that
    no draw has reached.

    Parameters
    ----------
    density
        With ``surfaces``, such as :func:`~bayesmol.flows.from_potential` makes.
    draws
        Configurations with the weights that make them draws of ``density``.
    observable
        Takes and returns a batch of configurations in the shape of the draws.
    unit
        Of the observable.
    surfaces
        Number m of surfaces; the epistemic share is itself uncertain by :math:`1 / \sqrt{2 m}`, 5 % of 200.
    least
        Effective sample size that every surface must keep; else the error is infinite, because expectations on a
        surface that the draws do not reach are not known. Draw from a flatter density, or learn more labels.

    Raises
    ------
    DataError
        If the density is no learned one, or there are fewer than 20 surfaces.
    ShapeError
        If draws are no configurations of the density.
    """
    if (learned := density.surfaces) is None:
        raise DataError(expected("density", "one with surfaces", "none", "make it from a learned potential"))
    if surfaces < 20:
        raise DataError(expected("surfaces", "at least 20", surfaces))
    chains, count = draws.values.shape[:2]
    rows = draws.values.reshape(chains * count, -1)
    if rows.shape[1] != density.dimension:
        raise ShapeError(expected("draws", f"rows of {density.dimension} numbers", tuple(draws.values.shape)))
    values = draws.apply(observable, unit)
    base = values.values.new_zeros(chains, count) if draws.log_weights is None else draws.log_weights
    log_weights = base.double().flatten() - _shifts(density, learned, rows, draws, surfaces, seed)
    flat = values.values.flatten(0, 1)
    means = (log_weights.softmax(1).to(flat) @ flat.reshape(len(flat), -1)).reshape(surfaces, *flat.shape[1:])
    found = [
        Draws(values.values, part.unflatten(0, (chains, count)), unit=unit).expectation()
        for part in log_weights[:_JUDGED]
    ]
    errors = torch.stack([one.standard_error for one in found])
    return _combined(means, errors, torch.stack([kish(part) for part in log_weights]), unit, least)


def _shifts(
    density: BoltzmannDensity,
    learned: Surfaces,
    rows: Tensor,
    draws: Draws,
    surfaces: int,
    seed: int | torch.Generator,
) -> Float[Tensor, "surfaces draws"]:
    """Energies of the surfaces less the mean one, by the thermal energy; zero where a draw has no weight anyway."""
    with torch.no_grad():
        mean = density.energy(rows).double()
    used = torch.ones(len(rows), dtype=torch.bool, device=rows.device)
    if draws.log_weights is not None:
        used = torch.isfinite(draws.log_weights.flatten())
    if not bool(torch.isfinite(mean[used]).all()):
        raise DataError(expected("draws", "weights of zero outside the domain of the potential", "positive ones"))
    found = torch.zeros(surfaces, len(rows), dtype=torch.float64, device=rows.device)
    found[:, used] = (learned(rows[used], surfaces, seed) - mean[used]) / density.kt
    return found


def _combined(means: Tensor, errors: Tensor, sizes: Tensor, unit: str, least: float) -> SurfaceError:
    sampling, epistemic = errors.square().mean(0).sqrt(), means.var(0).sqrt()
    worst, lost = float(sizes.min()), int((sizes < least).sum())
    total = (sampling.square() + epistemic.square()).sqrt()
    verdict = f"sampling and epistemic error of {len(means)} surfaces; least effective sample size {worst:.0f}"
    if lost:
        total = torch.full_like(total, torch.inf)
        verdict = f"no error bar: {lost} of {len(means)} surfaces keep fewer than {least:.0f} effective draws"
    size = sizes.mean().to(total).expand(total.shape)
    return SurfaceError(Estimate(means.mean(0), total, size, unit), sampling, epistemic, means, sizes, verdict)
