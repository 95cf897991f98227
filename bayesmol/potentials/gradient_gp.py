"""Exact Gaussian process of the energy and the forces of one molecule: its specification and how it is fitted."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from bayesmol.data import Labelled, Structures
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.potentials.gradient_frames import Frames
from bayesmol.potentials.gradient_kernel import GradientKernel
from bayesmol.potentials.gradient_learning import learned_scales
from bayesmol.potentials.gradient_posterior import GradientGPPotential
from bayesmol.representation.distances import pair_permutations
from bayesmol.representation.symmetry import Topology

__all__ = ["GradientGP"]


@dataclass(frozen=True, eq=False)
class GradientGP:
    r"""Gaussian process with a Matérn-5/2 kernel on inverse distances, trained on energies and forces of one molecule.

    .. math::

        E \sim c_0 + \mathcal{GP}\Big(0, \frac{s^2}{|G|} \sum_{\pi \in G} k_{5/2}(x, P_\pi x')\Big), \quad
        F = -\nabla E, \quad x_{ij} = 1 / |r_i - r_j|

    With a fixed length scale and forces alone its mean is the sGDML force field; it adds the energies, the whole
    covariance, leave-one-structure-out in closed form, and length scales for each kind of pair.

    Parameters
    ----------
    length_scale
        In 1/Å, one for all pairs (10 corresponds to sGDML's ``sig=10``); or ``"learned"``: one for each kind of pair
        (its species, and one, two, three or more bonds in between).
    energy_noise, force_noise
        Standard deviation of the labels in eV and eV/Å, added to their own standard errors; learned where ``None``.
    permutations
        Equivalent orders of the atoms, a group; ``None``: the feasible ones, found from the training structures.
    learning_rows
        Energies and internal forces of the random subset of structures from which amplitude, noises and length scales
        are learned; at least ten structures are used.
    exact_rows
        Number of energies and internal forces up to which the equations are solved by Cholesky, and above which by
        preconditioned conjugate gradients.
    preconditioner_rows
        Number of columns of the covariance in the preconditioner.

    References
    ----------
    Chmiela et al., Sci. Adv. 3, e1603015 (2017); Chmiela et al., Nat. Commun. 9, 3887 (2018).
    """

    length_scale: float | Literal["learned"] = 10.0
    energy_noise: float | None = None
    force_noise: float | None = None
    permutations: Int[Tensor, "group atoms"] | None = None
    learning_rows: int = 1000
    exact_rows: int = 15_000
    preconditioner_rows: int = 2000

    def __post_init__(self) -> None:
        if isinstance(self.length_scale, str) and self.length_scale != "learned":
            raise DataError(expected("length_scale", "a number in 1/Å or 'learned'", repr(self.length_scale)))
        names = ("energy_noise", "force_noise", "learning_rows", "exact_rows", "preconditioner_rows")
        values = {name: getattr(self, name) for name in names}
        values |= {} if self.length_scale == "learned" else {"length_scale": self.length_scale}
        for name, value in values.items():
            if value is not None and not 0 < value < float("inf"):
                raise DataError(expected(name, "a positive finite number", value))

    def fit(self, labelled: Labelled, *, seed: int | torch.Generator = 0) -> GradientGPPotential:
        """Potential conditioned on ``labelled``; ``seed`` chooses the subset from which the scales are learned.

        Raises
        ------
        DataError
            If the structures are not one molecule of two or more atoms without cell, or there are fewer than two.
        ConvergenceError
            If the equations are singular, or conjugate gradients do not converge.
        """
        structures = _one_molecule(labelled)
        species = structures.species.view(len(structures), -1)
        positions = structures.positions.double().view(*species.shape, 3)
        first = Topology.of(positions[:1], species[0])
        unlike = (species != species[0]).any(1)
        order = torch.arange(species.shape[1], device=species.device).repeat(len(species), 1)
        order[unlike] = first.orders(positions[unlike], species[unlike])
        topology = Topology.of(positions.gather(1, order[..., None].expand(-1, -1, 3)), species[0])
        group = self._group(topology)
        kinds = topology.kinds() if self.length_scale == "learned" else torch.zeros_like(topology.kinds())
        kinds = kinds[pair_permutations(group)].sort(dim=0).values.unique(dim=1, return_inverse=True)[1]
        return self._conditioned(labelled, topology, order, group, kinds, seed)

    def _conditioned(
        self,
        labelled: Labelled,
        topology: Topology,
        order: Tensor,
        group: Tensor,
        kinds: Tensor,
        seed: int | torch.Generator,
    ) -> GradientGPPotential:
        start = 10.0 if self.length_scale == "learned" else float(self.length_scale)
        lengths = torch.full((int(kinds.max()) + 1,), start, dtype=torch.float64, device=kinds.device)
        kernel = GradientKernel(pair_permutations(group), kinds)
        kernel.lengthscale = lengths
        frames = Frames.of(labelled, order)
        structures, outputs = frames.observed.shape
        chosen = self._subset(structures, outputs, seed).to(kinds.device)
        noises: dict[str, Any] = {"energy_noise": self.energy_noise, "force_noise": self.force_noise}
        scales = learned_scales(kernel, frames[chosen], length_scales=self.length_scale == "learned", **noises)
        potential = GradientGPPotential(
            training=labelled,
            order=order,
            permutations=group,
            kinds=kinds,
            length_scales=kernel.lengthscale.detach().flatten(),
            amplitude=float(scales.amplitude),
            noise_energy=float(scales.energy_noise.sqrt()),
            noise_force=float(scales.force_noise.sqrt()),
            exact_rows=self.exact_rows,
            preconditioner_rows=self.preconditioner_rows,
        )
        return potential.solved() if self._given(labelled) else potential.calibrated()

    def _given(self, labelled: Labelled) -> bool:
        """Whether some of the noise is known in advance, so that variances cannot be scaled together."""
        known = (self.energy_noise, self.force_noise, labelled.energy_errors, labelled.force_errors)
        return any(part is not None for part in known)

    def _group(self, topology: Topology) -> Int[Tensor, "group atoms"]:
        if self.permutations is None:
            return topology.permutations()
        group = torch.as_tensor(self.permutations, device=topology.species.device)
        atoms = torch.arange(len(topology.species), device=group.device)
        if group.ndim != 2 or group.shape[1] != len(atoms) or not bool((group.sort(1).values == atoms).all()):
            raise DataError(expected("permutations", f"orders of {len(atoms)} atoms in rows", tuple(group.shape)))
        if not bool((topology.species[group] == topology.species).all()):
            raise DataError(expected("permutations", "exchanges of like atoms", "an exchange of unlike ones"))
        members = set(map(tuple, group.tolist()))
        if len(members) < len(group) or any(tuple(p[q].tolist()) not in members for p in group for q in group):
            raise DataError(expected("permutations", "a closed group", f"{len(group)} rows", "add the products"))
        return group

    def _subset(self, structures: int, outputs: int, seed: int | torch.Generator) -> Tensor:
        if structures < 2:
            raise DataError(expected("labelled", "at least two structures", structures))
        size = min(structures, max(10, self.learning_rows // outputs))
        return torch.randperm(structures, generator=generator(seed))[:size]


def _one_molecule(labelled: Labelled) -> Structures:
    structures = labelled.structures
    if bool(structures.pbc.any()):
        raise DataError(expected("labelled", "molecules without periodic directions", "a periodic cell"))
    sizes = structures.counts.unique().tolist()
    if len(sizes) > 1 or sizes[0] < 2:
        raise DataError(expected("labelled", "one molecule of at least two atoms", f"structures of {sizes} atoms"))
    species = structures.species.view(len(structures), -1)
    if not bool((species.sort(1).values == species[0].sort().values).all()):
        raise DataError(expected("labelled", "structures of one composition", "several"))
    if labelled.energies is None and not bool(labelled.has_forces.any()):
        raise DataError(expected("labelled", "energies or forces", "neither"))
    return structures
