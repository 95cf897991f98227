"""Rows of the linear model on the features of a foundation: which directions, labels less what is known, groups."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.potentials.foundation import LayeredFoundation, chunks
from bayesmol.potentials.surface import Surface
from bayesmol.representation.design import Design
from bayesmol.representation.radial import element_counts

__all__ = [
    "ENERGY",
    "FORCE",
    "OFFSET",
    "VIRIAL",
    "LayerModel",
    "LayerRows",
    "layer_rows",
    "leading",
    "truncated",
    "with_scale",
]

ENERGY, VIRIAL, FORCE = 0, 1, 2
OFFSET = 1.0  # eV: prior of an atom's reference energy about its least-squares estimate
_RESOLVED = 1e-5  # of the largest deviation; beyond it, features in float32 are rounding


@dataclass(frozen=True, eq=False)
class LayerModel:
    """Numbers of the linear model.

    Attributes
    ----------
    species
        Trained elements, ascending.
    heads, scales
        Directions of the features, and the prior standard deviation of the weight of each column, the first column
        being the energy of the foundation.
    references
        Energy of an atom of each element, in eV, to be added.
    levels, floors, widths
        Of energies, virials and forces: variance of a label in the regression; variance of the noise in predictions;
        factor of the epistemic variance. All but those of forces grow with the number of atoms.
    """

    species: tuple[int, ...]
    heads: Float[Tensor, "width directions"]
    scales: Float[Tensor, " columns"]
    references: Float[Tensor, " species"]
    levels: Float[Tensor, 3]
    floors: Float[Tensor, 3]
    widths: Float[Tensor, 3]

    def scaled(self, factor: float) -> LayerModel:
        """The same with other prior standard deviations."""
        return replace(self, scales=factor * self.scales)

    def learned(self, levels: Tensor, floors: Tensor, widths: Tensor) -> LayerModel:
        """The same with the scales that were learned."""
        return replace(self, levels=levels, floors=floors, widths=widths)

    def whitened(self, rows: Tensor, composition: Tensor | None = None) -> Float[Tensor, "rows weights"]:
        """Columns with unit prior, followed by those of the elements (zero if not given)."""
        composition = rows.new_zeros(len(rows), len(self.references)) if composition is None else composition
        return torch.cat([rows * self.scales, OFFSET * composition], -1)


@dataclass(frozen=True, eq=False)
class LayerRows:
    """Rows of some labelled structures.

    Attributes
    ----------
    design, composition
        Raw columns, and the number of atoms of each element in rows of energies.
    targets
        Labels less the foundation and the references, in eV and eV/Å; of virials in eV.
    kind, extent
        Energy, virial or force; the number of atoms by which the variance of the noise grows, one for forces.
    errors
        Standard error of each label.
    group
        Structure.
    """

    design: Float[Tensor, "rows columns"]
    composition: Float[Tensor, "rows species"]
    targets: Float[Tensor, " rows"]
    kind: Int[Tensor, " rows"]
    extent: Float[Tensor, " rows"]
    errors: Float[Tensor, " rows"]
    group: Int[Tensor, " rows"]


def leading(foundation: LayeredFoundation, structures: Structures, rank: int, *, most: int = 40) -> Tensor:
    """Directions of the features, (width, columns), along which atoms of one element differ most.

    They are the principal components of the features of up to ``most`` structures, evenly spaced, each with unit
    variance; fewer than ``rank`` if the rest is rounding.

    Raises
    ------
    DataError
        If all features are constant.
    """
    sample = structures[:: max(1, len(structures) // most)]
    parts = [foundation.evaluated(sample[chunk].to(foundation.device)).features.detach() for chunk in chunks(sample)]
    features, owner = torch.cat(parts).double(), sample.species.to(parts[0].device)
    _, kind = owner.unique(return_inverse=True)
    sums = features.new_zeros(int(kind.max()) + 1, features.shape[1]).index_add(0, kind, features)
    centred = features - (sums / torch.bincount(kind)[:, None])[kind]
    _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    if not float(values[0]) > 0:
        raise DataError(expected("train", "structures whose features differ", "the same features for all atoms"))
    kept = min(rank, int((values > _RESOLVED * values[0]).sum()))
    return vectors[:kept].T / (values[:kept] / len(features) ** 0.5)


def with_scale(surface: Surface, design: Design) -> Design:
    """The same design with the energy of the foundation as its first column: what is too soft can be made stiffer."""
    energy, forces, virial = torch.cat([surface.energies[:, None], design.energy], 1), design.forces, design.virial
    if forces is not None:
        forces = torch.cat([surface.forces.reshape(-1, 1), forces], 1)
    if virial is not None:
        virial = torch.cat([surface.needed_virials.reshape(-1, 1), virial], 1)
    return replace(design, energy=energy, forces=forces, virial=virial)


def layer_rows(
    labelled: Labelled, surface: Surface, design: Design, species: tuple[int, ...], references: Tensor
) -> LayerRows:
    """Rows of all labels of ``labelled``, of which ``surface`` and ``design`` are known."""
    structures, parts = labelled.structures, []
    counts, owner = structures.counts.double(), torch.arange(len(structures), device=structures.pointer.device)
    composition = element_counts(structures, species)
    if labelled.energies is not None:
        values = labelled.energies - surface.energies - composition @ references
        parts.append((design.energy, composition, values, ENERGY, counts, labelled.energy_errors, owner))
    if labelled.forces is not None:
        atoms = structures.structure_index.repeat_interleave(3)
        keep = labelled.has_forces[atoms]
        values = (labelled.forces - surface.forces).reshape(-1)
        none, one = composition.new_zeros(len(atoms), len(species)), torch.ones_like(values)
        errors = None if labelled.force_errors is None else labelled.force_errors.reshape(-1)
        found = (design.forces, none, values, FORCE, one, errors, atoms)
        parts.append(_kept(found, keep))
    if labelled.stresses is not None and surface.virials is not None:
        upper = torch.ones(3, 3, dtype=torch.bool, device=owner.device).triu().reshape(-1).repeat(len(structures))
        keep = labelled.has_stresses.repeat_interleave(9) & upper
        volume, nine = structures.cell.det().abs()[:, None, None], owner.repeat_interleave(9)
        values = (labelled.stresses * volume - surface.virials).reshape(-1)
        errors = None if labelled.stress_errors is None else (labelled.stress_errors * volume).reshape(-1)
        none = composition.new_zeros(len(nine), len(species))
        parts.append(_kept((design.virial, none, values, VIRIAL, counts[nine], errors, nine), keep))
    return _rows(parts)


def _kept(part: tuple[Any, ...], keep: Tensor) -> tuple[Any, ...]:
    return tuple(item[keep] if isinstance(item, Tensor) else item for item in part)


def _rows(parts: list[tuple[Any, ...]]) -> LayerRows:
    filled = []
    for design, composition, values, kind, extent, errors, group in parts:
        error = torch.zeros_like(values) if errors is None else errors.to(values)
        filled.append((design, composition, values, torch.full_like(group, kind), extent, error, group))
    return LayerRows(*(torch.cat(column) for column in zip(*filled, strict=True)))


def truncated(factor: Float[Tensor, "rows columns"], rank: int) -> Float[Tensor, "rows kept"]:
    """The matrix of at most ``rank`` columns whose product with its transpose is nearest to that of ``factor``.

    Raises
    ------
    DataError
        If the rank is less than one.
    """
    if rank < 1:
        raise DataError(expected("rank", "at least one column", rank))
    if rank >= factor.shape[1]:
        return factor
    return factor @ torch.linalg.svd(factor, full_matrices=False).Vh[:rank].T
