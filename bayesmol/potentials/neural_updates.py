"""A fitted neural potential changed: after more labels, or moved to another device."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.errors import DataError, expected
from bayesmol.inference.conjugate import posterior_from_rows
from bayesmol.potentials.guards import merged
from bayesmol.potentials.neural_member import Member, moments

if TYPE_CHECKING:
    from bayesmol.potentials.neural_posterior import NetworkPotential


def updated(potential: NetworkPotential, labelled: Labelled) -> NetworkPotential:
    r"""Condition the Gaussian last layer :math:`w = m + G z`, :math:`z \sim \mathcal N(0, 1)`, on more labels.

    Energies and forces have the noise that the potential was fitted with, and one spread of the weights: the wider one
    of the two that its scales give them.
    """
    if len(potential.members) != 1 or not potential.members[0].root.shape[1]:
        got = f"{len(potential.members)} networks, last layer of rank {potential.members[0].root.shape[1]}"
        raise DataError(expected("update", "one network with a Gaussian last layer", got, "fit anew with all labels"))
    data = labelled.to(device=potential.model.references.device, dtype=torch.float64)
    member, scales = potential.members[0], potential.scales
    rows, residuals, noise = _rows(potential, data)
    factor = max(scales.energy, scales.force) ** 0.5
    white = factor * rows
    found = posterior_from_rows(white, residuals, noise)
    spread = found.spread(torch.eye(white.shape[1], dtype=white.dtype, device=white.device))
    mean = member.mean + factor * member.root @ found.mean
    limits = merged(potential.guards, potential.model.guards(data.structures))
    return replace(potential, members=(member.with_mean(mean, member.root @ spread),), guards=limits)


def _rows(potential: NetworkPotential, data: Labelled) -> tuple[Tensor, Tensor, Tensor]:
    """Rows along the columns of the root, residuals and noise variances of all labels."""
    own = moments(potential.members, data.structures, forces=bool(data.has_forces.any()))
    rows, residuals, noise = [], [], []
    if data.energies is not None:
        given = 0.0 if data.energy_errors is None else data.energy_errors.square()
        rows.append(own["energy"].factor)
        residuals.append(data.energies - own["energy"].mean)
        noise.append(potential.scales.energy_noise * data.structures.counts + given)
    if bool(data.has_forces.any()):
        known = data.has_forces[data.structures.structure_index].repeat_interleave(3)
        given = 0.0 if data.force_errors is None else data.force_errors.flatten().square()
        spread = potential.scales.force_noise[potential.model.network.kinds(data.structures)].repeat_interleave(3)
        rows.append(own["forces"].factor[known])
        residuals.append((data.given("forces").flatten() - own["forces"].mean)[known])
        noise.append((spread + given)[known])
    return torch.cat(rows), torch.cat(residuals), torch.cat(noise)


def moved(
    potential: NetworkPotential, device: torch.device | str | None, dtype: torch.dtype | None
) -> NetworkPotential:
    """The same potential elsewhere: linear algebra stays in float64, networks take the type."""
    members = tuple(_moved(member, device, dtype) for member in potential.members)
    scales = replace(potential.scales, force_noise=potential.scales.force_noise.to(device))
    limits = {name: value.to(device) for name, value in potential.guards.items()}
    return replace(potential, members=members, scales=scales, guards=limits)


def _moved(member: Member, device: torch.device | str | None, dtype: torch.dtype | None) -> Member:
    energy = copy.deepcopy(member.energy).to(device=device)
    references, scale = energy.references, energy.scale
    energy = energy.to(dtype=dtype)
    energy.references, energy.scale = references, scale
    return Member(energy, member.root.to(device))
