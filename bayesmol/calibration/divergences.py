"""How far two samples are apart: divergences of histograms and distances of transport, weighted and periodic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator

__all__ = [
    "TURN",
    "Bins",
    "circle_steps",
    "jensen_shannon",
    "kullback_leibler",
    "shares_of_rows",
    "sliced_wasserstein",
    "total_variation",
    "wasserstein_circle",
    "wasserstein_line",
]

TURN = 2 * math.pi


@dataclass(frozen=True, eq=False)
class Bins:
    """Cells of a histogram: equal ones along each axis; a straight axis has one more at each end, open to infinity.

    Attributes
    ----------
    lower, upper
        Ends of the equal cells.
    periodic
        Axes that are angles in radians: their cells cover −π to π, and none are open.
    count
        Equal cells an axis.
    """

    lower: Float[Tensor, " axes"]
    upper: Float[Tensor, " axes"]
    periodic: Bool[Tensor, " axes"]
    count: int

    @classmethod
    def of(
        cls,
        reference: Float[Tensor, " rows *axes"],
        count: int = 100,
        *,
        periodic: bool | Sequence[bool] | Bool[Tensor, " axes"] = False,
    ) -> Bins:
        """Cells from the smallest to the largest number of a reference, so that another sample cannot stretch them.

        Raises
        ------
        DataError
            If there is no cell, no row, or a number is not finite.
        """
        rows = _table(reference)
        if count < 1 or not len(rows) or not bool(torch.isfinite(rows).all()):
            raise DataError(expected("reference, count", "finite rows and at least one cell", f"{len(rows)}, {count}"))
        angle = torch.as_tensor(periodic, device=rows.device).expand(rows.shape[1])
        lower = torch.where(angle, -math.pi, rows.amin(0))
        upper = torch.where(angle, math.pi, rows.amax(0))
        return cls(lower, torch.where(upper > lower, upper, lower + 1), angle, count)

    @property
    def sizes(self) -> list[int]:
        """Cells along each axis, the open ones among them."""
        return [self.count + 2 * (not angle) for angle in self.periodic.tolist()]

    def cells(self, rows: Float[Tensor, " rows *axes"]) -> Int[Tensor, "rows axes"]:
        """Cell of each row along each axis; infinite numbers are in the open cells.

        Raises
        ------
        ShapeError, DataError
            If there are other axes, a number is NaN, or an angle is infinite.
        """
        table = _table(rows)
        if table.shape[1] != len(self.sizes):
            raise ShapeError(expected("rows", f"{len(self.sizes)} axes", table.shape[1]))
        if bool(table.isnan().any()) or not bool(table[:, self.periodic].isfinite().all()):
            raise DataError(expected("rows", "numbers, and finite angles", "NaN, or an infinite angle"))
        place = (table - self.lower) / (self.upper - self.lower) * self.count
        # The largest number of the reference closes the last equal cell.
        closed = torch.where(table == self.upper, self.count - 1, place.floor().clamp(-1, self.count) + 0.0) + 1
        turned = place.floor().remainder(self.count)
        return torch.where(self.periodic, turned, closed).long()

    def places(self, rows: Float[Tensor, " rows *axes"]) -> Int[Tensor, " rows"]:
        """Number of the cell of each row among all cells, that of the last axis fastest."""
        cells = self.cells(rows)
        found = torch.zeros_like(cells[:, 0])
        for axis, size in enumerate(self.sizes):
            found = found * size + cells[:, axis]
        return found

    def shares(
        self,
        rows: Float[Tensor, " rows *axes"],
        weights: Float[Tensor, " rows"] | None = None,
        *,
        pseudo_rows: float = 0.0,
    ) -> Float[Tensor, " cells"]:
        r"""Probability of each cell :math:`(n_\mathrm{eff}\, w_c + a/C)/(n_\mathrm{eff} + a)`.

        :math:`w_c` is the share of the weights in the cell, :math:`n_\mathrm{eff}` Kish's number of rows, and a, the
        ``pseudo_rows``, are rows that are spread evenly over all C cells: none by default, and then a divergence from
        an empty cell is infinite.
        """
        place = self.places(rows)
        part = shares_of_rows(len(place), weights, place.device)
        found = part.new_zeros(math.prod(self.sizes)).index_add_(0, place, part)
        worth = float(1 / part.square().sum())
        return (worth * found + pseudo_rows / len(found)) / (worth + pseudo_rows)


def kullback_leibler(
    first: Float[Tensor, "*batch cells"], second: Float[Tensor, "*batch cells"]
) -> Float[Tensor, "*batch"]:
    r"""Divergence of the first from the second, :math:`\sum_c p_c \ln (p_c / q_c)`, in nats; may be infinite.

    References
    ----------
    Kullback, Leibler, Ann. Math. Stat. 22, 79 (1951).
    """
    _check(first, second)
    return torch.where(first > 0, first * (first.log() - second.log()), 0.0).sum(-1)


def jensen_shannon(
    first: Float[Tensor, "*batch cells"], second: Float[Tensor, "*batch cells"]
) -> Float[Tensor, "*batch"]:
    r"""Mean divergence of both from their average, in nats: 0 if equal, :math:`\ln 2` if disjoint.

    References
    ----------
    Lin, IEEE Trans. Inf. Theory 37, 145 (1991).
    """
    middle = (first + second) / 2
    return (kullback_leibler(first, middle) + kullback_leibler(second, middle)) / 2


def total_variation(
    first: Float[Tensor, "*batch cells"], second: Float[Tensor, "*batch cells"]
) -> Float[Tensor, "*batch"]:
    r"""Largest difference of the probabilities of a set of cells, :math:`\tfrac12 \sum_c |p_c - q_c|`."""
    _check(first, second)
    return (first - second).abs().sum(-1) / 2


def wasserstein_line(
    first: Float[Tensor, " first *columns"],
    second: Float[Tensor, " second *columns"],
    *,
    order: float = 1.0,
    weights: Float[Tensor, " first"] | None = None,
    second_weights: Float[Tensor, " second"] | None = None,
) -> Float[Tensor, "*columns"]:
    r"""Wasserstein distance of each column, :math:`(\int_0^1 |F^{-1}(p) - G^{-1}(p)|^r\, \mathrm dp)^{1/r}`, exact.

    Parameters
    ----------
    order
        r, at least 1.

    Raises
    ------
    ShapeError, DataError
        If the columns differ, a number is not finite, or the order is below 1.
    """
    if first.shape[1:] != second.shape[1:]:
        raise ShapeError(expected("second", f"columns {tuple(first.shape[1:])}", tuple(second.shape[1:])))
    if order < 1:
        raise DataError(expected("order", "at least 1", order))
    pairs = [(first, weights), (second, second_weights)]
    values, levels = zip(*(_quantiles(rows, weight) for rows, weight in pairs), strict=True)
    every = torch.cat(levels, 1).sort(1).values
    widths = every.diff(dim=1, prepend=every.new_zeros(len(every), 1))
    middles = every - widths / 2  # between two levels, where rounding cannot choose the wrong row
    ends = [
        value.gather(1, torch.searchsorted(level, middles).clamp_max(level.shape[1] - 1))
        for value, level in zip(values, levels, strict=True)
    ]
    cost = ((ends[0] - ends[1]).abs() ** order * widths).sum(1)
    return (cost ** (1 / order)).reshape(first.shape[1:])


def wasserstein_circle(
    first: Float[Tensor, " first *columns"],
    second: Float[Tensor, " second *columns"],
    *,
    weights: Float[Tensor, " first"] | None = None,
    second_weights: Float[Tensor, " second"] | None = None,
) -> Float[Tensor, "*columns"]:
    r"""Wasserstein distance of order one of angles, along the circle, in radians.

    .. math:: \min_a \int_{-\pi}^{\pi} |F(t) - G(t) - a|\, \mathrm dt

    References
    ----------
    Rabin, Delon, Gousseau, J. Math. Imaging Vision 41, 147 (2011).
    """
    if first.shape[1:] != second.shape[1:]:
        raise ShapeError(expected("second", f"columns {tuple(first.shape[1:])}", tuple(second.shape[1:])))
    own = shares_of_rows(len(first), weights, first.device)
    other = shares_of_rows(len(second), second_weights, first.device)
    rows = torch.cat([first, second]).double().flatten(1) if first.ndim > 1 else torch.cat([first, second])[:, None]
    found = [circle_steps(column, torch.cat([own, -other])[None])[0] for column in rows.double().T]
    return torch.stack(found).reshape(first.shape[1:])


def circle_steps(angles: Float[Tensor, " rows"], signed: Float[Tensor, "draws rows"]) -> Float[Tensor, " draws"]:
    """Distance of order one along the circle for each row of signed weights, p of the first minus p of the second."""
    place, order = angles.remainder(TURN).sort()
    arcs = torch.cat([place.diff(), (place[:1] + TURN - place[-1:])])
    steps = signed[:, order].cumsum(1)
    ranked, by = steps.sort(1)
    middle = (arcs[by].cumsum(1) >= TURN / 2 - 1e-12).to(torch.uint8).argmax(1, keepdim=True)
    return ((steps - ranked.gather(1, middle)).abs() * arcs).sum(1)


def sliced_wasserstein(
    first: Float[Tensor, "first features"],
    second: Float[Tensor, "second features"],
    *,
    order: float = 2.0,
    directions: int = 100,
    weights: Float[Tensor, " first"] | None = None,
    second_weights: Float[Tensor, " second"] | None = None,
    seed: int | torch.Generator,
) -> Float[Tensor, ""]:
    r"""Wasserstein distance of projections, averaged as :math:`(\mathrm E\, W_r^r)^{1/r}` over random directions.

    A shift by t in d dimensions gives :math:`|t| / \sqrt d` at order 2.

    References
    ----------
    Bonneel, Rabin, Peyré, Pfister, J. Math. Imaging Vision 51, 22 (2015).
    """
    source = generator(seed, first.device)
    drawn = torch.randn(first.shape[1], directions, generator=source, device=first.device, dtype=torch.float64)
    drawn = drawn / drawn.norm(dim=0)
    projected = [sample.double() @ drawn for sample in (first, second)]
    parts = wasserstein_line(*projected, order=order, weights=weights, second_weights=second_weights)
    return (parts**order).mean() ** (1 / order)


def shares_of_rows(
    rows: int, weights: Float[Tensor, " rows"] | None, device: torch.device | None = None
) -> Float[Tensor, " rows"]:
    """Weights that sum to one, on that device or where they are; equal ones if ``None``.

    Raises
    ------
    ShapeError, DataError
        If there is not one a row, one is negative or not finite, or none is positive.
    """
    if weights is None:
        return torch.full((rows,), 1 / rows, dtype=torch.float64, device=device)
    if tuple(weights.shape) != (rows,):
        raise ShapeError(expected("weights", f"one a row, shape ({rows},)", tuple(weights.shape)))
    weights = weights.detach().double().to(device)
    if not bool(weights.isfinite().all() & (weights >= 0).all() & (weights > 0).any()):
        raise DataError(expected("weights", "finite numbers ≥ 0, not all 0", "others"))
    return weights / weights.sum()


def _quantiles(rows: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Ascending values of each column, and the probability up to and with each."""
    table = _table(rows).double()
    if not len(table) or not bool(torch.isfinite(table).all()):
        raise DataError(expected("rows", "finite numbers, at least one row", "none, NaN or infinity"))
    values, order = table.T.contiguous().sort(1)
    levels = shares_of_rows(len(table), weights, table.device)[order].cumsum(1)
    return values, levels / levels[:, -1:]


def _table(rows: Tensor) -> Tensor:
    return rows.reshape(len(rows), -1)


def _check(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ShapeError(expected("second", f"cells {tuple(first.shape)}", tuple(second.shape)))
