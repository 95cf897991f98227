"""Search for boxes in descriptor space that hold rows of low error."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.errors import DataError, expected

__all__ = ["Box", "Rows", "best_boxes"]


def best_boxes(rows: Rows, owner: Int[Tensor, " rows"], conditions: int, width: int) -> list[Box]:
    """Best boxes of 1, 2, … thresholds, up to the simplest one that is as good as the best.

    Parameters
    ----------
    owner
        Structure of each row, for the standard error of a difference of likelihoods.
    conditions
        Most thresholds.
    width
        Regions that are kept of each number of thresholds.

    Raises
    ------
    DataError
        If all descriptors are constant.
    """
    levels: list[list[Box]] = [[rows.whole()], *([] for _ in range(conditions))]
    for level in range(conditions):
        for parent in levels[level]:
            for child in rows.children(parent):
                if level < child.conditions <= conditions:
                    levels[child.conditions].append(child)
        found = {box.key: box for box in map(rows.polished, _first(levels[level + 1], width))}
        levels[level + 1] = _first(list(found.values()), width)
    sharp = [[rows.sharpened(box) for box in level] for level in levels[1:] if level]
    if not sharp:
        raise DataError(expected("descriptors", "a descriptor that varies", "constants"))
    best = [max(level, key=lambda box: float(rows.log_prob(box).sum())) for level in sharp]
    return best[: _simplest(rows, best, owner) + 1]


@dataclass(frozen=True, eq=False)
class Box:
    """Box of descriptors, ``lower < value ≤ upper``.

    Attributes
    ----------
    lower, upper
        Bounds of each descriptor, infinite where there is none.
    quality
        Sum of the gains of the rows inside.
    """

    lower: Float[Tensor, " descriptors"]
    upper: Float[Tensor, " descriptors"]
    quality: float

    @property
    def conditions(self) -> int:
        """Number of finite bounds."""
        return int(self.lower.isfinite().sum() + self.upper.isfinite().sum())

    @property
    def key(self) -> tuple[float, ...]:
        """What tells two boxes apart."""
        return *self.lower.tolist(), *self.upper.tolist()


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows in which boxes are found.

    A box is as good as the sum of the gains of its rows, so that the best threshold along one descriptor, or pair of
    thresholds, is read off a cumulated sum.

    Attributes
    ----------
    values
        Descriptors.
    errors
        Error of each row.
    gains
        What a row adds to the quality of a box.
    order
        Rows by ascending value of each descriptor.
    """

    values: Float[Tensor, "descriptors rows"]
    errors: Float[Tensor, " rows"]
    gains: Float[Tensor, " rows"]
    order: Int[Tensor, "descriptors rows"]

    @classmethod
    def of(cls, values: Float[Tensor, "descriptors rows"], errors: Float[Tensor, " rows"]) -> Rows:
        """Rows whose gain is the mean error minus their own."""
        return cls(values, errors, errors.mean() - errors, values.argsort(1))

    def whole(self) -> Box:
        """The box without bounds."""
        infinite = self.values.new_full((len(self.values),), math.inf)
        return Box(-infinite, infinite, float(self.gains.sum()))

    def inside(self, box: Box) -> Bool[Tensor, " rows"]:
        """Which rows a box holds."""
        low, high = box.lower.unsqueeze(1), box.upper.unsqueeze(1)
        return ((self.values > low) & (self.values <= high)).all(0)

    def children(self, parent: Box) -> Iterator[Box]:
        """The best cut from above, from below, and from both sides, along each descriptor."""
        inside = self.inside(parent)
        for place in range(len(self.values)):
            yield from self._cuts(parent, place, inside)

    def polished(self, box: Box) -> Box:
        """Optimise the bounds of each descriptor in turn until nothing improves."""
        for _ in range(20):
            before = box.quality
            for place in (box.lower.isfinite() | box.upper.isfinite()).nonzero()[:, 0].tolist():
                kinds = box.lower[place].isfinite(), box.upper[place].isfinite()
                free = replace(box, lower=_put(box.lower, place, -math.inf), quality=-math.inf)
                free = replace(free, upper=_put(box.upper, place, math.inf))
                for cut in self._cuts(free, place, self.inside(free)):
                    same = (cut.lower[place].isfinite(), cut.upper[place].isfinite()) == kinds
                    box = cut if same and cut.quality > box.quality else box
            if box.quality <= before + 1e-12:
                break
        return box

    def means(self, box: Box) -> tuple[Bool[Tensor, " rows"], float, float]:
        """Rows inside, and the mean errors of the inner and the outer rows; the inner is never zero."""
        inside = self.inside(box)
        inner, outer = (float(self.errors[part].mean()) for part in (inside, ~inside))
        return inside, max(inner, 1e-9 * outer), outer

    def sharpened(self, box: Box) -> Box:
        """Thresholds that maximise the likelihood of two exponential laws of the errors, inside and outside."""
        for _ in range(50):
            inside, inner, outer = self.means(box)
            if not inner < outer:
                break
            # Rows with an error below this number are more likely inside.
            rows = replace(self, gains=math.log(outer / inner) / (1 / inner - 1 / outer) - self.errors)
            old, box = box, rows.polished(replace(box, quality=float(rows.gains[inside].sum())))
            if old.key == box.key:
                break
        return box

    def log_prob(self, box: Box) -> Float[Tensor, " rows"]:
        """Log-density of each error under the two exponential laws."""
        inside, inner, outer = self.means(box)
        mean = torch.where(inside, inner, outer).to(self.errors)
        return -mean.log() - self.errors / mean

    def _cuts(self, parent: Box, place: int, inside: Tensor) -> Iterator[Box]:
        """Regions with the best thresholds along one descriptor for the rows inside the parent."""
        rows = self.order[place][inside[self.order[place]]]
        values, total = self.values[place, rows], self.gains[rows].cumsum(0)
        apart = (values.diff() > 0).nonzero()[:, 0]  # last rows below a possible threshold
        if len(apart) == 0:
            return
        sums, old = total[apart], (float(parent.lower[place]), float(parent.upper[place]))

        def cut(first: int | None, last: int | None, quality: Tensor) -> Box:
            ends = [None if k is None else _short(*values[apart[k] : apart[k] + 2].tolist()) for k in (first, last)]
            low, high = (given if end is None else end for end, given in zip(ends, old, strict=True))
            return Box(_put(parent.lower, place, low), _put(parent.upper, place, high), float(quality))

        yield cut(int(sums.argmin()), None, total[-1] - sums.min())
        yield cut(None, int(sums.argmax()), sums.max())
        if len(apart) > 1:
            least, where = sums.cummin(0)
            end = int((sums[1:] - least[:-1]).argmax())
            yield cut(int(where[end]), end + 1, sums[end + 1] - least[end])


def _first(boxes: list[Box], width: int) -> list[Box]:
    return sorted(boxes, key=lambda box: -box.quality)[:width]


def _simplest(rows: Rows, boxes: list[Box], owner: Tensor) -> int:
    """Place of the first box whose likelihood is lower than the best by at most two standard errors."""
    likelihood = torch.stack([rows.log_prob(box) for box in boxes])
    behind = likelihood[likelihood.sum(1).argmax()] - likelihood
    sums = behind.new_zeros(len(boxes), int(owner.max()) + 1).index_add_(1, owner, behind)
    return int((sums.sum(1) <= 2 * sums.square().sum(1).sqrt() + 1e-12).nonzero()[0])


def _short(low: float, high: float) -> float:
    """The number of fewest digits from ``low`` to below ``high``."""
    texts = (float(f"{(low + high) / 2:.{digits}g}") for digits in range(1, 18))
    return next((number for number in texts if low <= number < high), low)


def _put(bounds: Tensor, place: int, bound: float) -> Tensor:
    changed = bounds.clone()
    changed[place] = bound
    return changed
