"""From labelled structures to the rows of a linear model: designs, targets, noise and groups."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.potentials.guards import Guards, guards
from bayesmol.potentials.repulsion import repulsion
from bayesmol.representation.radial import species_index

ENERGY, VIRIAL, FORCE = 0, 1, 2
OFFSET_STDDEV = 1.0  # eV: prior of an atom's reference energy about its least-squares estimate


@dataclass(frozen=True)
class Model:
    """Everything that turns a structure into rows of a linear model with unit prior.

    Attributes
    ----------
    representation
        Invariants with their mixing weights.
    log_prior
        Log of the prior standard deviation of the weights of each family of columns.
    log_noise
        Log of the standard deviation of labels about the linear model: energies (eV for one atom, growing with the
        square root of the number of atoms), virials (as energies), and forces on an atom of each element (eV/Å).
    references
        Energy of an atom of each element (eV), numerically subtracted; the model corrects it.
    """

    representation: Any  # a Representation, or anything that makes a Design: pairs of atoms too
    log_prior: Float[Tensor, " families"]
    log_noise: Float[Tensor, " kinds"]
    references: Float[Tensor, " species"]

    def scales(self) -> Float[Tensor, " columns"]:
        """Prior standard deviation of each column's weight."""
        return torch.exp(self.log_prior).index_select(0, self.representation.families.to(self.log_prior.device))

    def whitened(self, rows: Tensor, composition: Tensor | None = None) -> Tensor:
        """Columns times their prior scales, followed by the columns of the reference energies (zero if not given)."""
        scaled = rows * self.scales().to(rows)
        if composition is None:
            composition = rows.new_zeros(len(rows), len(self.references))
        return torch.cat([scaled, OFFSET_STDDEV * composition.to(rows)], -1)

    def guards(self, structures: Structures) -> Guards:
        """Limits of what these training structures tell, see :func:`bayesmol.potentials.guards.guards`."""
        return guards(structures, self.representation.species, self.representation.basis.cutoff)

    def baseline(self, structures: Structures) -> tuple[Tensor, Tensor, Tensor]:
        """Energies, forces and virials that the linear model does not have to explain."""
        prior = repulsion(structures)
        offset = self.representation.composition(structures) @ self.references.to(structures.positions)
        return prior.energies + offset, prior.forces, prior.virials

    def noise(self, kind: Tensor, element: Tensor, atoms: Tensor, errors: Tensor) -> Tensor:
        """Variance of each row: the misfit of its kind plus the square of the label's own standard error."""
        extensive = torch.where(kind == FORCE, torch.ones_like(errors), atoms)
        return torch.exp(2 * self.log_noise.to(errors)).index_select(0, kind + element) * extensive + errors.square()

    def force_noise(self, structures: Structures) -> Float[Tensor, "atoms 1"]:
        """Variance of a force label about the linear model, atom by atom, in eV²/Å²."""
        element = species_index(structures.species, self.representation.species)
        return torch.exp(2 * self.log_noise)[FORCE + element][:, None]

    def to(self, device: torch.device | str) -> Model:
        """The same on another device."""
        mixing = tuple(part.to(device) for part in self.representation.mixing)
        parts = {name: getattr(self, name).to(device) for name in ("log_prior", "log_noise", "references")}
        return replace(self, representation=self.representation.with_mixing(mixing), **parts)


@dataclass(frozen=True)
class Rows:
    """Rows of some labelled structures: raw designs, targets less the baseline, and what the noise depends on.

    ``element`` is the index of the element of the atom on which a force acts, and 0 for other labels.
    """

    design: Float[Tensor, "rows columns"]
    composition: Float[Tensor, "rows species"]
    targets: Float[Tensor, " rows"]
    kind: Int[Tensor, " rows"]
    element: Int[Tensor, " rows"]
    atoms: Float[Tensor, " rows"]
    errors: Float[Tensor, " rows"]
    group: Int[Tensor, " rows"]

    def noise(self, model: Model) -> Tensor:
        """Variance of each row."""
        return model.noise(self.kind, self.element, self.atoms, self.errors)

    def whitened(self, model: Model) -> Tensor:
        """Design with unit prior."""
        return model.whitened(self.design, self.composition)


