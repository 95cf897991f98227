"""Losses of energies, forces and virials."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bayesmol.potentials.neural_data import Batch
from bayesmol.representation.design import Design

Loss = Callable[[Design, Batch], Tensor]
_SMALL = 1e-6  # eV² and (eV/Å)²: below a thousandth of these units errors count as squares


def error_loss(energy_weight: float) -> Loss:
    r"""Mean length of the error of the force on an atom, and mean error of the energy of an atom.

    Lengths are :math:`\sqrt{|\Delta|^2 + \delta^2}` with :math:`\delta` = 1 meV(/Å): a rotation does not change them,
    and single bad frames do not decide.
    """

    def loss(found: Design, batch: Batch) -> Tensor:
        total = found.energy.new_zeros(())
        if found.forces is not None:
            wrong = found.forces.reshape(-1, 3, found.forces.shape[-1]) - batch.forces[..., None]
            known = batch.has_forces[batch.environment.structure][:, None]
            total = total + _mean((wrong.square().sum(1) + _SMALL).sqrt(), known)
        energy = (found.energy - batch.energies[:, None]) / batch.counts[:, None]
        total = total + energy_weight * _mean((energy.square() + _SMALL).sqrt(), batch.has_energies[:, None])
        if found.virial is not None:
            strain = found.virial.reshape(len(batch), 9, -1) - batch.virials.reshape(len(batch), 9, 1)
            size = (strain.square().sum(1) + _SMALL).sqrt() / batch.counts[:, None]
            total = total + energy_weight * _mean(size, batch.has_virials[:, None])
        return total

    return loss


def probability_loss(score: str, energy_noise: float, force_noise: float) -> Loss:
    r"""Proper score of the normal distributions with the mean and the variance of several heads.

    Parameters
    ----------
    score
        ``"nll"``, the negative log-likelihood, or ``"crps"``, the continuous ranked probability score in units of the
        noise.
    energy_noise, force_noise
        Variance of the energy of an atom and of a force; a hundredth of it is added to the variance of the heads, so
        that a head cannot claim to be certain.

    References
    ----------
    Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359 (2007), equations 20-21.
    """
    scored = {"nll": _log_score, "crps": _ranked_score}[score]

    def loss(found: Design, batch: Batch) -> Tensor:
        energy = scored(found.energy, batch.energies, 0.01 * energy_noise * batch.counts, energy_noise * batch.counts)
        total = (energy * batch.has_energies).sum() / batch.has_energies.sum().clamp_min(1.0)
        if found.forces is None:
            return total
        floor = torch.full_like(batch.forces.flatten(), 0.01 * force_noise)
        force = scored(found.forces, batch.forces.flatten(), floor, 100 * floor).reshape(-1, 3).mean(1)
        known = batch.has_forces[batch.environment.structure]
        return total / 3 + (force * known).sum() / known.sum().clamp_min(1.0)

    return loss


def _log_score(heads: Tensor, labels: Tensor, floor: Tensor, unit: Tensor) -> Tensor:
    variance = heads.var(1) + floor
    return 0.5 * ((variance / unit).log() + (heads.mean(1) - labels).square() / variance)


def _ranked_score(heads: Tensor, labels: Tensor, floor: Tensor, unit: Tensor) -> Tensor:
    deviation = (heads.var(1) + floor).sqrt()
    z = (labels - heads.mean(1)) / deviation
    density = torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)
    score = z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    return score * deviation / unit.sqrt()


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return (values * known).sum() / (known.sum() * values.shape[1]).clamp_min(1.0)
