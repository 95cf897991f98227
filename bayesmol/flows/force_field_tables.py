"""Constants of a force field, arranged for its evaluation in chunks that stay in the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bayesmol.flows.force_field_solvent import Solvation
from bayesmol.flows.force_field_terms import Angles, Bonds, Geometry, Nonbonded, Scratch, Torsions, rows

if TYPE_CHECKING:
    from bayesmol.flows.force_field import ForceField

__all__ = ["Tables"]

# Pairs times configurations in a chunk: half a megabyte an array keeps to the cache; a GPU wants many at once.
_CHUNK, _CHUNK_GPU = 2**17, 2**26


class Tables:
    """Constants of ``field`` on the device and in the type of ``like``."""

    def __init__(self, field: ForceField, like: Tensor) -> None:
        column = lambda values: values.to(like)[..., None]  # noqa: E731
        index = lambda atoms: rows(atoms, len(field)).to(like.device)  # noqa: E731
        pairs, repulsion, attraction, charge = _pairs(field)
        self._pairs = index(pairs.T)
        self._terms: list[Bonds | Angles | Torsions] = []
        if len(field.bonds):
            constants = column(field.bond_lengths), column(field.bond_constants)
            self._terms.append(Bonds(index(field.bonds), *constants))
        if len(field.angles):
            constants = column(field.angle_values), column(field.angle_constants)
            self._terms.append(Angles(index(field.angles), *constants))
        if len(field.torsions):
            quadruples, cosines, sines, constant = _series(field)
            self._terms.append(Torsions(index(quadruples), column(cosines), column(sines), constant))
        self._nonbonded = Nonbonded(column(repulsion), column(attraction), column(charge))
        self._solvation = None
        if field.solvent is not None:
            self._solvation = Solvation(field.solvent, pairs, like)
        limit = _CHUNK if like.device.type == "cpu" else _CHUNK_GPU
        self._size = max(1, limit // max(1, pairs.shape[1], 3 * len(field.torsions)))

    def evaluate(self, x: Tensor, *, gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Energy of each row, and its gradient if it is wanted."""
        return self.energy_and_gradient(x) if gradient else (self._energy(x, None), None)

    def energy_and_gradient(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Energy of each row and its gradient."""
        slopes = torch.empty_like(x)
        return self._energy(x, slopes), slopes

    def _energy(self, x: Tensor, slopes: Tensor | None) -> Tensor:
        """Energy of each row; writes the gradients into ``slopes``."""
        energy, scratch = x.new_empty(len(x)), Scratch(x)
        for first in range(0, len(x), self._size):
            chunk = slice(first, first + self._size)
            part = None if slopes is None else slopes[chunk]
            energy[chunk] = self._chunk(x[chunk], part, scratch)
        return energy

    def _chunk(self, x: Tensor, slopes: Tensor | None, scratch: Scratch) -> Tensor:
        """Energies of some rows; writes their gradient into ``slopes``."""
        place = x.view(len(x), -1, 3).permute(2, 1, 0).reshape(-1, len(x))
        energy = x.new_zeros(len(x))
        gradient = None if slopes is None else torch.zeros_like(place)
        for term in self._terms:
            term.add(place, energy, gradient)
        if self._pairs.shape[1]:
            self._add_pairs(place, energy, gradient, scratch)
        if slopes is not None and gradient is not None:
            slopes.view(len(x), -1, 3).copy_(gradient.view(3, -1, len(x)).permute(2, 1, 0))
        return energy

    def _add_pairs(self, place: Tensor, energy: Tensor, gradient: Tensor | None, scratch: Scratch) -> None:
        geometry = Geometry.of(place, self._pairs, scratch)
        slope = None if gradient is None else torch.zeros_like(geometry.squared)
        self._nonbonded.add(geometry, energy, slope)
        if self._solvation is not None:
            self._solvation.add(geometry, energy, slope, scratch)
        if gradient is not None and slope is not None:
            pull = geometry.difference.mul_(slope).flatten(0, 1)
            gradient.index_add_(0, self._pairs[0], pull).index_add_(0, self._pairs[1], pull.neg_())


def _pairs(field: ForceField) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of atoms, those that interact first, and for these the factors of r⁻¹², r⁻⁶ and r⁻¹."""
    sigma = (field.sigmas[:, None] + field.sigmas) / 2
    epsilon = (field.epsilons[:, None] * field.epsilons).sqrt()
    charge = field.charges[:, None] * field.charges
    for table, own in (
        (sigma, field.exception_sigmas),
        (epsilon, field.exception_epsilons),
        (charge, field.exception_charges),
    ):
        for pair in (field.exceptions, field.exceptions.flip(1)):
            table[pair[:, 0], pair[:, 1]] = own
    pairs = torch.triu_indices(len(field), len(field), 1, device=field.species.device)
    idle = ((epsilon * sigma)[pairs[0], pairs[1]] == 0) & (charge[pairs[0], pairs[1]] == 0)
    active = pairs[:, ~idle]
    sixth, depth = sigma[active[0], active[1]] ** 6, 4 * epsilon[active[0], active[1]]
    # A generalised Born solvent acts between all pairs.
    pairs = active if field.solvent is None else torch.cat([active, pairs[:, idle]], 1)
    return pairs, depth * sixth**2, depth * sixth, field.coulomb * charge[active[0], active[1]]


def _series(field: ForceField) -> tuple[Tensor, Tensor, Tensor, float]:
    """Quadruples, each once, and the coefficients of their Fourier series (periods, quadruples)."""
    turned = torch.where((field.torsions[:, :1] < field.torsions[:, 3:]), field.torsions, field.torsions.flip(1))
    quadruples, place = torch.unique(turned, dim=0, return_inverse=True)
    shape = (int(field.periodicities.max()) + 1, len(quadruples))
    cosines, sines = (field.phases.new_zeros(shape, dtype=torch.float64) for _ in range(2))
    at, size = (field.periodicities, place), field.torsion_constants.double()
    cosines.index_put_(at, size * field.phases.cos(), accumulate=True)
    sines.index_put_(at, size * field.phases.sin(), accumulate=True)
    return quadruples, cosines[1:], sines[1:], float(size.sum() + cosines[0].sum())
