"""Three ground truths of a domain: where a model is good enough, next to predicting the mean label everywhere."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bayesmol.calibration.ranks import ascending_order, midranks
from bayesmol.errors import DataError, ShapeError, expected

__all__ = ["Truth", "binned_calibration", "binned_error", "pointwise_error", "truths"]


@dataclass(frozen=True, eq=False)
class Truth:
    """Which rows belong to the domain, by their errors or by those of the rows of like score.

    Attributes
    ----------
    name
        ``"point"``, ``"error"`` or ``"calibration"``.
    inside
        Rows where the model is better than the naive one.
    score
        What ranks them: the score itself, or the largest score of the bin.
    measure
        Number that is compared, row by row.
    limit
        The same number of the naive model.
    """

    name: str
    inside: Bool[Tensor, " rows"]
    score: Float[Tensor, " rows"]
    measure: Float[Tensor, " rows"]
    limit: float


def pointwise_error(
    scores: Float[Tensor, " rows"], errors: Float[Tensor, " rows"], targets: Float[Tensor, " labels"]
) -> Truth:
    r"""Rows with an absolute error below the mean absolute deviation of the labels, :math:`|r| / \mathrm{MAD}_y < 1`.

    Parameters
    ----------
    errors
        Label minus prediction, in the unit of ``targets``.
    targets
        Labels whose mean the naive model predicts; those of training where there are any.

    Raises
    ------
    ShapeError, DataError
        If shapes differ, a number is not finite (scores may be infinite), or the labels are constant.

    References
    ----------
    Schultz, Wang, Jacobs, Morgan, npj Comput. Mater. 11 (2025).
    """
    scores, errors, targets = _checked(scores, errors, targets)
    measure = errors.abs() / (targets - targets.mean()).abs().mean()
    return Truth("point", measure < 1, scores, measure, 1.0)


def binned_error(
    scores: Float[Tensor, " rows"],
    errors: Float[Tensor, " rows"],
    targets: Float[Tensor, " labels"],
    *,
    bins: int = 10,
) -> Truth:
    r"""Rows in bins of the score where :math:`\mathrm{RMSE} / \sigma_y < 1`, the value of the mean label.

    Bins have equally many rows; equal scores stay together. Parameters, errors and reference as in
    :func:`pointwise_error`.
    """
    scores, errors, targets = _checked(scores, errors, targets)
    place, sizes, largest = _bins(scores, bins)
    spread = targets.std(correction=0)
    found = (place.bincount(errors.square(), len(sizes)) / sizes.clamp_min(1)).sqrt() / spread
    return Truth("error", found[place] < 1, largest[place], found[place], 1.0)


def binned_calibration(
    scores: Float[Tensor, " rows"],
    errors: Float[Tensor, " rows"],
    stddevs: Float[Tensor, " rows"],
    targets: Float[Tensor, " labels"],
    *,
    bins: int = 10,
) -> Truth:
    r"""Rows in bins where :math:`z = r/\sigma` is closer to a standard normal than :math:`(y - \bar y)/\sigma_y`.

    The distance is the area between the two distribution functions, :math:`\int |F_z - \Phi|\,\mathrm dz`.
    Parameters, errors and reference as in :func:`pointwise_error`; each bin needs at least one row, and a bin of few
    rows has a large area by chance.
    """
    scores, errors, targets = _checked(scores, errors, targets)
    if stddevs.shape != errors.shape:
        raise ShapeError(expected("stddevs", f"shape {tuple(errors.shape)}", tuple(stddevs.shape)))
    if not bool(((stddevs > 0) & stddevs.isfinite()).all()):
        raise DataError(expected("stddevs", "finite numbers above zero", "others"))
    place, _, largest = _bins(scores, bins)
    found = _areas(errors / stddevs.double(), place, bins)
    naive = (targets - targets.mean()) / targets.std(correction=0)
    limit = float(_areas(naive, torch.zeros(len(naive), dtype=torch.long, device=naive.device), 1))
    return Truth("calibration", found[place] < limit, largest[place], found[place], limit)


def truths(
    scores: Float[Tensor, " rows"],
    errors: Float[Tensor, " rows"],
    targets: Float[Tensor, " labels"],
    stddevs: Float[Tensor, " rows"] | None = None,
    *,
    bins: int = 10,
) -> list[Truth]:
    """All that can be had: :func:`pointwise_error`, :func:`binned_error`, with ``stddevs`` also the third."""
    found = [pointwise_error(scores, errors, targets), binned_error(scores, errors, targets, bins=bins)]
    if stddevs is not None:
        found.append(binned_calibration(scores, errors, stddevs, targets, bins=bins))
    return found


def _bins(scores: Tensor, bins: int) -> tuple[Int[Tensor, " rows"], Float[Tensor, " bins"], Float[Tensor, " bins"]]:
    """Bin of each row, and the size and largest score of each bin; some are empty if scores are equal."""
    if not 1 <= bins <= len(scores):
        raise DataError(expected("bins", f"1 to {len(scores)} (rows)", bins))
    place = (midranks(scores, ascending_order(scores)) * bins).long().clamp_max(bins - 1)
    largest = scores.new_full((bins,), -math.inf).scatter_reduce(0, place, scores, "amax")
    return place, place.bincount(minlength=bins).double(), largest


def _areas(z: Float[Tensor, " rows"], place: Int[Tensor, " rows"], bins: int) -> Float[Tensor, " bins"]:
    r"""Area between the distribution function of the rows of each bin and the normal one, exactly; 0 of no rows.

    On a step of height c the integral of :math:`|c - \Phi|` has the antiderivative
    :math:`\pm (c z - z \Phi - \varphi)`, which changes sign at :math:`\Phi^{-1}(c)`.
    """
    order = ascending_order(z)
    order = order[place[order].argsort(stable=True)]
    z, place = z[order], place[order]
    sizes = place.bincount(minlength=bins)
    rank = torch.arange(1, len(z) + 1, device=z.device) - (sizes.cumsum(0) - sizes)[place]
    height = rank.to(z) / sizes[place]
    first, last = rank == 1, rank == sizes[place]

    def below(x: Tensor) -> Tensor:
        return x * torch.special.ndtr(x) + torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)

    low, high, step = z[:-1], z[1:], height[:-1]
    middle = torch.special.ndtri(step).clamp(low, high.maximum(low))
    steps = step * (2 * middle - low - high) - 2 * below(middle) + below(low) + below(high)
    parts = torch.where(first, below(z), 0.0) + torch.where(last, below(-z), 0.0)
    parts[:-1] += torch.where(last[:-1], 0.0, steps)
    return z.new_zeros(bins).index_add_(0, place, parts)


def _checked(scores: Tensor, errors: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All in float64."""
    if errors.ndim != 1 or scores.shape != errors.shape or targets.ndim != 1:
        shapes = [tuple(x.shape) for x in (scores, errors, targets)]
        raise ShapeError(expected("scores, errors, targets", "shapes (rows,), (rows,), (labels,)", shapes))
    if bool(scores.isnan().any()) or not all(len(x) and bool(x.isfinite().all()) for x in (errors, targets)):
        raise DataError(
            expected("scores, errors, targets", "finite numbers (scores may be infinite)", "others or none")
        )
    targets = targets.double()
    if not bool((targets != targets[0]).any()):
        raise DataError(expected("targets", "labels that vary", "a constant", "hand in the labels of training"))
    return scores.double(), errors.double(), targets
