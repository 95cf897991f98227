"""Local calibration: is the uncertainty true in each part of the data, or only on average?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, Shaped
from scipy import stats
from torch import Tensor

from bayesmol.calibration.ranks import ascending_order, midranks
from bayesmol.errors import DataError, ShapeError, expected
from bayesmol.inference.random import generator

__all__ = ["Local", "Parts", "local", "parts", "worst_slab_coverage"]

LARGEST = 20  # parts of a condition; fewer where there are less than SMALLEST structures for each
SMALLEST = 50


@dataclass(frozen=True, eq=False)
class Parts:
    """A partition of the entries by one condition.

    Attributes
    ----------
    name
        Condition, such as ``"stddev"`` or ``"species"``.
    labels
        What each part is, such as ``"H"`` or ``"0.01 to 0.02"``.
    centres
        Mean of the condition in each part; for categories their number.
    place
        Part of each entry.
    categories
        Whether the parts are kinds rather than ranges.
    """

    name: str
    labels: tuple[str, ...]
    centres: Float[Tensor, " parts"]
    place: Int[Tensor, " entries"]
    categories: bool = False


def parts(name: str, values: Shaped[Tensor, " entries"], structures: int | None = None) -> Parts:
    """Partition by a condition: whole numbers of few kinds are categories, others give parts of equal size.

    Entries with equal values stay together. Categories with less than 50 entries are joined as ``"others"``.

    Parameters
    ----------
    structures
        Number of independent structures; by default each entry is one.

    Raises
    ------
    DataError
        If a value is not finite.
    """
    if not bool(torch.isfinite(values).all()):
        raise DataError(expected(f"condition {name!r}", "finite numbers", "NaN or infinity"))
    if not values.is_floating_point():
        kinds, place, sizes = values.unique(return_inverse=True, return_counts=True)
        if len(kinds) <= 3 * LARGEST:
            return _categories(name, kinds, place, sizes)
    values = values.double()
    count = max(1, min(LARGEST, (structures or len(values)) // SMALLEST))
    place = (midranks(values, ascending_order(values)) * count).long()
    used = place.bincount(minlength=count) > 0
    place = (used.cumsum(0) - 1)[place]
    sizes = place.bincount().double()
    low, high = (
        values.new_zeros(len(sizes)).scatter_reduce(0, place, values, how, include_self=False)
        for how in ("amin", "amax")
    )
    labels = tuple(f"{a:.3g} to {b:.3g}" for a, b in zip(low.tolist(), high.tolist(), strict=True))
    return Parts(name, labels, place.bincount(values) / sizes, place)


@dataclass(frozen=True, eq=False)
class Local:
    r"""Calibration in each part: scale and bias of the normal scores, with 95 % intervals, and coverage.

    Attributes
    ----------
    parts
        The partition.
    sizes
        Entries in each part.
    scale
        Root mean square of the normal scores about the mean of all: 1 if true; above 1 the claim is too narrow.
    scale_interval
        Its interval.
    bias
        Mean of the normal scores.
    coverage
        Fraction of entries within their central 90 % interval.
    fraction_valid
        Fraction of the parts whose interval holds 1, and its exact 95 % binomial interval: about 0.95 if true.
    """

    parts: Parts
    sizes: Float[Tensor, " parts"]
    scale: Float[Tensor, " parts"]
    scale_interval: tuple[Float[Tensor, " parts"], Float[Tensor, " parts"]]
    bias: Float[Tensor, " parts"]
    coverage: Float[Tensor, " parts"]

    @property
    def worst(self) -> tuple[int, tuple[float, float]]:
        """Part whose scale is most clearly wrong, and the interval of its scale.

        Being chosen among all parts, it has an interval at the level at which those of all parts hold together with
        probability 0.95 (Bonferroni).
        """
        half = (self.scale_interval[1] / self.scale).log().clamp_min(1e-300)
        chosen = int((self.scale.log() / half).abs().argmax())
        wider = float(half[chosen]) * float(stats.norm.isf(0.025 / len(self.scale)) / stats.norm.isf(0.025))
        middle = float(self.scale[chosen])
        return chosen, (middle * math.exp(-wider), middle * math.exp(wider))

    @property
    def fraction_valid(self) -> tuple[float, float, float]:
        """Fraction and the ends of its exact (Clopper–Pearson) interval."""
        lower, upper = self.scale_interval
        count, valid = len(self.scale), int(((lower <= 1) & (1 <= upper)).sum())
        low = float(stats.beta.ppf(0.025, valid, count - valid + 1)) if valid else 0.0
        high = float(stats.beta.ppf(0.975, valid + 1, count - valid)) if valid < count else 1.0
        return valid / count, low, high


def local(found: Parts, normal: Float[Tensor, " entries"], owner: Int[Tensor, " entries"], hits: Tensor) -> Local:
    """Calibration in each part of a partition.

    Parameters
    ----------
    normal
        Normal scores, standard normal if the claim is true.
    owner
        Structure of each entry.
    hits
        Whether each entry lies within its 90 % interval.
    """
    place, squares = found.place, normal.square()
    sizes = place.bincount().double()
    mean, bias, coverage = (place.bincount(x.double()) / sizes for x in (squares, normal, hits))
    error, freedom = part_errors(squares - mean[place], place, owner, sizes)
    quantile = torch.from_numpy(stats.t.ppf(0.975, freedom.clamp_min(1).cpu().numpy())).to(error)
    # of few entries the data understate the error of a small mean square: at least that of independent normal scores
    relative = torch.maximum(error / mean, (2 / sizes).sqrt())
    half = torch.where(freedom > 0, quantile * relative / 2, math.inf)
    scale = mean.sqrt()
    return Local(found, sizes, scale, (scale * (-half).exp(), scale * half.exp()), bias, coverage)


def part_errors(
    influence: Float[Tensor, " entries"], place: Int[Tensor, " entries"], owner: Int[Tensor, " entries"], sizes: Tensor
) -> tuple[Float[Tensor, " parts"], Float[Tensor, " parts"]]:
    """Standard errors of the means of the parts, entries of one structure being dependent, and degrees of freedom."""
    count, groups = len(sizes), int(owner.max()) + 1
    if groups == len(owner):
        return (place.bincount(influence.square(), count)).sqrt() / sizes, sizes - 1
    index = owner * count + place
    sums = influence.new_zeros(groups * count).index_add_(0, index, influence).view(groups, count)
    present = (index.bincount(minlength=groups * count).view(groups, count) > 0).sum(0).double()
    return (sums.square().sum(0) * present / (present - 1).clamp_min(1)).sqrt() / sizes, present - 1


def worst_slab_coverage(
    features: Float[Tensor, "entries features"],
    hits: Tensor,
    *,
    mass: float = 0.2,
    directions: int = 100,
    seed: int | torch.Generator,
) -> float:
    r"""Least coverage over slabs :math:`a \le v \cdot x \le b` that hold at least ``mass`` of the entries.

    The slab is sought on every other entry and judged on the rest, so that chance does not make it: about the level if
    the coverage is the same everywhere.

    Raises
    ------
    ShapeError
        If features and hits do not fit, or are fewer than 100.
    DataError
        If no slab can be tried.

    References
    ----------
    Cauchois, Gupta, Duchi, J. Mach. Learn. Res. 22, 81 (2021), section 4.
    """
    if directions < 1 or not mass <= 1:
        raise DataError(expected("mass, directions", "at most 1, and one or more", (mass, directions)))
    if features.ndim != 2 or len(features) != len(hits) or len(hits) < 100:
        raise ShapeError(expected("features", "(entries, features) for at least 100 hits", tuple(features.shape)))
    source = generator(seed, features.device)
    shuffled = torch.randperm(len(hits), generator=source, device=features.device)
    first, second = shuffled[::2], shuffled[1::2]
    tried: list[tuple[float, tuple[float, float], Tensor]] = []
    spread = (features - features.mean(0)) / features.std(0).clamp_min(1e-300)
    for _ in range(directions):
        vector = torch.randn(features.shape[1], generator=source, dtype=features.dtype, device=features.device)
        tried.append((*_worst_window(spread[first] @ vector, hits[first].double(), mass), vector))
    _, (low, high), vector = min(tried, key=lambda slab: slab[0])
    along = spread[second] @ vector
    inside = (along >= low) & (along <= high)
    return float(hits[second][inside].double().mean()) if bool(inside.any()) else math.nan


def _worst_window(along: Tensor, hits: Tensor, mass: float, steps: int = 64) -> tuple[float, tuple[float, float]]:
    """Window between quantiles with the least coverage and at least ``mass``, and its ends."""
    order = ascending_order(along)
    total = torch.cat([hits.new_zeros(1), hits[order].cumsum(0)])
    edges = torch.linspace(0, len(hits), steps + 1, dtype=torch.float64, device=along.device).round().long()
    size = (edges[None] - edges[:, None]).double()
    rate = (total[edges][None] - total[edges][:, None]) / size.clamp_min(1)
    rate = rate.masked_fill(size < mass * len(hits), math.inf)
    start, end = divmod(int(rate.argmin()), steps + 1)
    low, high = along[order[edges[start]]], along[order[edges[end] - 1]]
    return float(rate[start, end]), (float(low), float(high))


def _categories(name: str, kinds: Tensor, place: Tensor, sizes: Tensor) -> Parts:
    """Categories of sufficient size; the others together."""
    large = sizes >= SMALLEST
    if not bool(large.any()):
        large = sizes == sizes.max()
    number = large.cumsum(0) - 1
    rare = int(large.sum())
    place = torch.where(large, number, rare)[place]
    labels = [_named(name, int(kind)) for kind in kinds[large].tolist()]
    centres = kinds[large].double()
    if not bool(large.all()):
        labels.append("others")
        centres = torch.cat([centres, centres.max()[None] + 1])
    return Parts(name, tuple(labels), centres, place, True)


def _named(name: str, kind: int) -> str:
    if name != "species":
        return str(kind)
    from ase.data import chemical_symbols

    return chemical_symbols[kind]
