"""What nearest neighbours tell of a sampler: does it leave the support, does it miss part of it, does it copy?"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.compared import LEVEL, Compared, share_interval
from bayesmol.calibration.density_ratio import check_samples
from bayesmol.calibration.two_sample import (
    Groups,
    areas_under_curve,
    permutation_p_value,
    pooled_groups,
    shuffled_labels,
    signed_weights,
)
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator, numpy_generator

__all__ = ["inside_manifold", "memorisation", "precision_recall"]

PERMUTATIONS = 999
_PART = 2**23


def precision_recall(
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    *,
    groups: Groups | None = None,
    neighbours: int = 3,
    seed: int | torch.Generator,
) -> tuple[Compared, Compared]:
    """Share of the first sample within the manifold of the second (precision), and the other way round (recall).

    The manifold is that of half of the groups of a sample; the share of its own other half is what a perfect sampler
    scores, which is not one. Each p-value is exact, by permutations of what is inside: small if too few are.

    Parameters
    ----------
    groups
        Group of each row, as in :class:`~bayesmol.calibration.KernelTest`.
    neighbours
        The manifold is the union of the balls about its rows that reach to their neighbour of this number.

    Raises
    ------
    ShapeError, DataError
        If the features differ, one is not finite, or there are too few rows.

    References
    ----------
    Kynkäänniemi, Karras, Laine, Lehtinen, Aila, NeurIPS 2019, arXiv:1904.06991, equations 1-2.
    """
    check_samples(first, second, 2)
    source = generator(seed)
    owners = (torch.arange(len(first)), torch.arange(len(second))) if groups is None else groups
    pairs = ((first, owners[0], second, owners[1]), (second, owners[1], first, owners[0]))
    found = []
    for rows, owner, other, their in pairs:
        names = their.cpu().unique()
        half = names[torch.randperm(len(names), generator=source)[: len(names) // 2]]
        chosen = torch.isin(their.cpu(), half).to(other.device)
        manifold, fresh = other[chosen], other[~chosen]
        hits = [inside_manifold(part, manifold, neighbours) for part in (rows, fresh)]
        found.append(_shares(hits, None if groups is None else (owner, their[~chosen.to(their.device)]), source))
    return found[0], found[1]


def inside_manifold(
    rows: Float[Tensor, "rows features"], manifold: Float[Tensor, "manifold features"], neighbours: int = 3
) -> Bool[Tensor, " rows"]:
    """Whether each row is within the ball of a row of the manifold; memory is bounded.

    Raises
    ------
    DataError
        If the manifold has not more rows than ``neighbours``.
    """
    if not 1 <= neighbours < len(manifold):
        raise DataError(expected("neighbours", f"1 to {len(manifold) - 1} for {len(manifold)} rows", neighbours))
    width = max(1, _PART // len(manifold))
    own = [torch.cdist(part, manifold).kthvalue(neighbours + 1, dim=1).values for part in manifold.split(width)]
    radii = torch.cat(own)
    return torch.cat([(torch.cdist(part, manifold) <= radii).any(1) for part in rows.split(width)])


def memorisation(
    draws: Float[Tensor, "draws features"],
    training: Float[Tensor, "training features"],
    held_out: Float[Tensor, "held features"],
    *,
    groups: Groups | None = None,
    seed: int | torch.Generator,
) -> Compared:
    """Probability that a draw is nearer to the training rows than a held-out row is: ½, more if rows are copied.

    The p-value is exact: draws and held-out rows are exchangeable if the sampler is perfect. A sampler that is merely
    too narrow is nearer as well: read it beside the other figures.

    Parameters
    ----------
    held_out
        Rows of the reference that the sampler was not trained on, of other groups than the training rows.
    groups
        Group of each draw and of each held-out row.

    References
    ----------
    Meehan, Chaudhuri, Dasgupta, AISTATS 2020, arXiv:2004.05675.
    """
    check_samples(draws, held_out, 2)
    check_samples(draws, training, 2)
    nearest = torch.cat([_nearest(part, training) for part in (draws, held_out)])
    owner, count = pooled_groups(groups, (len(draws), len(held_out)), 2)
    labels = shuffled_labels(count, PERMUTATIONS, numpy_generator(seed))[:, owner].to(nearest.device)
    areas = areas_under_curve(nearest, labels)  # the held-out rows are the second: larger distance, larger area
    ideal = areas[1:].quantile(areas.new_tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2])).tolist()
    spread = float(areas[0]) - 0.5
    low, high = max(0.0, ideal[0] + spread), min(1.0, ideal[1] + spread)
    return Compared(float(areas[0]), low, high, 0.5, ideal[0], ideal[1], permutation_p_value(areas))


def _nearest(rows: Tensor, reference: Tensor) -> Float[Tensor, " rows"]:
    width = max(1, _PART // len(reference))
    return torch.cat([torch.cdist(part, reference).amin(1) for part in rows.split(width)])


def _shares(
    hits: list[Tensor], groups: tuple[Int[Tensor, " first"], Int[Tensor, " second"]] | None, source: torch.Generator
) -> Compared:
    owner, count = pooled_groups(groups, (len(hits[0]), len(hits[1])), 1)
    labels = shuffled_labels(count, PERMUTATIONS, numpy_generator(source))[:, owner].to(hits[0].device)
    inside = torch.cat(hits).double()
    missing = -(signed_weights(labels) @ inside)
    owners = groups or (None, None)
    own, fresh = (share_interval(part, None, its)[:3] for part, its in zip(hits, owners, strict=True))
    return Compared(*own, *fresh, permutation_p_value(missing))
