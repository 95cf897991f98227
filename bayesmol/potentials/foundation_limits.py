"""Hard limits of what a corrected foundation can know: trained elements, compositions, distances and frames."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.potentials.ace_guards import CLOSE, frame_keys
from bayesmol.potentials.foundation import element_counts
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import species_index

__all__ = ["limits", "too_close"]

_REACH = 6.0  # Å: closer pairs are remembered


def limits(structures: Structures, species: tuple[int, ...]) -> dict[str, Tensor]:
    """What training structures hold, in the form of :func:`bayesmol.potentials.ace_guards.guards`."""
    edges, kinds = neighbours(structures, _REACH), species_index(structures.species, species)
    size = len(species)
    shortest = torch.full((size * size,), torch.inf, dtype=torch.float64, device=kinds.device)
    distance = edges.vectors.detach().norm(dim=-1)
    shortest = shortest.scatter_reduce(0, kinds[edges.first] * size + kinds[edges.second], distance, "amin")
    _, values, vectors = torch.linalg.svd(element_counts(structures, species).unique(dim=0), full_matrices=False)
    spanned = vectors[values > 1e-8 * values.max()].T.contiguous()
    return {"distances": shortest.reshape(size, size), "compositions": spanned, "frames": frame_keys(structures)}


def too_close(
    structures: Structures, species: tuple[int, ...], shortest: Float[Tensor, "species species"]
) -> Bool[Tensor, " structures"]:
    """Whether two atoms are closer than 0.8 times the shortest trained distance of their elements."""
    reach = max(1.0, float(shortest.where(shortest.isfinite(), 0.0).max()))
    edges, kinds = neighbours(structures, reach), species_index(structures.species, species)
    limit = CLOSE * shortest[kinds[edges.first], kinds[edges.second]].nan_to_num(posinf=0.0)
    close = edges.vectors.norm(dim=-1) < limit
    flags = torch.zeros(len(structures), dtype=torch.bool, device=close.device)
    flags[structures.structure_index[edges.first[close]]] = True
    return flags
