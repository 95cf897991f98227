"""Hard limits of what a potential can know: trained compositions and trained distances."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.labelled import Labelled
from bayesmol.data.structures import Structures
from bayesmol.potentials.ace_rows import Model
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import species_index

UNKNOWN_REFERENCE = 1e3  # eV: standard deviation of an energy that no training composition says anything about
CLOSE = 0.8  # of the shortest trained distance of two elements


def guards(model: Model, data: Labelled) -> dict[str, Tensor]:
    """What the training structures hold.

    ``distances`` (species, species): shortest distance of each pair of elements in Å, infinite if never seen together;
    ``compositions`` (species, rank): orthonormal basis of the span of the compositions;
    ``frames`` (structures,): :func:`frame_keys`.
    """
    structures = data.structures
    kinds = species_index(structures.species, model.representation.species)
    edges = neighbours(structures, model.representation.basis.cutoff)
    size = len(model.references)
    shortest = torch.full((size * size,), torch.inf, dtype=torch.float64, device=kinds.device)
    key = kinds[edges.first] * size + kinds[edges.second]
    shortest = shortest.scatter_reduce(0, key, edges.vectors.norm(dim=-1), "amin").reshape(size, size)
    compositions = _basis(model.representation.composition(structures).unique(dim=0))
    return {"distances": shortest, "compositions": compositions, "frames": frame_keys(structures)}


def merged(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    """Guards of two training sets together."""
    span = torch.cat([first["compositions"], second["compositions"]], 1).T
    distances = torch.minimum(first["distances"], second["distances"])
    frames = torch.cat([first["frames"], second["frames"]])
    return {"distances": distances, "compositions": _basis(span), "frames": frames}


def frame_keys(structures: Structures) -> Int[Tensor, " structures"]:
    """64 bits of the SHA-256 of the positions of each structure, by which a frame is known again."""
    parts = structures.positions.double().cpu().split(structures.counts.tolist())
    keys = [int.from_bytes(hashlib.sha256(part.numpy().tobytes()).digest()[:8], "big", signed=True) for part in parts]
    return torch.tensor(keys, dtype=torch.int64, device=structures.positions.device)


def _basis(compositions: Tensor) -> Tensor:
    _, values, vectors = torch.linalg.svd(compositions, full_matrices=False)
    return vectors[values > 1e-8 * values.max()].T.contiguous()


def unknown_variance(
    composition: Float[Tensor, "structures species"], limits: dict[str, Tensor]
) -> Float[Tensor, " structures"]:
    """Variance (eV²) of the energy due to the part of a composition that the training compositions do not span."""
    basis = limits["compositions"]
    size = (composition - composition @ basis @ basis.T).norm(dim=-1)
    return torch.where(size > 1e-6 * composition.norm(dim=-1), (UNKNOWN_REFERENCE * size).square(), 0 * size)


def too_close(structures: Structures, model: Model, limits: dict[str, Tensor]) -> Bool[Tensor, " structures"]:
    """Whether two atoms are closer than 0.8 times the shortest trained distance of their elements."""
    shortest = limits["distances"]
    edges = neighbours(structures, max(1.0, float(shortest.where(shortest.isfinite(), 0.0).max())))
    kinds = species_index(structures.species, model.representation.species)
    limit = shortest[kinds[edges.first], kinds[edges.second]].nan_to_num(posinf=0.0)
    close = edges.vectors.norm(dim=-1) < CLOSE * limit
    flags = torch.zeros(len(structures), dtype=torch.bool, device=close.device)
    flags[structures.structure_index[edges.first[close]]] = True
    return flags
