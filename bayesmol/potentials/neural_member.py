"""One network with a Gaussian last layer, and what several of them say together."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.potentials.network import contracted, design
from bayesmol.potentials.neural_energy import NeuralEnergy
from bayesmol.representation.ace import Environments
from bayesmol.representation.design import Design


@dataclass(frozen=True, eq=False)
class Member:
    r"""A network whose last layer is :math:`\mathcal N(m, G G^T)`: features first, then constants of the elements.

    Attributes
    ----------
    energy
        The network; its only head and its shift are the mean m.
    root
        G, (width + species, rank); of rank 0 for a network without uncertainty.
    """

    energy: NeuralEnergy
    root: Float[Tensor, "weights rank"]

    @property
    def mean(self) -> Float[Tensor, " weights"]:
        """Mean of the last layer in float64."""
        return torch.cat([self.energy.head, self.energy.shift])[:, 0].detach().double()

    def drawn(self, source: torch.Generator) -> Member:
        """A network with a last layer drawn from its distribution, and no uncertainty."""
        normal = torch.randn(self.root.shape[1], generator=source, dtype=torch.float64).to(self.root)
        return self.with_mean(self.mean + self.root @ normal, self.root[:, :0])

    def with_mean(self, mean: Float[Tensor, " weights"], root: Float[Tensor, "weights rank"]) -> Member:
        """The same network with another last layer."""
        energy = copy.deepcopy(self.energy)
        head, shift = mean.to(energy.head).split([energy.network.width, len(energy.shift)])
        with torch.no_grad():
            energy.head.copy_(head[:, None])
            energy.shift.copy_(shift[:, None])
        return Member(energy, root)

    def columns(self, environment: Environments, *, forces: bool = True, virial: bool = False) -> Design:
        """Energies, forces and virials of the mean (first column) and along each column of the root."""
        own = self.energy
        heads = torch.cat([self.mean[:, None], self.root], 1).to(own.head)
        few = heads.shape[1] < own.network.width
        if few:
            found = contracted(own.network, environment, heads[: own.network.width], forces=forces, virial=virial)
        else:
            found = _times(design(own.network, environment, forces=forces, virial=virial), heads[: own.network.width])
        return _completed(found, heads[own.network.width :], float(own.scale), environment)


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and a factor W of the covariance W Wᵀ of some numbers, (rows,) and (rows, rank)."""

    mean: Float[Tensor, " rows"]
    factor: Float[Tensor, "rows rank"]

    @property
    def variance(self) -> Float[Tensor, " rows"]:
        """Variance of each number."""
        return self.factor.square().sum(1)


def moments(
    members: tuple[Member, ...], structures: Structures, *, forces: bool = True, virial: bool = False
) -> dict[str, Moments]:
    """Energies (structures), atomic energies, forces (3 atoms) and virials (9 structures) of a mixture of members.

    The baseline is in the mean. Members count alike; the covariance is the mean of theirs and the sample covariance of
    their means.
    """
    environment = members[0].energy.network.environments(structures)
    found = [member.columns(environment, forces=forces, virial=virial) for member in members]
    energies, force, strain = members[0].energy.baseline(structures)
    kinds = environment.species
    base = {"energy": energies, "atomic": members[0].energy.references.to(energies)[kinds]}
    base |= {"forces": force.flatten()} if forces else {}
    base |= {"virial": strain.flatten()} if virial else {}
    return {name: _mixed([getattr(part, name).double() for part in found], base[name]) for name in base}


def _mixed(parts: list[Tensor], base: Tensor) -> Moments:
    means = torch.stack([part[:, 0] for part in parts], 1)
    mean = means.mean(1)
    factor = [part[:, 1:] / len(parts) ** 0.5 for part in parts]
    if len(parts) > 1:
        factor.append((means - mean[:, None]) / (len(parts) - 1) ** 0.5)
    return Moments(base + mean, torch.cat(factor, 1))


def _times(rows: Design, heads: Tensor) -> Design:
    forces, virial = (None if part is None else part @ heads for part in (rows.forces, rows.virial))
    return Design(rows.energy @ heads, forces, virial, rows.atomic @ heads, rows.species)


def _completed(found: Design, shift: Tensor, scale: float, environment: Environments) -> Design:
    """Columns in eV with the constants of the elements."""
    atomic = scale * (found.atomic + shift[environment.species])
    energy = atomic.new_zeros(len(found.energy), atomic.shape[1]).index_add(0, environment.structure, atomic)
    forces, virial = (None if part is None else scale * part for part in (found.forces, found.virial))
    return Design(energy, forces, virial, atomic, found.species)
