"""One run of training: the trained network, its data, and what a posterior about it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.potentials.network import design
from bayesmol.potentials.neural_data import Batch
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.potentials.training import Training

_TOGETHER = 16  # structures whose rows are made at once


@dataclass(frozen=True, eq=False)
class Run:
    """A trained network with its data.

    Attributes
    ----------
    energy
        The network with the weights that validated best.
    data, validation
        Prepared structures.
    labelled, held_out
        Training and validation structures with their labels, in float64.
    schedule, seed
        Of the training.
    again
        Trains another network from another seed on the same data.
    """

    energy: NeuralEnergy
    data: Batch
    validation: Batch
    labelled: Labelled
    held_out: Labelled
    schedule: Training
    seed: int
    again: Callable[[int], NeuralEnergy]

    @cached_property
    def noise(self) -> tuple[float, float]:
        """Variance of the energy of an atom (eV²; it grows with the atoms) and of a force ((eV/Å)²), by the validation
        residuals."""
        energy, force = [1e-12], [1e-12]
        for part in torch.arange(len(self.validation), device=self.validation.counts.device).split(_TOGETHER):
            batch = self.validation[part]
            found = self.energy(batch.environment)
            wrong = (found.energy[:, 0].detach() - batch.energies).square() / batch.counts * batch.has_energies
            known = batch.has_forces[batch.environment.structure]
            energy.append(float(wrong.sum()))
            force.append(float(((found.given("forces").reshape(-1, 3) - batch.forces).square().mean(1) * known).sum()))
        atoms = (self.validation.has_forces * self.validation.counts).sum()
        counts = (float(self.validation.has_energies.sum()), float(atoms))
        return sum(energy) / max(counts[0], 1.0), sum(force) / max(counts[1], 1.0)

    def rows(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows of the last layer (features, then constants of the elements) in eV and eV/Å, labels above the baseline
        and noise variances of the training labels, some structures at a time, in float64."""
        network, scale = self.energy.network, float(self.energy.scale)
        for part in torch.arange(len(self.data), device=self.data.counts.device).split(_TOGETHER):
            batch = self.data[part]
            found = design(network, batch.environment)
            counts = found.energy.new_zeros(len(batch), len(network.species))
            index = batch.environment.structure, batch.environment.species
            counts.index_put_(index, counts.new_ones(len(index[0])), accumulate=True)
            forces = torch.nn.functional.pad(found.given("forces"), (0, len(network.species)))
            known = batch.has_energies.bool(), batch.has_forces[index[0]].bool().repeat_interleave(3)
            rows = torch.cat([torch.cat([found.energy, counts], 1)[known[0]], forces[known[1]]])
            labels = torch.cat([batch.energies[known[0]], batch.forces.flatten()[known[1]]])
            force_noise = torch.full_like(batch.forces.flatten()[known[1]], self.noise[1])
            noise = torch.cat([self.noise[0] * batch.counts[known[0]].to(labels), force_noise])
            yield scale * rows.double(), labels.double(), noise.double()

    @cached_property
    def normal_equations(self) -> tuple[Tensor, Tensor]:
        """Gram matrix of the rows and their product with the labels, both over the noise."""
        size = len(self.energy.head) + len(self.energy.shift)
        zeros = torch.zeros(size, dtype=torch.float64, device=self.energy.head.device)
        gram, moment = torch.diag(zeros), zeros
        for rows, labels, noise in self.rows():
            scaled = rows / noise[:, None]
            gram = gram + scaled.T @ rows
            moment = moment + scaled.T @ labels
        return gram, moment