def rows_in_chunks(model: Model, labelled: Labelled, dtype: torch.dtype = torch.float64) -> Iterator[Rows]:
    """Rows of consecutive structures, a bounded amount of memory at a time; differentiable in the mixing."""
    for part in model.representation.chunks(labelled.structures):
        yield rows(model, labelled[part], dtype, start=part.start)


def all_rows(model: Model, labelled: Labelled, dtype: torch.dtype = torch.float64) -> Rows:
    """Rows of all structures at once."""
    return joined(list(rows_in_chunks(model, labelled, dtype)))


def joined(parts: list[Rows]) -> Rows:
    """Rows one after another."""
    return Rows(**{name: torch.cat([getattr(part, name) for part in parts]) for name in Rows.__dataclass_fields__})


def rows(model: Model, labelled: Labelled, dtype: torch.dtype, start: int = 0) -> Rows:
    """Rows of a few structures; groups are numbered from ``start``."""
    structures = labelled.structures
    stresses = labelled.stresses if bool(labelled.has_stresses.any()) else None
    forces = labelled.forces if bool(labelled.has_forces.any()) else None
    environment = model.representation.environments(structures).to(dtype)
    design = model.representation.design(environment, forces=forces is not None, virial=stresses is not None)
    baseline = model.baseline(structures)
    composition = model.representation.composition(structures)
    parts = []
    if labelled.energies is not None:
        owner = torch.arange(len(structures), device=structures.positions.device)
        values = labelled.energies - baseline[0]
        parts.append(_part(design.energy, values, labelled.energy_errors, ENERGY, owner, structures, composition))
    if forces is not None:
        keep = labelled.has_forces[structures.structure_index].repeat_interleave(3)
        owner = structures.structure_index.repeat_interleave(3)
        values = (forces - baseline[1]).reshape(-1)
        found = _part(design.forces, values, labelled.force_errors, FORCE, owner, structures, 0 * composition[owner])
        element = species_index(structures.species, model.representation.species).repeat_interleave(3)
        parts.append(_kept(replace(found, element=element), keep))
    if stresses is not None:
        keep = labelled.has_stresses.repeat_interleave(9) & _upper(len(structures), structures.positions.device)
        volume = structures.cell.det().abs()[:, None, None]
        owner = torch.arange(len(structures), device=volume.device).repeat_interleave(9)
        values = (stresses * volume - baseline[2]).reshape(-1)
        errors = None if labelled.stress_errors is None else labelled.stress_errors * volume
        found = _part(design.virial, values, errors, VIRIAL, owner, structures, 0 * composition[owner])
        parts.append(_kept(found, keep))
    found = joined(parts)
    return replace(found, group=found.group + start)


def _upper(structures: int, device: torch.device) -> Tensor:
    """The six independent components of a symmetric tensor."""
    return torch.ones(3, 3, dtype=torch.bool, device=device).triu().reshape(-1).repeat(structures)


def _part(
    design: Tensor,
    values: Tensor,
    errors: Tensor | None,
    kind: int,
    owner: Tensor,
    structures: Structures,
    composition: Tensor,
) -> Rows:
    values = values.to(torch.float64)
    return Rows(
        design=design,
        composition=composition,
        targets=values,
        kind=torch.full_like(owner, kind),
        element=torch.zeros_like(owner),
        atoms=structures.counts[owner].to(values),
        errors=torch.zeros_like(values) if errors is None else errors.reshape(-1).to(values),
        group=owner,
    )


def _kept(found: Rows, keep: Tensor) -> Rows:
    return Rows(**{name: getattr(found, name)[keep] for name in Rows.__dataclass_fields__})
