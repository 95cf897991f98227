"""Hard limits of what a potential can know: trained elements, compositions, distances and frames."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.data.structures import Structures
from bayesmol.errors import DataError, expected
from bayesmol.posterior import Posterior, Prediction
from bayesmol.representation.neighbours import neighbours
from bayesmol.representation.radial import element_counts, species_index

UNKNOWN_REFERENCE = 1e3  # eV: standard deviation of an energy that no training composition says anything about
REACH = 6.0  # Å: closer pairs are remembered where the potential has no cutoff of ours
CLOSE = 0.8  # of the shortest trained distance of two elements

Guards = dict[str, Tensor]


def guards(structures: Structures, species: tuple[int, ...], reach: float) -> Guards:
    """What training structures hold.

    ``distances`` (species, species): shortest distance of each pair of elements in Å, infinite if never seen within
    ``reach``; ``compositions`` (species, rank): orthonormal basis of the span of the compositions;
    ``frames`` (structures,): :func:`frame_keys`.
    """
    kinds, size = species_index(structures.species, species), len(species)
    edges = neighbours(structures, reach)
    shortest = torch.full((size * size,), torch.inf, dtype=torch.float64, device=kinds.device)
    key, lengths = kinds[edges.first] * size + kinds[edges.second], edges.vectors.detach().norm(dim=-1)
    shortest = shortest.scatter_reduce(0, key, lengths, "amin").reshape(size, size)
    compositions = _basis(element_counts(structures, species).unique(dim=0))
    return {"distances": shortest, "compositions": compositions, "frames": frame_keys(structures)}


def merged(first: Guards, second: Guards) -> Guards:
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


def unknown_variance(composition: Float[Tensor, "structures species"], limits: Guards) -> Float[Tensor, " structures"]:
    """Variance (eV²) of the energy due to the part of a composition that the training compositions do not span."""
    basis = limits["compositions"]
    size = (composition - composition @ basis @ basis.T).norm(dim=-1)
    return torch.where(size > 1e-6 * composition.norm(dim=-1), (UNKNOWN_REFERENCE * size).square(), 0 * size)


def too_close(structures: Structures, species: tuple[int, ...], limits: Guards) -> Bool[Tensor, " structures"]:
    """Whether two atoms are closer than 0.8 times the shortest trained distance of their elements."""
    shortest = limits["distances"]
    edges = neighbours(structures, max(1.0, float(shortest.where(shortest.isfinite(), 0.0).max())))
    kinds = species_index(structures.species, species)
    limit = shortest[kinds[edges.first], kinds[edges.second]].nan_to_num(posinf=0.0)
    close = edges.vectors.norm(dim=-1) < CLOSE * limit
    flags = torch.zeros(len(structures), dtype=torch.bool, device=close.device)
    flags[structures.structure_index[edges.first[close]]] = True
    return flags


def epistemic(posterior: Posterior) -> Posterior:
    """What more data would narrow, of a prediction that a strangeness is made of.

    Raises
    ------
    DataError
        If it is not known apart.
    """
    if (found := posterior.epistemic) is None:
        got = f"a {type(posterior).__name__} without"
        raise DataError(expected("prediction", "one of this potential, with its epistemic part", got, "leave it out"))
    return found


def guarded_strangeness(
    structures: Structures,
    species: tuple[int, ...],
    limits: Guards,
    variance: Callable[[Structures], Tensor],
    prediction: Prediction | None = None,
) -> Float[Tensor, " structures"]:
    """Standard deviation of each energy for the root of the number of atoms, in eV: higher is stranger.

    Infinite if two atoms are closer than 0.8 times any trained distance of their elements, an element or a
    composition was never trained.

    Parameters
    ----------
    variance
        Epistemic variance (eV²) of the energies of structures that hold trained elements only.
    prediction
        Of these structures, which saves the work.
    """
    scores = torch.full((len(structures),), torch.inf, dtype=torch.float64, device=structures.positions.device)
    known = torch.isin(structures.species, torch.tensor(species, device=structures.species.device))
    fit = torch.ones_like(scores, dtype=torch.bool)
    fit[structures.structure_index[~known]] = False
    if not bool(fit.any()):
        return scores
    inside = structures[fit.nonzero()[:, 0]]
    far = unknown_variance(element_counts(inside, species), limits) > 0
    far = far | too_close(inside, species, limits)
    known_variance = variance(inside) if prediction is None else epistemic(prediction.energy).variance
    scores[fit] = torch.where(far, torch.inf, (known_variance / inside.counts).sqrt())
    return scores
