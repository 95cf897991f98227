"""Rows of a pool and the nearest of a growing number of centres, at the cost of few passes over the pool."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.acquisition.determinants import roundoff
from bayesmol.typing import Features

__all__ = ["TIE", "Clusters"]

TIE = 1e-11  # sums and distances that agree to this fraction are equal: round-off decides nothing
_COLUMNS = 16  # distances to so many points are computed in one pass
_BLOCKS = 3
_FEW = 8  # rows that are one in so many are cheaper to collect than all are to pass over
_SMALL = 8192  # a pool that fits into the cache needs no looking ahead
_SAMPLE = 1024


class Clusters:
    r"""Nearest centre of each row, with the decisions of a full search in float64.

    Products of float32 with a bound of their round-off decide almost all comparisons; those within the bound, of two
    distances or of the sizes of two clusters, are decided by distances in float64. A pass over the pool costs the
    same for one new centre as for some ten, so that the search is first played ahead on a sample of the pool, and a
    pass computes the distances of all rows to the points that are chosen there. A column that is not needed is
    time lost and no more.

    Parameters
    ----------
    features
        Rows; kept, and copied once in float32 about their mean.
    weights
        Of each row.
    additions
        Number of centres to come.
    clustered
        Whether the next is sought in the largest cluster or among all rows.
    training
        Centres to begin with.
    """

    def __init__(
        self,
        features: Features,
        weights: Float[Tensor, " rows"],
        additions: int,
        clustered: bool,
        training: Features | None = None,
    ) -> None:
        rows, width = features.shape
        self.features, self.weights, self.clustered = features, weights, clustered
        middle = features.mean(0)
        self.rows = torch.empty(rows, width, dtype=torch.float32, device=features.device)
        # a power of two, by which no digit changes
        self.scale = (
            2.0 ** math.frexp(max(1e-300, float((torch.stack(features.aminmax()) - middle.mean()).abs().max())))[1]
        )
        self.middle = middle
        for start in range(0, rows, _SMALL):
            self.rows[start : start + _SMALL] = self._scaled(features[start : start + _SMALL])
        self.squares = torch.einsum("nd,nd->n", self.rows, self.rows).double()
        self.unsure = roundoff(self.rows)
        capacity = additions + (0 if training is None else len(training))
        whole: dict[str, Any] = {"dtype": torch.float64, "device": features.device}
        self.distances, self.slack = torch.full((rows,), torch.inf, **whole), torch.zeros(rows, **whole)
        self.scores = torch.full((rows,), torch.inf, **whole)
        self.limits = torch.full((rows,), torch.inf, dtype=torch.float32, device=features.device)
        self.owners = torch.zeros(rows, dtype=torch.long, device=features.device)
        self.totals, self.doubts = torch.zeros(capacity, **whole), torch.zeros(capacity, **whole)
        self.centres = torch.empty(capacity, width, **whole)
        self.members: list[Int[Tensor, " members"]] = []
        self.taken = torch.zeros(rows, dtype=torch.bool, device=features.device)
        self.count = 0
        self.columns: dict[int, tuple[int, int]] = {}
        self.block = 0
        for part in () if training is None else training.split(_COLUMNS):
            points = self._scaled(part)
            for centre, point, column in zip(part.double(), points, self._products(points, self.rows), strict=True):
                near = _where(column < self.limits)
                self._add(centre, near, _at(column, near), float(point.double().square().sum()))

    def _scaled(self, rows: Features) -> Float[Tensor, "rows features"]:
        return ((rows - self.middle) / self.scale).float()

    def gain(self, index: int) -> float:
        """Weighted squared distance of a row from its centre, in the unit of the features."""
        apart = self.features[index].double() - self.centres[self.owners[index]]
        return float(self.weights[index] * apart.square().sum())

    def farthest(self) -> int:
        """The next row."""
        members = self._largest() if self.clustered else None
        scores = self.scores if members is None else _at(self.scores, members)
        if not len(scores) or float(scores.max()) <= 0:
            return int((~self.taken).nonzero()[0])
        place = scores.argmax()
        row = place if members is None else members[place]
        least = float(scores[place] - 2 * self.slack[row] * self.weights[row])
        near = _where(scores >= least * (1 - TIE))
        near = near if members is None else members[near]
        if len(near) == 1:
            return int(near)
        self._sharpen(near)
        exact = self.scores[near]
        if float(exact.max()) <= 0:
            return int((~self.taken).nonzero()[0])
        return int(near[exact >= exact.max() * (1 - TIE)].min())

    def add(self, index: int) -> None:
        """Make a row a centre."""
        centre, square = self.features[index].double(), float(self.squares[index])
        rows = None if index in self.columns else self._reachable(centre)
        if rows is not None and len(rows) <= len(self.rows) // _FEW:
            column = self._products(self.rows[[index]], _at(self.rows, rows))[0]
            near = _where(column < _at(self.limits, rows))
            self._add(centre, _at(rows, near), _at(column, near), square)
        else:
            column = self._column(index)
            near = _where(column < self.limits)
            self._add(centre, near, _at(column, near), square)
        self.totals[self.owners[index]] -= self.scores[index]
        self.distances[index], self.slack[index], self.taken[index] = 0.0, 0.0, True
        self.scores[index], self.limits[index] = -1.0, -torch.inf

    def _reachable(self, centre: Float[Tensor, " features"]) -> Int[Tensor, " some"]:
        """Rows that could be nearer to a new centre: twice as far from their own as that is from the new one."""
        apart = ((self.centres[: self.count] - centre) / self.scale).square().sum(1) * (0.25 * (1 - 1e-9))
        if not self.count:
            return torch.arange(len(self.rows), device=centre.device)
        return _where(self.distances + self.slack > _at(apart, self.owners))

    def _add(self, centre: Float[Tensor, " features"], rows: Tensor, column: Tensor, square: float) -> None:
        """Let rows change to a new centre, given lower bounds of their distances less their own squares."""
        number = self.count
        self.centres[number] = centre
        squares = _at(self.squares, rows)
        error = self.unsure * (square + squares)
        found = column.double() + self.unsure * square + squares
        sure = found + error < _at(self.distances, rows) - _at(self.slack, rows)
        if not bool(sure.all()):
            close = _where(~sure)
            doubtful = _at(rows, close)
            self._sharpen(doubtful)
            exact = self._exact(doubtful, centre)
            sure[close] = exact < _at(self.distances, doubtful)
            found[close], error[close] = exact, 0.0
            kept = _where(sure)
            rows, found, error = _at(rows, kept), _at(found, kept), _at(error, kept)
        if number:
            scores = _at(self.scores, rows)
            self.totals.index_add_(0, _at(self.owners, rows), scores, alpha=-1)
            self.doubts[:number] += 1e-15 * (self.totals[:number].abs() + scores.sum())
        weights = _at(self.weights, rows)
        self._set(rows, found, error, weights)
        self.owners.index_fill_(0, rows, number)
        self.totals[number] = (found + error) @ weights
        self.doubts[number] = 2 * (error @ weights) + 1e-13 * self.totals[number]
        self.members.append(rows)
        self.count += 1

    def _set(self, rows: Tensor, distances: Tensor, slack: Tensor, weights: Tensor) -> None:
        """Keep distances; scores and limits are upper bounds."""
        upper, squares = distances + slack, _at(self.squares, rows)
        # the millionths are for the rounding of the limit to float32
        limits = upper * (1 + 1e-6) + squares * (self.unsure - 1 + 1e-6)
        self.limits.index_copy_(0, rows, limits.float())
        self.distances.index_copy_(0, rows, distances)
        self.slack.index_copy_(0, rows, slack)
        self.scores.index_copy_(0, rows, upper * weights)

    def _exact(self, rows: Int[Tensor, " some"], centres: Float[Tensor, "*some features"]) -> Float[Tensor, " some"]:
        return ((_at(self.features, rows).double() - centres) / self.scale).square().sum(1)

    def _sharpen(self, rows: Int[Tensor, " some"]) -> None:
        """Distances of rows from their centres in float64."""
        rows = _at(rows, _where(_at(self.slack, rows) > 0))
        if len(rows):
            owners, before = _at(self.owners, rows), _at(self.scores, rows)
            exact = self._exact(rows, self.centres[owners])
            self._set(rows, exact, torch.zeros_like(before), _at(self.weights, rows))
            self.totals.index_add_(0, owners, _at(self.scores, rows) - before)

    def _largest(self) -> Int[Tensor, " members"]:
        """Rows of the largest cluster, of equal ones the oldest."""
        totals, doubts = self.totals[: self.count], self.doubts[: self.count]
        near = (totals + doubts >= (totals - doubts).max() * (1 - TIE)).nonzero().squeeze(1).tolist()
        if len(near) > 1:
            for number in near:
                members = self._of(number)
                self._sharpen(members)
                self.totals[number] = self.scores[members].clamp_min(0).sum()
                self.doubts[number] = 1e-15 * self.totals[number]
            exact = self.totals[near]
            near = [near[int((exact >= exact.max() * (1 - TIE)).nonzero()[0])]]
        return self._of(near[0])

    def _of(self, number: int) -> Int[Tensor, " members"]:
        members = self.members[number]
        self.members[number] = _at(members, _where(_at(self.owners, members) == number))
        return self.members[number]

    def _products(self, points: Float[Tensor, "points features"], rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Lower bounds of the squared distances of rows to some points, less the squares of the rows."""
        squares = points.double().square().sum(1) * (1 - self.unsure)
        return torch.addmm(squares.float()[:, None], points, rows.T, alpha=-2, out=out)

    def _column(self, index: int) -> Float[Tensor, " rows"]:
        """Products of a row with all, if need be by a pass in which those of probable followers are made too."""
        if index not in self.columns:
            self._prefetch(index)
        block, line = self.columns.pop(index)
        return self.buffer[block][line]

    @cached_property
    def buffer(self) -> Float[Tensor, "blocks lines rows"]:
        """Columns that were made ahead; there from the first on."""
        lines = 1 if len(self.rows) <= _SMALL else _COLUMNS
        return self.rows.new_empty(_BLOCKS, lines, len(self.rows))

    def _prefetch(self, index: int) -> None:
        ahead = [index] if len(self.rows) <= _SMALL or not self.count else self._ahead(index)
        self.block = (self.block + 1) % _BLOCKS
        self.columns = {row: place for row, place in self.columns.items() if place[0] != self.block}
        self._products(self.rows[ahead], self.rows, out=self.buffer[self.block][: len(ahead)])
        self.columns |= {row: (self.block, line) for line, row in enumerate(ahead)}

    def _ahead(self, index: int) -> list[int]:
        """Rows that would follow on a sample: the farthest of the largest clusters, and some of all for their sizes."""
        rows, candidates, shares = self._sample()
        points, squares = _at(self.rows, rows), _at(self.squares, rows).float()
        scores, owners, weights = (
            _at(self.scores, rows).float(),
            _at(self.owners, rows),
            _at(self.weights, rows).float(),
        )
        totals = torch.cat([self.totals[: self.count], self.totals.new_zeros(2 * _COLUMNS)]).float()
        found, last = [index], self.rows[index]
        for number in range(self.count, self.count + 2 * _COLUMNS):
            fresh = torch.addmv(squares, points, last, alpha=-2).add_(last @ last).mul_(weights)
            moved = fresh < scores
            change = torch.where(moved, shares, 0.0)
            totals.index_add_(0, owners, -change * scores)
            totals[number] = change @ fresh
            scores, owners = torch.where(moved, fresh, scores), owners.masked_fill(moved, number)
            eligible = scores[:candidates]
            if self.clustered:
                # of the clusters from which the sample has a row that may follow
                own = owners[:candidates]
                largest = own[torch.where(eligible > 0, _at(totals, own), -1.0).argmax()]
                eligible = torch.where(own == largest, eligible, -1.0)
            place = int(eligible.argmax())
            row = int(rows[place])
            if float(eligible[place]) <= 0 or row in found:
                break
            last = points[place]
            scores[place] = -1.0
            if row not in self.columns:
                found.append(row)
            if len(found) == _COLUMNS:
                break
        return found

    def _sample(self) -> tuple[Int[Tensor, " sample"], int, Float[Tensor, " sample"]]:
        """Rows, how many of these may follow, and how many of the pool each stands for."""
        if not self.clustered:
            rows = self.scores.topk(2 * _SAMPLE).indices
            return rows, len(rows), torch.zeros(len(rows), device=rows.device)
        counts = self.owners.bincount(minlength=self.count)
        order = self.totals[: self.count].argsort(descending=True)
        most = max(2 * _COLUMNS, int((counts[order].cumsum(0) < _SAMPLE).sum()) + 1)
        large = torch.zeros(self.count, dtype=torch.bool, device=order.device)
        large[order[:most]] = True
        inside = _at(large, self.owners)
        near, other = _where(inside), _where(~inside)
        # the farthest of each cluster: those of a wide one must not hide those of a narrow one with more rows
        scores, owners = _at(self.scores, near), _at(self.owners, near)
        widest = scores.new_zeros(self.count).scatter_reduce(0, owners, scores, "amax").clamp_min(1e-300)
        top = near[(scores / _at(widest, owners)).topk(min(_SAMPLE, len(near))).indices]
        parts = [part[:: max(1, len(part) // _SAMPLE)] for part in (near, other)]
        shares = [
            torch.full((len(part),), len(whole) / max(1, len(part)))
            for part, whole in zip(parts, (near, other), strict=True)
        ]
        return torch.cat([top, *parts]), len(top), torch.cat([torch.zeros(len(top)), *shares]).to(self.rows)


def _at(values: Tensor, rows: Int[Tensor, " some"]) -> Tensor:
    """Entries at some rows; several times faster than an index in brackets."""
    return values.index_select(0, rows)


def _where(mask: Bool[Tensor, " rows"]) -> Int[Tensor, " some"]:
    return mask.nonzero().squeeze(1)
