"""Exchange of equivalent atoms: features that do not feel it, and what it does to an embedding that does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bayesmol.dynamics.clustering import KMeans
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator

__all__ = [
    "Invariance",
    "exchanged",
    "invariance",
    "procrustes_change",
    "sorted_distances",
    "spurious_clusters",
    "symmetrised_torsions",
]


def sorted_distances(
    positions: Float[Tensor, "frames atoms 3"], equivalent: Sequence[Sequence[int]] = ()
) -> Float[Tensor, "frames pairs"]:
    """Distances of all pairs of atoms; those that an exchange can turn into each other are sorted among themselves.

    The choice of ``equivalent`` is the choice of the invariance group: all permutations within each set. Without a set
    these are the raw distances. The sorted ones are continuous, with a kink where two are equal, and forget which
    distances belong to one and the same atom of a set.

    Raises
    ------
    ShapeError, DataError
        If positions are not (frames, atoms, 3) and finite, or the sets overlap or have fewer than two atoms.
    """
    orbit = _orbits(positions, equivalent)
    pairs = torch.combinations(torch.arange(positions.shape[1], device=positions.device))
    distances = (positions[:, pairs[:, 0]] - positions[:, pairs[:, 1]]).norm(dim=2)
    kinds: dict[tuple[int, ...], list[int]] = {}
    for place, pair in enumerate(pairs.tolist()):
        kinds.setdefault(tuple(sorted(orbit[atom] for atom in pair)), []).append(place)
    return torch.cat([distances[:, places].sort(1).values for places in kinds.values()], 1)


def symmetrised_torsions(
    angles: Float[Tensor, "frames torsions"], equivalent: Sequence[Sequence[int]] = ()
) -> Float[Tensor, "frames features"]:
    r"""Cosines and sines of torsions; those of equivalent atoms as power sums over the atoms.

    .. math:: c_k = \sum_s \cos k\phi_s, \quad s_k = \sum_s \sin k\phi_s, \quad k = 1 \ldots n

    of each set of n torsions. The n sums determine the set of angles (Newton's identities), so that nothing but the
    names is lost, and they are smooth. Of a rigid methyl group only k = 3 moves.

    Parameters
    ----------
    angles
        In rad.
    equivalent
        Sets of columns.

    Raises
    ------
    ShapeError, DataError
        If the angles are not finite rows, or the sets overlap or have fewer than two columns.
    """
    if angles.ndim != 2 or not bool(torch.isfinite(angles).all()):
        raise ShapeError(expected("angles", "finite (frames, torsions)", tuple(angles.shape)))
    sets = _checked(angles.shape[1], equivalent)
    lone = sorted(set(range(angles.shape[1])) - {column for one in sets for column in one})
    parts = [angles[:, [column]] for column in lone]
    for one in sets:
        multiples = torch.arange(1, len(one) + 1, device=angles.device, dtype=angles.dtype)
        phases = angles[:, one][:, :, None] * multiples
        parts.append(torch.complex(phases.cos(), phases.sin()).sum(1))
    waves = [part if part.is_complex() else torch.complex(part.cos(), part.sin()) for part in parts]
    return torch.cat([torch.cat([wave.real, wave.imag], 1) for wave in waves], 1)


def exchanged(
    positions: Float[Tensor, "frames atoms 3"], equivalent: Sequence[Sequence[int]], *, seed: int | torch.Generator
) -> Float[Tensor, "frames atoms 3"]:
    """The frames with the atoms of each set in random order, another one in each frame.

    Raises
    ------
    ShapeError, DataError
        If positions are not (frames, atoms, 3) and finite, or the sets overlap or have fewer than two atoms.
    """
    _orbits(positions, equivalent)
    source, result = generator(seed, positions.device), positions.clone()
    for one in equivalent:
        members = torch.as_tensor(one, device=positions.device)
        order = torch.rand(len(positions), len(one), generator=source, device=positions.device).argsort(1)
        result[:, members] = positions[torch.arange(len(positions), device=positions.device)[:, None], members[order]]
    return result


def procrustes_change(first: Float[Tensor, "frames axes"], second: Float[Tensor, "frames axes"]) -> float:
    r"""Relative difference of two embeddings of the same frames after the best shift, rotation and reflection.

    .. math:: \min_{R^\top R = 1} \|Y - Y' R\|_F / \|Y\|_F, \quad \text{both centred}

    Raises
    ------
    ShapeError, DataError
        If the shapes differ, or the first embedding is one point.

    References
    ----------
    Schönemann, Psychometrika 31, 1 (1966).
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ShapeError(expected("second", f"{tuple(first.shape)} as the first", tuple(second.shape)))
    one, two = first - first.mean(0), second - second.mean(0)
    if not bool(one.norm() > 0):
        raise DataError(expected("first", "an embedding with an extent", "one point"))
    left, _, right = torch.linalg.svd(two.mT @ one)
    # The residual itself, not the difference of the norms, which would lose half of the digits.
    return float((one - two @ (left @ right)).norm() / one.norm())


def spurious_clusters(before: Int[Tensor, " frames"], after: Int[Tensor, " frames"], *, share: float = 0.05) -> int:
    """Clusters that differ from another one by the names of atoms only.

    Two clusters are the same if exchanging atoms carries at least ``share`` of the frames of one into the other;
    the number of clusters less the number of different ones is returned. It is zero for invariant features.

    Parameters
    ----------
    before, after
        Cluster of each frame as it is, and with its atoms exchanged.

    Raises
    ------
    ShapeError
        If the two differ in length.
    """
    from scipy.sparse.csgraph import connected_components

    if before.shape != after.shape or before.ndim != 1:
        raise ShapeError(expected("after", f"{tuple(before.shape)} as before", tuple(after.shape)))
    names = torch.cat([before, after]).unique(return_inverse=True)
    size, (first, second) = len(names[0]), names[1].chunk(2)
    carried = torch.bincount(first * size + second, minlength=size * size).reshape(size, size).double()
    linked = carried >= share * carried.sum(1, keepdim=True).clamp(min=1)
    different, _ = connected_components(linked.cpu().numpy(), directed=False)
    return size - int(different)


@dataclass(frozen=True)
class Invariance:
    """What exchanging equivalent atoms does to an embedding and to its clusters.

    Attributes
    ----------
    change
        Of the embedding, by :func:`procrustes_change`; 0 if it does not feel the exchange.
    stability
        Adjusted Rand index of the clusters before and after; 1 if each frame stays in its cluster.
    spurious
        Clusters that are another one with other names of the atoms.
    """

    change: float
    stability: float
    spurious: int


def invariance(
    features: Callable[[Tensor], Float[Tensor, "frames features"]],
    embed: Callable[[Tensor], Float[Tensor, "frames axes"]],
    positions: Float[Tensor, "frames atoms 3"],
    equivalent: Sequence[Sequence[int]],
    *,
    clusters: int,
    seed: int | torch.Generator,
) -> Invariance:
    """Compare the embedding of frames with that of the same frames after a random exchange of equivalent atoms.

    Parameters
    ----------
    features
        Of the positions, such as ``lambda x: sorted_distances(x, equivalent)``.
    embed
        Coordinates of the rows of features among themselves: principal components, TICA …
    clusters
        Number of clusters, of all frames before and after together.
    seed
        Of the exchange and of the clusters.

    Raises
    ------
    ShapeError, DataError
        If the positions or sets cannot be used, or there are fewer different frames than clusters.
    """
    from sklearn.metrics import adjusted_rand_score

    source = generator(seed)
    other = exchanged(positions, equivalent, seed=source)
    first, second = features(positions), features(other)
    change = procrustes_change(embed(first), embed(second))
    both = embed(torch.cat([first, second]))
    labels = KMeans(clusters).fit(both, seed=source).assign(both)
    before, after = labels.chunk(2)
    stability = float(adjusted_rand_score(before.cpu().numpy(), after.cpu().numpy()))
    return Invariance(change, stability, spurious_clusters(before, after))


def _checked(places: int, equivalent: Sequence[Sequence[int]]) -> list[list[int]]:
    sets = [[int(place) for place in one] for one in equivalent]
    if any(len(one) < 2 for one in sets) or any(not 0 <= place < places for one in sets for place in one):
        raise DataError(expected("equivalent", f"sets of at least two of {places} places", sets))
    if any(set(one) & set(two) for one, two in combinations(sets, 2)) or any(len(set(s)) < len(s) for s in sets):
        raise DataError(expected("equivalent", "sets in which each place occurs once", sets))
    return sets


def _orbits(positions: Tensor, equivalent: Sequence[Sequence[int]]) -> list[int]:
    """Index of the orbit of each atom: a set, or the atom alone."""
    if positions.ndim != 3 or positions.shape[2] != 3 or 0 in positions.shape:
        raise ShapeError(expected("positions", "(frames, atoms, 3)", tuple(positions.shape)))
    if not bool(torch.isfinite(positions).all()):
        raise DataError(expected("positions", "finite numbers", "NaN or infinity"))
    orbit = list(range(positions.shape[1]))
    for one in _checked(len(orbit), equivalent):
        for atom in one:
            orbit[atom] = one[0]
    return orbit
