"""Expectations other than the energy: dipole, densities, forces on nuclei; and how strange a walker is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.posterior import Draws
from bayesmol.posterior.estimate import Estimate
from bayesmol.wavefunctions.batches import batched
from bayesmol.wavefunctions.local_energy import System, TrialFunction

__all__ = ["dipole", "features", "nuclear_forces", "pair_distances", "radial_density"]


def dipole(draws: Draws, molecule: System) -> Estimate:
    r"""Dipole moment :math:`\sum_a Z_a R_a - \langle \sum_i r_i \rangle` in e·bohr, its error with autocorrelation.

    Of an ion it depends on the origin.

    Parameters
    ----------
    draws
        Configurations in bohr, axes (walker, draw, electron, 3).

    Raises
    ------
    ShapeError
        If ``draws`` are no configurations of this molecule.
    """
    _check(draws, molecule.up + molecule.down)
    nuclei = torch.as_tensor(np.asarray(molecule.charges) @ np.asarray(molecule.positions)).to(draws.values)
    return draws.expectation(lambda r: nuclei - r.sum(1), "e·bohr")


def radial_density(draws: Draws, edges: Float[Tensor, " edges"], centre: Float[Tensor, " 3"] | None = None) -> Estimate:
    r"""Density of electrons, averaged over the shells between ``edges`` about ``centre``, in bohr⁻³.

    .. math:: \rho_k = \left\langle \#\{i : e_k \le |r_i - c| < e_{k+1}\} \right\rangle
        \Big/ \tfrac{4\pi}{3} (e_{k+1}^3 - e_k^3)

    The standard error of a shell without a single visit is infinite.

    Parameters
    ----------
    draws
        Configurations in bohr, axes (walker, draw, electron, 3).
    edges
        Increasing radii in bohr.
    centre
        In bohr; the origin by default.

    Raises
    ------
    ShapeError, DataError
        If ``draws`` are no configurations, or the edges do not increase from 0 or above.
    """
    _check(draws)
    place = 0.0 if centre is None else torch.as_tensor(centre).to(draws.values)
    volumes = 4 / 3 * torch.pi * _checked_edges(edges, draws).pow(3).diff()
    return _histogram(draws, lambda r: torch.linalg.vector_norm(r - place, dim=-1), edges, volumes, "bohr⁻³")


def pair_distances(draws: Draws, edges: Float[Tensor, " edges"]) -> Estimate:
    r"""Distribution of the distances of electron pairs, in bohr⁻¹; its integral is the number of pairs.

    .. math:: p_k = \left\langle \#\{i < j : e_k \le r_{ij} < e_{k+1}\} \right\rangle \big/ (e_{k+1} - e_k)

    The standard error of a bin without a single visit is infinite.

    Raises
    ------
    ShapeError, DataError
        If ``draws`` are no configurations, or the edges do not increase from 0 or above.
    """
    _check(draws)
    first, second = torch.triu_indices(draws.values.shape[-2], draws.values.shape[-2], 1)
    widths = _checked_edges(edges, draws).diff()

    def distances(r: Tensor) -> Tensor:
        return torch.linalg.vector_norm(r[:, first] - r[:, second], dim=-1)

    return _histogram(draws, distances, edges, widths, "bohr⁻¹")


def nuclear_forces(
    log_psi: TrialFunction, molecule: System, *, chunk: int | None = None
) -> Callable[[Any, Float[Array, "walkers electrons 3"]], Float[Array, "walkers nuclei 3"]]:
    r"""Function of parameters and walkers: Hellmann–Feynman forces on the nuclei in Ha/bohr, of finite variance.

    The bare estimator :math:`F_a = Z_a \sum_i q_{ia} / r_{ia}^2 + F_a^{nn}`, :math:`q = (r_i - R_a) / r_{ia}`, has
    infinite variance. :math:`-\frac12 \nabla^2 Q - \nabla Q \cdot \nabla \ln|\psi|` has the mean zero for every ψ;
    with :math:`Q = -Z_a \sum_i q_{ia}` it takes the singular term away, and what remains is

    .. math:: \tilde F_a = F_a^{nn} + Z_a \sum_i \frac{v_i - q_{ia} (q_{ia} \cdot v_i)}{r_{ia}},
        \quad v_i = \nabla_i \ln|\psi|.

    Its mean is that of the bare estimator: the force of this electron density on the nuclei, which is
    :math:`-dE/dR_a` for an exact ψ. For another one it differs from the slope of the energy by an error of first order
    in that of ψ, which no error bar covers.

    Parameters
    ----------
    chunk
        Walkers taken at once.

    References
    ----------
    Assaraf, Caffarel, J. Chem. Phys. 119, 10536 (2003) (the minimal zero-variance estimator).
    """
    charges, places = np.asarray(molecule.charges, float), np.asarray(molecule.positions)
    gradient = jax.grad(lambda r, parameters: log_psi(parameters, r).log)

    def single(parameters: Any, r: Array) -> Array:
        drift = gradient(r, parameters)[:, None]
        apart = r[:, None] - places
        away = jnp.linalg.norm(apart, axis=-1, keepdims=True)
        unit = apart / away
        across = (drift - unit * jnp.sum(unit * drift, -1, keepdims=True)) / away
        return charges[:, None] * jnp.sum(across, 0) + _between_nuclei(charges, places)

    return batched(single, chunk=chunk)


def features(
    molecule: System,
    r: Float[Array | np.ndarray, "walkers electrons 3"],
    local_energy: Float[Array | np.ndarray, " walkers"],
    drift: Float[Array | np.ndarray, "walkers electrons 3"],
    *,
    energy: float,
    spread: float,
) -> Float[Tensor, "walkers features"]:
    r"""What tells a strange walker from a usual one, the same after an exchange of equal electrons.

    Columns: :math:`\ln(1 + |E_L - E| / s)`; :math:`\ln(1 + |\nabla \ln \psi|)`, whose argument is the inverse of the
    distance to a node where one is near; and for each nucleus the sorted distances of the up, then of the down
    electrons, in bohr.

    Parameters
    ----------
    local_energy, drift
        In Ha, and the gradient of ln|ψ| in 1/bohr.
    energy, spread
        Mean and standard deviation of local energies in Ha, of a well-sampled run: the same for all walkers that are
        compared.

    Raises
    ------
    DataError
        If ``spread`` is not positive.
    """
    if not spread > 0:
        raise DataError(expected("spread", "a positive number of Ha", spread))
    r, local_energy, drift = (np.asarray(part, float) for part in (r, local_energy, drift))
    away = np.linalg.norm(r[:, :, None] - np.asarray(molecule.positions), axis=-1)
    ordered = np.concatenate([np.sort(away[:, : molecule.up], 1), np.sort(away[:, molecule.up :], 1)], 1)
    steep = np.linalg.norm(drift.reshape(len(r), -1), axis=1)
    columns = [np.log1p(np.abs(local_energy - energy) / spread), np.log1p(steep)]
    return torch.from_numpy(np.column_stack([*columns, ordered.swapaxes(1, 2).reshape(len(r), -1)]))


def _between_nuclei(charges: np.ndarray, places: np.ndarray) -> np.ndarray:
    apart = places[:, None] - places
    away = np.linalg.norm(apart, axis=-1) + np.diag(np.full(len(places), np.inf))
    return np.sum((charges[:, None] * charges / away**3)[..., None] * apart, 1)


def _histogram(
    draws: Draws, distances: Callable[[Tensor], Tensor], edges: Tensor, sizes: Tensor, unit: str
) -> Estimate:
    bounds = edges.to(draws.values)

    def counts(r: Tensor) -> Tensor:
        found = distances(r)
        return (
            torch.stack([((found >= low) & (found < high)).sum(1) for low, high in pairwise(bounds)], 1).to(r) / sizes
        )

    estimate = draws.expectation(counts, unit)
    unseen = estimate.value == 0
    return replace(estimate, standard_error=estimate.standard_error.masked_fill(unseen, torch.inf))


def _check(draws: Draws, electrons: int | None = None) -> None:
    shape = tuple(draws.shape)
    if len(shape) != 2 or shape[1] != 3 or (electrons is not None and shape[0] != electrons):
        raise ShapeError(expected("draws", f"configurations ({electrons or 'electrons'}, 3) in bohr", shape))


def _checked_edges(edges: Tensor, draws: Draws) -> Tensor:
    edges = torch.as_tensor(edges).to(draws.values)
    if edges.ndim != 1 or len(edges) < 2 or float(edges[0]) < 0 or not bool((edges.diff() > 0).all()):
        raise DataError(expected("edges", "two or more increasing distances from 0 or above", edges.tolist()))
    return edges
