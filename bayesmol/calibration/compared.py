"""A number that compares two samples, with its interval and with what a perfect sampler would have scored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from bayesmol.calibration.divergences import shares_of_rows
from bayesmol.calibration.reference import resampled_counts
from bayesmol.calibration.two_sample import Groups, pooled_groups
from bayesmol.errors import DataError, expected
from bayesmol.inference.random import generator
from bayesmol.posterior.estimate import kish

__all__ = [
    "LEVEL",
    "Compared",
    "Replicates",
    "cell_shares",
    "equal_weights",
    "mode_shares",
    "replicated",
    "share_interval",
]

LEVEL = 0.9


@dataclass(frozen=True)
class Compared:
    """A number with its 90 % interval, beside the same number of a perfect sampler of the same size.

    Attributes
    ----------
    value, lower, upper
        Of the sample.
    ideal, ideal_lower, ideal_upper
        Of a perfect one: its mean or median, and what 90 % of them score.
    p_value
        Probability that a perfect one is at least as bad.
    """

    value: float
    lower: float
    upper: float
    ideal: float
    ideal_lower: float
    ideal_upper: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.own}; perfect {self.perfect}; p = {self.p_value:.2g}"

    @property
    def own(self) -> str:
        """The value with its interval."""
        return f"{self.value:.3g} [{self.lower:.3g}, {self.upper:.3g}]"

    @property
    def perfect(self) -> str:
        """What a perfect sampler scores."""
        return f"{self.ideal:.3g} [{self.ideal_lower:.3g}, {self.ideal_upper:.3g}]"

    def content(self) -> dict[str, Any]:
        """The numbers for JSON; those that are not finite are ``None``."""
        return {name: value if math.isfinite(value) else None for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class Replicates:
    """Probabilities of all rows, of the first and then of the second sample, in each replicate of a comparison.

    The first replicate is the comparison itself; then come bootstrap samples of both; the last half are of a perfect
    sampler: the groups of both samples are pooled and dealt out again, as many to the first as it is worth.

    Attributes
    ----------
    first, second
        Axes ``(replicate, row)``; each sums to one.
    """

    first: Float[Tensor, "replicates rows"]
    second: Float[Tensor, "replicates rows"]

    def compared(self, found: Float[Tensor, " replicates"]) -> Compared:
        r"""Summary of a distance in each replicate.

        The interval :math:`D \pm 1.645\, \mathrm{sd}(D^*)`, cut at zero, is that of the score of samples of these
        sizes, as the score of a perfect sampler beside it: noise raises both above the distance of the distributions.
        Without weights the p-value is exact, by permutation.
        """
        half = (len(found) - 1) // 2
        value, tails = float(found[0]), found.new_tensor([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
        error = float(found[1 : half + 1].std()) * float(stats.norm.ppf((1 + LEVEL) / 2))
        below, middle, above = found[half + 1 :].quantile(tails).tolist()
        as_bad = 1 + int((found[half + 1 :] >= value - 1e-12).sum())
        return Compared(value, max(0.0, value - error), value + error, middle, below, above, as_bad / (half + 1))


def replicated(
    sizes: tuple[int, int],
    weights: Float[Tensor, " first"] | None,
    groups: Groups | None,
    *,
    resamples: int,
    seed: int | torch.Generator,
) -> Replicates:
    """Replicates of a comparison of samples of these sizes.

    Parameters
    ----------
    weights
        Of the rows of the first sample. A perfect sampler is then dealt as many groups as Kish's number of them, and
        the pool has the rows that are left by :func:`equal_weights`.
    groups
        Group of each row of both samples: groups are drawn and dealt whole.
    resamples
        Number of bootstrap samples, and of perfect samplers.

    Raises
    ------
    ShapeError, DataError
        If weights or groups do not fit the rows, or a sample has fewer than two groups.
    """
    if resamples < 2:
        raise DataError(expected("resamples", "at least 2", resamples))
    source = generator(seed)
    owner, counts = pooled_groups(groups, sizes, 2)
    base = torch.zeros(2, sum(sizes), dtype=torch.float64)
    base[0, : sizes[0]], base[1, sizes[0] :] = shares_of_rows(sizes[0], weights), shares_of_rows(sizes[1], None)
    drawn = [resampled_counts(count, resamples, seed=source) for count in counts]
    counted = torch.cat(drawn, 1)[:, owner]
    first, second = counted * base[0], counted * base[1]
    pool = torch.ones(sum(sizes), dtype=torch.float64)
    if weights is not None:
        pool[: sizes[0]] = equal_weights(weights.cpu(), seed=source).double()
    dealt = _dealt(owner, pool, base[0], resamples, source)
    first, second = torch.cat([base[:1], first, pool * dealt]), torch.cat([base[1:], second, pool * ~dealt])
    totals = [part.sum(1, keepdim=True) for part in (first, second)]
    # A bootstrap sample without any weight says nothing: it counts as the sample itself.
    parts = (
        torch.where(total > 0, part / total, part[:1]) for part, total in zip((first, second), totals, strict=True)
    )
    return Replicates(*parts)


def equal_weights(weights: Float[Tensor, " rows"], *, seed: int | torch.Generator) -> Bool[Tensor, " rows"]:
    """Which weighted rows to keep so that those that are kept have equal weights: each with probability w / max w.

    Without copies, unlike resampling: a copy is what a two-sample test sees first.
    """
    part = shares_of_rows(len(weights), weights)
    drawn = torch.rand(len(part), generator=generator(seed, part.device), dtype=torch.float64, device=part.device)
    return drawn < part / part.max()


def _normalised(shares: Float[Tensor, "replicates rows"]) -> Float[Tensor, "replicates rows"]:
    """Rows that sum to one; a bootstrap sample without any weight says nothing and counts as the sample itself."""
    totals = shares.sum(1, keepdim=True)
    return torch.where(totals > 0, shares / totals, shares[:1])


def _dealt(
    owner: Int[Tensor, " rows"],
    pool: Float[Tensor, " rows"],
    shares: Float[Tensor, " rows"],
    resamples: int,
    source: torch.Generator,
) -> Bool[Tensor, "resamples rows"]:
    """Which rows a perfect sampler is dealt: all of as many groups as the shares of the first sample are worth."""
    groups = int(owner.max()) + 1
    worth = round(float(kish(shares.new_zeros(groups).index_add_(0, owner, shares).log())))
    left = shares.new_zeros(groups).index_add_(0, owner, pool) > 0
    worth = min(max(1, worth), int(left.sum()) - 1)
    order = torch.rand(resamples, groups, generator=source, dtype=torch.float64).masked_fill(~left, 2.0)
    chosen = order.argsort(1)[:, :worth]
    return torch.zeros(resamples, groups, dtype=torch.bool).scatter_(1, chosen, True)[:, owner]


def share_interval(
    hits: Bool[Tensor, " rows"],
    weights: Float[Tensor, " rows"] | None = None,
    groups: Int[Tensor, " rows"] | None = None,
    *,
    level: float = LEVEL,
) -> tuple[float, float, float, float]:
    """Share of hits, its interval, and the number of independent rows that would give the same interval.

    Wilson's score interval with the number of independent rows by the spread of the shares of whole groups, at most
    Kish's number of the rows. It is not empty where all rows or none are hits.

    References
    ----------
    Wilson, J. Am. Stat. Assoc. 22, 209 (1927).
    """
    part = shares_of_rows(len(hits), weights, hits.device)
    owner = torch.arange(len(hits), device=hits.device) if groups is None else groups.unique(return_inverse=True)[1]
    sums = part.new_zeros(int(owner.max()) + 1, 2)
    sums.index_add_(0, owner, torch.stack([part, part * hits], 1))
    share = float(sums[:, 1].sum())
    variance = float((sums[:, 1] - share * sums[:, 0]).square().sum())
    rows, whole = float(1 / part.square().sum()), float(1 / sums[:, 0].square().sum())
    count = min(rows, share * (1 - share) / variance if variance > 1e-12 / rows else whole)
    z = float(stats.norm.ppf((1 + level) / 2))
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * math.sqrt(max(0.0, share * (1 - share)) / count + z**2 / (4 * count**2))
    return share, max(0.0, middle - half), min(1.0, middle + half), count


def cell_shares(
    places: Int[Tensor, " rows"],
    cells: int,
    weights: Float[Tensor, " rows"] | None = None,
    groups: Int[Tensor, " rows"] | None = None,
) -> tuple[Float[Tensor, " cells"], Float[Tensor, " cells"]]:
    r"""Share of each cell of a histogram, and its standard error by the spread of whole groups.

    .. math:: \hat p_c = \sum_g W_{gc}, \quad \sigma_c^2 = \sum_g (W_{gc} - \hat p_c W_g)^2

    with the weights :math:`W_{gc}` of a group in a cell and :math:`W_g` in all. An empty cell has the error 0: nothing
    is known of it but that it is rare.
    """
    part = shares_of_rows(len(places), weights, places.device)
    owner = torch.arange(len(places), device=places.device) if groups is None else groups.unique(return_inverse=True)[1]
    whole = part.new_zeros(int(owner.max()) + 1).index_add_(0, owner, part)
    pairs, inverse = (owner * cells + places).unique(return_inverse=True)  # the pairs that occur, not groups × cells
    sums = part.new_zeros(len(pairs)).index_add_(0, inverse, part)
    group, cell = pairs // cells, pairs % cells
    shares, squares, crossed = (part.new_zeros(cells) for _ in range(3))
    shares.index_add_(0, cell, sums)
    squares.index_add_(0, cell, sums.square())
    crossed.index_add_(0, cell, sums * whole[group])
    variance = squares - 2 * shares * crossed + shares.square() * whole.square().sum()
    return shares, variance.clamp_min(0.0).sqrt()


def mode_shares(
    first: Int[Tensor, " first"],
    second: Int[Tensor, " second"],
    *,
    weights: Float[Tensor, " first"] | None = None,
    groups: Groups | None = None,
) -> dict[int, Compared]:
    """Share of each mode in the first sample, beside that in the second with its own interval.

    Parameters
    ----------
    first, second
        Number of the mode of each row. A mode that one sample lacks has share 0 there, and an interval.
    """
    owners = groups or (None, None)
    found: dict[int, Compared] = {}
    for mode in torch.cat([first.cpu(), second.cpu()]).unique().tolist():
        share, low, high, worth = share_interval(first == mode, weights, owners[0])
        ideal, ideal_low, ideal_high, count = share_interval(second == mode, None, owners[1])
        pooled = (share * worth + ideal * count) / (worth + count)
        error = math.sqrt(pooled * (1 - pooled) * (1 / worth + 1 / count))
        p_value = float(2 * stats.norm.sf(abs(share - ideal) / error)) if error > 0 else 1.0
        found[int(mode)] = Compared(share, low, high, ideal, ideal_low, ideal_high, p_value)
    return found
