"""Local test: is there a place where one of two samples is missing? It says where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.density_ratio import check_samples
from bayesmol.calibration.two_sample import (
    Groups,
    TwoSample,
    guarantee,
    permutation_p_value,
    pooled_groups,
    shuffled_labels,
    standardised_rows,
)
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import numpy_generator
from bayesmol.typing import Features

__all__ = ["LocalTest", "Located", "neighbours_of_rows"]

_PART = 2**23  # entries of a part of a matrix


@dataclass(frozen=True)
class Located(TwoSample):
    """Result of a :class:`LocalTest`.

    Attributes
    ----------
    centre
        Row, of the first sample or, counted on, of the second, about which the samples differ most.
    neighbours
        Rows about it that were compared, itself among them, …
    of_first
        … and how many of these are of the first sample.
    expected_of_first
        How many there should be.
    """

    centre: int
    neighbours: int
    of_first: int
    expected_of_first: float


@dataclass(frozen=True)
class LocalTest:
    r"""Scan of the neighbourhoods of all rows for one that holds too few or too many rows of the first sample.

    About each pooled row the k nearest are taken, for several k. With c of the first sample among them, and n of all
    N rows, the logarithm of the likelihood ratio of one rate inside and another outside to one rate everywhere is

    .. math:: k\, D\!\left(\tfrac ck, \tfrac nN\right) + (N - k)\, D\!\left(\tfrac{n - c}{N - k}, \tfrac nN\right),
       \quad D(a, b) = a \ln \tfrac ab + (1 - a) \ln \tfrac{1 - a}{1 - b}.

    The statistic is the largest of all rows and k; ties of permutations are broken by the mean. A mode that one
    sample lacks, which hardly changes a mean over all rows, is a neighbourhood without any of its rows.

    Attributes
    ----------
    neighbours
        The numbers k, ascending; those larger than half of all rows are left out.
    permutations
        The smallest p-value is 1/(permutations + 1).

    References
    ----------
    Kulldorff, Commun. Stat. Theory Methods 26, 1481 (1997), the Bernoulli model.
    """

    neighbours: tuple[int, ...] = (8, 32, 128)
    permutations: int = 999

    def __call__(
        self,
        first: Float[Tensor, "first features"],
        second: Float[Tensor, "second features"],
        *,
        groups: Groups | None = None,
        seed: int | torch.Generator,
    ) -> Located:
        """Test of two samples; arguments and errors as in :class:`~bayesmol.calibration.KernelTest`.

        Raises
        ------
        DataError
            If no number of neighbours is at most half of the rows, or they do not ascend.
        """
        check_samples(first, second, 2)
        owner, count = pooled_groups(groups, (len(first), len(second)), 2)
        rows = standardised_rows(first, second)
        sizes = _usable(self.neighbours, len(rows))
        near = neighbours_of_rows(rows, sizes[-1])
        labels = ~shuffled_labels(count, self.permutations, numpy_generator(seed))[:, owner].to(rows.device)
        width = max(1, _PART // len(rows))
        found = torch.cat([_summary(_scan(near, part, sizes)) for part in labels.split(width)])
        values = _scan(near, labels[:1], sizes)[..., 0]
        scale, centre = divmod(int(values.argmax()), len(rows))
        inside = near[centre, : sizes[scale]]
        share = len(first) / len(rows) * sizes[scale]
        place = centre, sizes[scale], int((inside < len(first)).sum()), share
        return Located(float(values.max()), permutation_p_value(found), guarantee(groups, "exact"), *place)


def neighbours_of_rows(rows: Features, count: int) -> Int[Tensor, "rows count"]:
    """The nearest rows of each row, itself the first unless others are the same; in parts of bounded memory."""
    parts = rows.split(max(1, _PART // len(rows)))
    return torch.cat([torch.cdist(part, rows).topk(count, largest=False).indices for part in parts])


def _usable(neighbours: tuple[int, ...], rows: int) -> list[int]:
    sizes = [size for size in neighbours if 2 * size <= rows]
    if not sizes or sizes[0] < 1 or sizes != sorted(set(sizes)):
        aim = f"ascending numbers, the first at most half of {rows} rows"
        raise DataError(expected("neighbours", aim, neighbours))
    return sizes


def _scan(
    near: Int[Tensor, "rows neighbours"], first: Bool[Tensor, "draws rows"], sizes: list[int]
) -> Float[Tensor, "sizes rows draws"]:
    """Likelihood ratios of each size, row and draw of labels."""
    table, found, start = first.T.float().contiguous(), [], 0
    total, inside = first.sum(1).float(), torch.zeros_like(table)
    for size in sizes:
        inside = inside + torch.nn.functional.embedding_bag(near[:, start:size], table, mode="sum")
        outside = _divergence(total - inside, len(table) - size, total / len(table))
        found.append(_divergence(inside, size, total / len(table)) + outside)
        start = size
    return torch.stack(found)


def _summary(ratios: Float[Tensor, "sizes rows draws"]) -> Float[Tensor, " draws"]:
    """The largest ratio; of equal ones, which are many as counts are few, that with the larger mean is larger."""
    return ratios.amax((0, 1)).double() + 1e-3 * ratios.mean((0, 1)).double()


def _divergence(hits: Float[Tensor, "rows draws"], trials: int, rate: Float[Tensor, " draws"]) -> Tensor:
    """Number of trials times the divergence of the share of hits from the rate, in nats."""
    missed = trials - hits
    return torch.xlogy(hits, hits / (trials * rate)) + torch.xlogy(missed, missed / (trials * (1 - rate)))
