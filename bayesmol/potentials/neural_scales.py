"""How wide the error bars of a network are: scales of its spread and noise, from structures it was not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.potentials.neural_member import Member, moments
from bayesmol.representation.radial import species_index

_FACTORS = 1e4  # about the first guess, in which spread and noise each explain half of the residuals
_NOISES = 50.0  # features cannot express every label: a hundredth of the residuals at least is noise


@dataclass(frozen=True, eq=False)
class Scales:
    """Factors of the epistemic variances and variances of the noise.

    Attributes
    ----------
    energy, force
        Factors of the epistemic variance of energies (and stresses), and of forces.
    energy_noise
        Variance of the energy label for each atom, in eV²; virials have the same.
    force_noise
        Variance of a force label on an atom of each element, in (eV/Å)².
    """

    energy: float
    force: float
    energy_noise: float
    force_noise: Float[Tensor, " species"]


def fitted_scales(members: tuple[Member, ...], data: Labelled, *, size: int = 64) -> Scales:
    r"""Scales that make the labels of ``data`` most likely.

    Residuals are taken for normal with variance :math:`a\,\sigma^2 + s^2`: the epistemic variance by a factor, and a
    noise of the element for forces, of the number of atoms for energies.

    Raises
    ------
    DataError
        If there are neither energies nor forces.
    """
    species = members[0].energy.network.species
    kinds = species_index(data.structures.species, species)
    parts = [data[torch.arange(len(data))[start : start + size]] for start in range(0, len(data), size)]
    found = [moments(members, part.structures, forces=bool(data.has_forces.any())) for part in parts]
    energy, noise, force, spread = 1.0, 0.0, 1.0, data.structures.positions.new_zeros(len(species))
    if data.energies is None and not bool(data.has_forces.any()):
        raise DataError(expected("validation", "energies or forces", "neither"))
    if data.energies is not None:
        mean, variance = (torch.cat([getattr(part["energy"], name) for part in found]) for name in ("mean", "variance"))
        counts = data.structures.counts.to(mean)
        given = 0 if data.energy_errors is None else data.energy_errors.square()
        fitted = _likeliest(data.energies - mean, variance, counts[:, None], given)
        energy, noise = fitted[0], float(fitted[1][0])
    if bool(data.has_forces.any()):
        mean, variance = (torch.cat([getattr(part["forces"], name) for part in found]) for name in ("mean", "variance"))
        known = data.has_forces[data.structures.structure_index].repeat_interleave(3)
        groups = torch.nn.functional.one_hot(kinds, len(species)).repeat_interleave(3, 0).to(mean)
        residual = (data.given("forces").flatten() - mean)[known]
        given = 0 if data.force_errors is None else data.force_errors.flatten().square()[known]
        force, spread = _likeliest(residual, variance[known], groups[known], given)
    return Scales(energy, force, noise, spread)


def _likeliest(
    residual: Float[Tensor, " rows"],
    variance: Float[Tensor, " rows"],
    groups: Float[Tensor, "rows groups"],
    given: Tensor | float,
) -> tuple[float, Tensor]:
    """Factor of the variance and noise variance of each group, by L-BFGS on their logarithms."""
    start = residual.square().mean().clamp_min(1e-16)
    factor = 0.5 * start / variance.mean().clamp_min(1e-16)
    logs = torch.cat([factor[None], (0.5 * start / groups.sum(1).mean()).expand(groups.shape[1])]).log()
    logs = logs.detach().clone().requires_grad_(True)
    reach = torch.cat([logs.new_full((1,), _FACTORS), logs.new_full((groups.shape[1],), _NOISES)]).log().detach()
    bounds = logs.detach() - reach, logs.detach() + reach
    optimiser = torch.optim.LBFGS([logs], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        values = logs.clamp(*bounds).exp()
        total = values[0] * variance + groups @ values[1:] + given
        loss = 0.5 * (total.log() + residual.square() / total).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    values = logs.detach().clamp(*bounds).exp()
    return float(values[0]), values[1:]
