"""An energy made of a network, one or several last layers, and constants of the elements."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.potentials.guards import Guards, guards
from bayesmol.potentials.network import Network, contracted
from bayesmol.potentials.repulsion import repulsion
from bayesmol.representation.ace import Environments
from bayesmol.representation.design import Design


class NeuralEnergy(torch.nn.Module):
    r"""Sum of atomic energies above a baseline.

    .. math:: E = E_\mathrm{repulsion} + \sum_i \left(\varepsilon_{z_i} + s\, (\phi_i \cdot w + b_{z_i})\right)

    Attributes
    ----------
    network
        Features :math:`\phi`.
    head, shift
        Last layers w in columns, (width, heads), and constants b of the elements, (species, heads).
    references, scale
        Energies :math:`\varepsilon` of single atoms and the unit s of the network's energies, in eV.
    """

    references: Tensor
    scale: Tensor

    def __init__(self, network: Network, references: Tensor, scale: float, heads: int, source: torch.Generator) -> None:
        super().__init__()
        like = next(network.parameters())
        self.network = network
        normal = torch.randn(network.width, heads, generator=source, dtype=torch.float64) / network.width**0.5
        self.head = torch.nn.Parameter(normal.to(like))
        self.shift = torch.nn.Parameter(like.new_zeros(len(references), heads))
        self.register_buffer("references", references.double())
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))

    def guards(self, structures: Structures) -> Guards:
        """Limits of what these training structures tell, see :func:`bayesmol.potentials.guards.guards`."""
        return guards(structures, self.network.species, self.network.basis.cutoff)

    def forward(
        self, environment: Environments, *, forces: bool = True, virial: bool = False, graph: bool = False
    ) -> Design:
        """Energies (eV), forces (eV/Å) and virials (eV) above the baseline, one column a head."""
        found = contracted(self.network, environment, self.head, forces=forces, virial=virial, graph=graph)
        scale, shift = self.scale.to(found.energy), self.shift if graph else self.shift.detach()
        atomic = scale * (found.atomic + shift.index_select(0, environment.species))
        energy = atomic.new_zeros(len(found.energy), atomic.shape[1]).index_add(0, environment.structure, atomic)
        rows, strained = (None if part is None else scale * part for part in (found.forces, found.virial))
        return Design(energy, rows, strained, atomic, environment.species)

    def baseline(self, structures: Structures) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, forces and virials of the repulsion, and the energies of single atoms."""
        prior = repulsion(structures)
        kinds = self.network.kinds(structures)
        atoms = self.references.to(structures.positions)[kinds]
        energies = prior.energies.index_add(0, structures.structure_index, atoms)
        return energies, prior.forces, prior.virials


def references_of(network: Network, data: Labelled) -> Float[Tensor, " species"]:
    """Least-squares energy of an atom of each element, in eV; zero without energies."""
    counts = network.composition(data.structures)
    return counts.new_zeros(counts.shape[1]) if data.energies is None else torch.linalg.pinv(counts) @ data.energies


def force_scale(data: Labelled) -> float:
    """Root mean square force label in eV/Å, or, without forces, deviation of the energy of an atom in eV."""
    if bool(data.has_forces.any()):
        rows = data.has_forces[data.structures.structure_index]
        found = float(data.given("forces")[rows].square().mean().sqrt())
    else:
        found = float((data.given("energies") / data.structures.counts).std(correction=0))
    return max(found, 1e-6)
